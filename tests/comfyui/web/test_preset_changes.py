"""A Preset Loader in ComfyUI's real front end says which numbers are no longer its preset's, and takes those back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..browser import ADD, CHOOSE, EXPORT, LOAD, SAVE, VALUES, reload_graph
from ..level_bar import FRAME
from ..server import PACK_ROOT

OLD = json.loads((PACK_ROOT / "tests/graphs/0.1.0/workflows/wan21_t2v_14b.json").read_text(encoding="utf-8"))
# A node whose number goes into the amount of steps, as graphs of 0.1.0 could have it.
LINK = """(type) => {
    const number = LiteGraph.createNode(type);
    app.graph.add(number);
    const slot = window.psaNode.inputs.findIndex((input) => input.widget?.name === "warmup_steps");
    number.connect(0, window.psaNode, slot);
    number.widgets[0].value = 7;
    number.widgets[0].callback?.(7);
    return window.psaNode.isInputConnected(slot);
}"""
LISTEN = """() => {
    const { toast } = app.extensionManager;
    const add = toast.add.bind(toast);
    window.psaTold = [];
    toast.add = (message) => {
        window.psaTold.push(message.detail);
        add(message);
    };
}"""
TOLD = "() => window.psaTold.filter((detail) => detail?.startsWith('broken.yaml'))"
BROKEN = "M: {attention_configs: {oops: {type: psa, warmup_steps: -1}}}"


def said(page: Any) -> str:
    """What the node says of its numbers; "" where they are the preset's."""
    page.evaluate(FRAME)
    line = page.locator(".psa-preset-changes")
    return line.locator("span").inner_text() if line.is_visible() else ""


def test_nothing_is_said_of_a_presets_own_numbers(loader: Any) -> None:
    assert said(loader) == ""
    for model, preset in (("CogVideo_5b", "psa_4steps"), ("Wan2.1_1.3b", "psa_topk")):
        loader.evaluate(CHOOSE, ["model", model])
        loader.evaluate(CHOOSE, ["preset", preset])
        assert said(loader) == ""


def test_changed_numbers_are_named_and_taken_back(loader: Any) -> None:
    before = loader.evaluate(VALUES)
    loader.evaluate(CHOOSE, ["warmup_steps", "30%"])
    loader.evaluate(CHOOSE, ["level_1", 0.3])

    assert said(loader) == "changed: level_1, warmup_steps"
    title = loader.locator(".psa-preset-changes span").get_attribute("title")
    assert title == "level_1: 0.5 in the preset\nwarmup_steps: 15 in the preset"
    loader.locator(".psa-preset-changes button").click()
    assert said(loader) == ""
    assert loader.evaluate(VALUES) == before


def test_it_is_not_saved_and_says_the_same_of_a_graph_that_is_loaded(loader: Any) -> None:
    loader.evaluate(CHOOSE, ["tile_width", 4])
    saved = loader.evaluate(SAVE)
    values = loader.evaluate(VALUES)

    assert saved["nodes"][0]["widgets_values"] == list(values.values())
    reload_graph(loader, saved, "PSAPresetLoader")
    assert loader.evaluate(VALUES) == values
    assert said(loader) == "changed: tile_width"


def test_amounts_that_0_1_0_saved_as_numbers_are_the_presets(canvas: Any) -> None:
    reload_graph(canvas, OLD, "PSAPresetLoader")

    assert canvas.evaluate(VALUES)["warmup_steps"] == 15
    canvas.evaluate("() => app.canvas.centerOnNode(window.psaNode)")
    assert said(canvas) == ""


@pytest.mark.parametrize("kind", ["PrimitiveNode", "PrimitiveInt"])
def test_whole_numbers_may_be_linked_to_an_amount(loader: Any, kind: str) -> None:
    assert loader.evaluate(LINK, kind)
    saved = loader.evaluate(SAVE)
    # Where the amount was a number, so was what is linked to it.
    for node in saved["nodes"]:
        if node["type"] == "PrimitiveNode":
            node["outputs"][0]["type"] = "INT"
            node["widgets_values"] = [7, "fixed"]
    reload_graph(loader, saved, "PSAPresetLoader")

    exported = loader.evaluate(EXPORT)
    (inputs,) = (node["inputs"] for node in exported.values() if node["class_type"] == "PSAPresetLoader")
    amount = inputs["warmup_steps"]
    assert (exported[amount[0]]["inputs"]["value"] if isinstance(amount, list) else int(amount)) == 7
    # What comes from elsewhere has not been changed here.
    assert said(loader) == ""


@pytest.fixture
def broken_file(presets_folder: Path) -> Path:
    file = presets_folder / "broken.yaml"
    file.write_text(BROKEN)
    return file


def test_a_broken_file_is_said_once(page: Any, broken_file: Path) -> None:
    page.evaluate(LISTEN)
    for node_type in ("PSAPresetLoader", "PSARadialMask", "PSAPresetLoader"):
        page.evaluate(ADD, node_type)
        page.wait_for_timeout(500)
    page.evaluate(LOAD, OLD)
    page.wait_for_timeout(1000)

    (said_once,) = page.evaluate(TOLD)
    assert said_once.startswith("broken.yaml: M: oops: warmup_steps = -1")
    # Once more when something else is wrong with it.
    broken_file.write_text(BROKEN.replace("-1", "-2"))
    page.evaluate(ADD, "PSAPresetLoader")
    page.wait_for_timeout(500)
    assert [told.split(":")[3] for told in page.evaluate(TOLD)] == [" warmup_steps = -1", " warmup_steps = -2"]
