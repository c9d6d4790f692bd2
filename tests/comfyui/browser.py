"""ComfyUI's front end in a real browser: starting it, and JavaScript that tests run in its page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READY = "window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 50"
# Not graph.clear(): it counts ids from 1 again, and the front end remembers widget values by node id.
ADD = """(type) => {
    for (const node of [...app.graph.nodes]) app.graph.remove(node);
    window.psaNode = LiteGraph.createNode(type);
    app.graph.add(window.psaNode);
}"""
CHOOSE = """([name, value]) => {
    const widget = window.psaNode.widgets.find((w) => w.name === name);
    widget.value = value;
    widget.callback(value, app.canvas, window.psaNode);
}"""
# Of the widgets that are saved: a bar is only a view of others.
VALUES = """() => Object.fromEntries(
    window.psaNode.widgets.filter((w) => w.serialize !== false).map((w) => [w.name, w.value]))"""
SAVE = "() => app.graph.serialize()"
LOAD = "async (graph) => { await app.loadGraphData(graph); }"
SELECT = "(type) => { window.psaNode = app.graph.nodes.find((n) => n.type === type); }"
LANGUAGE = "() => app.extensionManager.setting.get('Comfy.Locale')"
SET = "([name, value]) => app.extensionManager.setting.set(name, value)"
# The graph that the front end begins with is in: what is added now stays.
LOADED = "window.app.extensionManager?.workflow?.activeWorkflow?.changeTracker"
EMPTY = {"version": 0.4, "nodes": [], "links": [], "groups": [], "last_node_id": 0, "last_link_id": 0}
FORGET = "() => { localStorage.clear(); sessionStorage.clear(); }"
EXPORT = "async () => (await app.graphToPrompt()).output"


def find_browser() -> str | None:
    """The path of a Chromium on this machine."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


@contextmanager
def launched(driver: Any, browser_path: str) -> Iterator[Any]:
    """A browser without a page."""
    browser = driver.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
    try:
        yield browser
    finally:
        browser.close()


def opened(browser: Any, address: str) -> Any:
    """A page that shows the front end of a server."""
    page = browser.new_page()
    page.goto(f"http://{address}")
    wait_until_loaded(page)
    return page


def reload_page(page: Any) -> None:
    """Begin anew: the front end asks the server again for everything that it knows of nodes."""
    page.evaluate(FORGET)
    page.reload()
    wait_until_loaded(page)


def wait_until_loaded(page: Any) -> None:
    page.wait_for_function(f"{READY} && {LOADED}", timeout=60_000)


def reload_graph(page: Any, graph: dict[str, Any], node_type: str) -> None:
    """Load a saved graph, and take its node of one class as the one that scripts work on."""
    page.evaluate(LOAD, graph)
    # What a node does when it is created may wait for the server.
    page.wait_for_timeout(500)
    page.evaluate(SELECT, node_type)


def speak(page: Any, language: str) -> None:
    """Have the page in a language, begun anew where it was in another."""
    if page.evaluate(LANGUAGE) != language:
        page.evaluate(SET, ["Comfy.Locale", language])
        reload_page(page)
