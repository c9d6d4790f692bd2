"""What nodes say of a run, in ComfyUI's real front end, in its classic canvas and in Vue nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..browser import ADD, CHOOSE, EXPORT, LOAD, SAVE, SELECT
from ..graphs import Graph, Link, Patch, Settings, single_pass
from ..level_bar import FRAME, caption
from ..psa import chain, psa

# And load it again, as any workflow is: only then it has an id.
LOAD_API = """async (graph) => {
    await app.loadApiJson(graph, 'test');
    await app.loadGraphData(app.graph.serialize());
}"""
# Queues what is on the canvas and waits until the front end has heard of its end, and of all that came before.
RUN = """async () => {
    const { api } = await import('/scripts/api.js');
    const ends = ["execution_success", "execution_error", "execution_interrupted"];
    const ended = new Promise((end, fail) => {
        ends.forEach((kind) => api.addEventListener(kind, end, { once: true }));
        setTimeout(() => fail(new Error("the run has not ended in a minute")), 60_000);
    });
    await app.queuePrompt(0);
    await ended;
}"""
# Every text of a node since then, also those that a busy page never gets to draw.
WATCH = """() => {
    window.psaTexts = [];
    const look = () => {
        const text = [...document.querySelectorAll(".psa-status-line")].map((each) => each.textContent).join("");
        if (window.psaTexts.at(-1) !== text) window.psaTexts.push(text);
    };
    new MutationObserver(look).observe(document, { childList: true, characterData: true, subtree: true });
}"""
MODE = "(mode) => { window.psaNode.mode = mode; }"
TO_SUBGRAPH = "() => { app.graph.convertToSubgraph(new Set([window.psaNode])); }"
# Its only one.
ENTER = "() => { app.canvas.openSubgraph(app.graph.nodes.find((node) => node.subgraph).subgraph); }"
SAID = """() => {
    const within = (graph) => graph.nodes.flatMap((node) => (node.subgraph ? within(node.subgraph) : [node]));
    return within(app.rootGraph ?? app.graph).find((node) => node.type === "PSAAttentionPatch").psaSaid.line;
}"""
PLACE = """() => {
    window.psaNode.pos = [0, 0];
    Object.assign(app.canvas.ds, { scale: 1, offset: [300, 200] });
    app.canvas.setDirty(true, true);
}"""
# Borders of the node on the screen: its own element's in Vue, drawn elsewhere.
BORDERS = """() => {
    const element = document.querySelector(`[data-node-id="${window.psaNode.id}"]`);
    if (LiteGraph.vueNodesMode) return element.getBoundingClientRect().toJSON();
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([...window.psaNode.pos]);
    const canvas = app.canvas.canvas.getBoundingClientRect();
    const [width, height] = window.psaNode.size;
    const [left, top] = [canvas.left + x, canvas.top + y];
    return { left, top, right: left + width, bottom: top + height };
}"""
SHOW = "(line) => { window.psaNode.psaSay({ line }); }"
HEAR = "([type, detail]) => { window.psaApi.dispatchCustomEvent(type, detail); }"
API = "async () => { window.psaApi = (await import('/scripts/api.js')).api; }"
OFF, BYPASSED, ON = "PSA: off", 4, 0
LONG = "PSA: no call ran sparse | 0 sparse, 1950 dense (cross-attention 1500, 480 tokens are fewer than min_tokens 450)"


@pytest.fixture
def run(canvas: Any) -> Callable[..., str]:
    """Load a graph, or take the one that is there, run it, and tell what its nodes of the pack say."""

    def queue(graph: Graph | None = None) -> str:
        if graph is not None:
            canvas.evaluate(LOAD_API, dict(graph))
            canvas.evaluate(SELECT, "PSAAttentionPatch")
            canvas.evaluate(PLACE)
            canvas.wait_for_selector(".psa-status-line", state="attached", timeout=10_000)
        canvas.evaluate(RUN)
        # What the front end does itself at the end of a job is done by then.
        canvas.wait_for_timeout(500)
        text: str = canvas.locator(".psa-status-line").first.inner_text()
        return text

    return queue


def slow(graph: Graph, model: Link) -> Link:
    return graph.add("PSATestSlow", model=model, seconds=0.4)


def graph_of(patch: Patch | None = None, steps: int = 2) -> Graph:
    return single_pass("wan_t2v", Settings(steps=steps, cfg=1.0), patch or psa(warmup_steps=1))


def test_the_line_follows_the_run_and_stays(canvas: Any, run: Callable[..., str]) -> None:
    canvas.evaluate(WATCH)

    line = run(graph_of(chain(psa(warmup_steps=2), slow), steps=4))

    assert line == "PSA: density 0.425 | 4 sparse, 12 dense (cross-attention 8, warm-up 4)"
    assert [text for text in canvas.evaluate("window.psaTexts") if text] == [
        "PSA: step 1 of 4",
        "PSA: step 2 of 4, all dense so far (warm-up)",
        "PSA: step 3 of 4, all dense so far (warm-up)",
        "PSA: step 4 of 4, density so far 0.43",
        line,
    ]


def test_saved_graph_and_prompt_know_no_line(canvas: Any, run: Callable[..., str]) -> None:
    graph = graph_of(psa(warmup_steps=1, quality="fast", unknown_models="all"))
    patched = graph[graph.nodes_of("PSAAttentionPatch")[0]]
    patched["inputs"] |= {"precision": "int8", "dense_backend": "model", "max_extra_memory": 1.5}
    assert run(graph).endswith("\nquality: that of the Preset Loader, not fast")

    (saved,) = [node for node in canvas.evaluate(SAVE)["nodes"] if node["type"] == "PSAAttentionPatch"]
    (exported,) = [x for x in canvas.evaluate(EXPORT).values() if x["class_type"] == "PSAAttentionPatch"]

    inputs = patched["inputs"]
    widgets = ("enabled", "backend", "min_tokens", "quality", "unknown_models", "precision", "dense_backend")
    widgets = (*widgets, "max_extra_memory")
    assert saved["widgets_values"] == [inputs[name] for name in widgets]
    assert "status" not in str(saved)
    assert exported["inputs"].keys() == inputs.keys()


def test_undo_and_another_tab_keep_the_line(canvas: Any, run: Callable[..., str]) -> None:
    line = run(graph_of())
    saved = canvas.evaluate(SAVE)

    canvas.evaluate(LOAD, saved)
    canvas.evaluate(FRAME)

    assert canvas.evaluate(SAID) == line
    assert canvas.locator(".psa-status-line").first.inner_text() == line


def test_off_bypassed_and_on_again_from_the_cache(canvas: Any, run: Callable[..., str]) -> None:
    line = run(graph_of())
    canvas.evaluate(CHOOSE, ["enabled", False])
    assert run() == OFF
    canvas.evaluate(MODE, BYPASSED)
    assert run() == ""
    canvas.evaluate(MODE, ON)
    assert run() == OFF
    canvas.evaluate(CHOOSE, ["enabled", True])
    assert run() == line


def test_a_run_that_is_broken_off_leaves_no_line(canvas: Any, run: Callable[..., str]) -> None:
    def break_off(graph: Graph, model: Link) -> Link:
        return graph.add("PSATestBreakOff", model=model, kind="error", step=1)

    assert run(graph_of(chain(psa(), slow, break_off))) == ""


def test_the_node_may_be_within_a_subgraph(canvas: Any, run: Callable[..., str]) -> None:
    line = run(graph_of())
    canvas.evaluate(TO_SUBGRAPH)
    canvas.evaluate(FRAME)
    canvas.evaluate(ENTER)
    canvas.wait_for_selector(".psa-status-line", state="attached", timeout=10_000)

    assert run() == line


def test_the_run_of_another_graph_says_nothing_here(canvas: Any, run: Callable[..., str]) -> None:
    line = run(graph_of())
    canvas.evaluate(API)
    node, here = canvas.evaluate("[window.psaNode.id, app.graph.id]")

    canvas.evaluate(HEAR, ["psa.line", {"node": node, "graph": "another", "line": "PSA: step 1 of 4"}])
    assert canvas.evaluate(SAID) == line

    canvas.evaluate(HEAR, ["psa.line", {"node": node, "graph": here, "line": "PSA: step 2 of 4"}])
    assert canvas.evaluate(SAID) == "PSA: step 2 of 4"


@pytest.mark.parametrize("node_type", ["PSAAttentionPatch", "PSACogVideoXLoRA", "PSASavePreset"])
def test_lines_have_room_on_every_node_of_theirs(canvas: Any, node_type: str) -> None:
    canvas.evaluate(ADD, node_type)
    canvas.evaluate(PLACE)
    line = canvas.locator(".psa-status-line")
    line.wait_for(state="attached", timeout=10_000)
    canvas.wait_for_timeout(300)
    heights = []
    for text in ("", "PSA: off", LONG):
        canvas.evaluate(SHOW, text)
        canvas.wait_for_timeout(300)
        box, node = line.bounding_box(), canvas.evaluate(BORDERS)
        heights.append(round(box["height"]) if box else 0)
        if text:
            assert node["left"] <= box["x"]
            assert box["x"] + box["width"] <= node["right"] + 1
            assert node["top"] < box["y"]
            assert box["y"] + box["height"] <= node["bottom"] + 1
    assert heights[0] < 5 < heights[1] < 30 < heights[2]


def test_what_save_preset_says_stays(canvas: Any, run: Callable[..., str], presets_folder: Path) -> None:
    graph = Graph()
    graph.add("PSASavePreset", preset=graph.add("PSAPresetLoader"), model="Wan2.1_1.3b", name="mine", overwrite=False)
    canvas.evaluate(LOAD_API, dict(graph))
    canvas.wait_for_selector(".psa-status-line", state="attached", timeout=10_000)

    assert run().startswith('Saved "mine" of Wan2.1_1.3b')


def test_the_density_of_the_run_stands_beside_the_bar_until_a_number_changes(
    canvas: Any, run: Callable[..., str]
) -> None:
    run(graph_of())
    canvas.evaluate(SELECT, "PSAPresetLoader")
    canvas.evaluate(PLACE)
    assert caption(canvas) == ("mask_ratios", "budget 0.40 · ran at 0.43")

    canvas.evaluate(CHOOSE, ["level_8", 0.8])
    assert caption(canvas)[1] == "budget 0.41"

    canvas.evaluate(CHOOSE, ["level_8", 0.7])
    assert caption(canvas)[1] == "budget 0.40 · ran at 0.43"


def test_a_schedule_of_other_ratios_says_nothing_of_the_preset_s(canvas: Any, run: Callable[..., str]) -> None:
    schedule = {"curve": "constant", **{f"start_{level}": 0.9 for level in (1, 2, 4, 8)}}
    assert "density" in run(graph_of(psa(schedule=schedule)))
    canvas.evaluate(SELECT, "PSAPresetLoader")
    canvas.evaluate(PLACE)

    assert caption(canvas)[1] == "budget 0.40"
