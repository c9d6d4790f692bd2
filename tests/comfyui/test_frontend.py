"""The Preset Loader in ComfyUI's real front end: choosing fills in the numbers, loading a graph leaves them alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import ComfyUI
from .psa import PRESET_NUMBERS

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

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
ADD_LOADER = """() => {
    for (const node of [...app.graph.nodes]) app.graph.remove(node);
    window.psaNode = LiteGraph.createNode("PSAPresetLoader");
    app.graph.add(window.psaNode);
}"""
PRESET_NAMES = "window.psaNode.widgets.find((w) => w.name === 'preset').options.values"
CHOOSE = """([name, value]) => {
    const widget = window.psaNode.widgets.find((w) => w.name === name);
    widget.value = value;
    widget.callback(value, app.canvas, window.psaNode);
}"""
VALUES = "() => Object.fromEntries(window.psaNode.widgets.map((w) => [w.name, w.value]))"


@pytest.fixture(scope="module")
def page(comfyui: ComfyUI) -> Iterator[Any]:
    browser_path = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser_path is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        page = browser.new_page()
        page.goto(f"http://{comfyui.server.address}")
        page.wait_for_function(READY, timeout=60_000)
        yield page
        browser.close()


@pytest.fixture
def loader(page: Any) -> Any:
    page.evaluate(ADD_LOADER)
    # The list of names narrows to the model's when the presets have arrived.
    page.wait_for_function(f"{PRESET_NAMES}.length === 4", timeout=20_000)
    return page


def test_fresh_node_shows_the_default_preset(loader: Any) -> None:
    values = loader.evaluate(VALUES)

    assert list(values) == list(PRESET_NUMBERS)
    assert values["preset"] == "psa_balanced"
    assert (values["level_1"], values["level_8"], values["warmup_steps"]) == (0.5, 0.8, 15)


def test_choosing_a_preset_fills_in_its_numbers(loader: Any) -> None:
    loader.evaluate(CHOOSE, ["preset", "psa_topk"])

    values = loader.evaluate(VALUES)
    assert (values["mask_mode"], values["block_n"], values["level_1"], values["level_8"]) == ("topk", "32", 0.05, 0.25)


def test_choosing_a_model_narrows_the_presets_and_takes_its_default(loader: Any) -> None:
    loader.evaluate(CHOOSE, ["model", "CogVideo_5b"])

    values = loader.evaluate(VALUES)
    assert loader.evaluate(PRESET_NAMES) == ["baseline", "psa_balanced", "psa_4steps"]
    assert (values["preset"], values["reorder"], values["level_1"]) == ("psa_balanced", "off", 0.1)


def test_loading_a_graph_keeps_its_numbers(loader: Any) -> None:
    loader.evaluate(CHOOSE, ["preset", "psa_topk"])
    loader.evaluate(CHOOSE, ["level_1", 0.07])

    saved = loader.evaluate("() => app.graph.serialize()")
    loader.evaluate("async (graph) => { await app.loadGraphData(graph); }", saved)
    loader.wait_for_timeout(500)

    loader.evaluate("() => { window.psaNode = app.graph.nodes.find((n) => n.type === 'PSAPresetLoader'); }")
    values = loader.evaluate(VALUES)
    exported = loader.evaluate("async () => (await app.graphToPrompt()).output")
    assert (values["preset"], values["level_1"], values["level_2"]) == ("psa_topk", 0.07, 0.1)
    (node,) = exported.values()
    assert node["inputs"] == values
