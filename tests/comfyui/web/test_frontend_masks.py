"""Radial Mask and Sparsity Schedule in ComfyUI's real front end, and graphs saved before there were any."""

from __future__ import annotations

from typing import Any

import pytest

from ..browser import ADD, CHOOSE, EXPORT, SAVE, SELECT, VALUES, reload_graph
from ..psa import ADDED_SCHEDULE_WIDGETS, MASK_WIDGETS, PRESET_NUMBERS, SCHEDULE_WIDGETS

LENGTHS = {
    "short (under 30 frames)": (1.0, 1, "3"),
    "medium (30 to 50)": (1.0, 2, "5"),
    "long (over 50 frames)": (1.0, 3, "8"),
}
FILLED = ("decay_factor", "dense_layers", "dense_timesteps")
# The numbers of the lengths come from the server: choose until they are there.
FILLS = """() => {
    const find = (name) => window.psaNode.widgets.find((w) => w.name === name);
    const length = find("video_length"), decay = find("decay_factor");
    const [chosen, before] = [length.value, decay.value];
    decay.value = -1;
    length.callback(chosen, app.canvas, window.psaNode);
    const filled = decay.value !== -1;
    if (!filled) decay.value = before;
    return filled;
}"""
# All four nodes of the pack, connected; returns their ids.
CONNECT = """() => {
    for (const node of [...app.graph.nodes]) app.graph.remove(node);
    const ids = {};
    const add = (type) => {
        const node = LiteGraph.createNode(type);
        app.graph.add(node);
        ids[type] = node.id;
        return node;
    };
    const patch = add("PSAAttentionPatch");
    add("UNETLoader").connect(0, patch, patch.findInputSlot("model"));
    add("PSAPresetLoader").connect(0, patch, patch.findInputSlot("preset"));
    add("PSARadialMask").connect(0, patch, patch.findInputSlot("mask"));
    add("PSASparsitySchedule").connect(0, patch, patch.findInputSlot("schedule"));
    return ids;
}"""
SOCKETS = """() => Object.fromEntries(
    window.psaNode.inputs.map((input, slot) => [input.name, [input.type, window.psaNode.isInputConnected(slot)]]))"""
CONNECT_MASK = """() => {
    const mask = LiteGraph.createNode("PSARadialMask");
    app.graph.add(mask);
    mask.connect(0, window.psaNode, window.psaNode.findInputSlot("mask"));
    return mask.id;
}"""
LOAD_API = "async (graph) => { await app.loadApiJson(graph, 'test'); }"


@pytest.fixture
def mask(page: Any) -> Any:
    page.evaluate(ADD, "PSARadialMask")
    page.wait_for_function(FILLS, timeout=10_000)
    return page


def filled(page: Any) -> tuple[str, tuple[float, ...]]:
    """The length that the node shows, and the numbers that it stands for."""
    values = page.evaluate(VALUES)
    return values["video_length"], tuple(values[key] for key in FILLED)


def test_fresh_nodes_show_their_defaults(mask: Any) -> None:
    assert list(mask.evaluate(VALUES)) == list(MASK_WIDGETS)
    assert filled(mask) == ("medium (30 to 50)", LENGTHS["medium (30 to 50)"])

    mask.evaluate(ADD, "PSASparsitySchedule")

    assert mask.evaluate(VALUES) == SCHEDULE_WIDGETS | ADDED_SCHEDULE_WIDGETS


@pytest.mark.parametrize("length", LENGTHS)
def test_choosing_a_length_fills_in_its_numbers(mask: Any, length: str) -> None:
    mask.evaluate(CHOOSE, ["mode", "intersect"])
    for name in FILLED:
        mask.evaluate(CHOOSE, [name, 16])
    mask.evaluate(CHOOSE, ["video_length", length])

    assert filled(mask) == (length, LENGTHS[length])
    assert mask.evaluate(VALUES)["mode"] == "intersect"


def test_choosing_custom_leaves_the_numbers(mask: Any) -> None:
    mask.evaluate(CHOOSE, ["video_length", "long (over 50 frames)"])
    mask.evaluate(CHOOSE, ["video_length", "custom"])

    assert filled(mask) == ("custom", LENGTHS["long (over 50 frames)"])


@pytest.mark.parametrize(("name", "value"), [("decay_factor", 0.7), ("dense_layers", 4), ("dense_timesteps", "3")])
def test_changing_a_number_makes_the_length_custom(mask: Any, name: str, value: float | str) -> None:
    mask.evaluate(CHOOSE, ["block_size", 64])
    assert filled(mask)[0] == "medium (30 to 50)"

    mask.evaluate(CHOOSE, [name, value])

    numbers = dict(zip(FILLED, LENGTHS["medium (30 to 50)"], strict=True)) | {name: value}
    assert filled(mask) == ("custom", tuple(numbers.values()))


def test_loading_a_graph_keeps_its_numbers(mask: Any) -> None:
    """Also numbers that are not those of the length saved beside them."""
    saved = mask.evaluate(SAVE)
    (node,) = saved["nodes"]
    place = list(MASK_WIDGETS).index("decay_factor")
    assert node["widgets_values"][place] == 1
    node["widgets_values"][place] = 0.07

    reload_graph(mask, saved, "PSARadialMask")

    assert filled(mask) == ("medium (30 to 50)", (0.07, 2, "5"))
    (exported,) = mask.evaluate(EXPORT).values()
    assert exported["inputs"] == mask.evaluate(VALUES)


def test_links_export_as_the_api_takes_them(page: Any) -> None:
    ids = page.evaluate(CONNECT)

    reload_graph(page, page.evaluate(SAVE), "PSARadialMask")
    mask_values = page.evaluate(VALUES)
    exported = page.evaluate(EXPORT)

    by_class = {node["class_type"]: node["inputs"] for node in exported.values()}
    links = {
        "model": "UNETLoader", "preset": "PSAPresetLoader", "mask": "PSARadialMask", "schedule": "PSASparsitySchedule"
    }  # fmt: skip
    widgets = {"enabled": True, "backend": "auto", "min_tokens": 0}
    widgets |= {"quality": "balanced", "unknown_models": "video", "precision": "preset", "dense_backend": "preset"}
    widgets |= {"max_extra_memory": 0}
    assert by_class["PSAAttentionPatch"] == widgets | {key: [str(ids[name]), 0] for key, name in links.items()}
    assert by_class["PSASparsitySchedule"] == SCHEDULE_WIDGETS | ADDED_SCHEDULE_WIDGETS
    assert by_class["PSARadialMask"] == mask_values
    assert list(by_class["PSAPresetLoader"]) == list(PRESET_NUMBERS)


def test_graph_saved_before_the_sockets_existed(page: Any) -> None:
    ids = page.evaluate(CONNECT)
    page.evaluate(SELECT, "PSAAttentionPatch")
    page.evaluate(CHOOSE, ["backend", "torch"])
    page.evaluate(CHOOSE, ["min_tokens", 77])
    saved = as_before_the_sockets(page.evaluate(SAVE))

    reload_graph(page, saved, "PSAAttentionPatch")

    widgets = {"enabled": True, "backend": "torch", "min_tokens": 77}
    widgets |= {"quality": "preset", "unknown_models": "off", "precision": "preset", "dense_backend": "preset"}
    widgets |= {"max_extra_memory": 0}
    assert page.evaluate(VALUES) == widgets
    sockets = page.evaluate(SOCKETS)
    assert {name: sockets[name] for name in ("model", "preset", "mask", "schedule")} == {
        "model": ["MODEL", True],
        "preset": ["PSA_PRESET", True],
        "mask": ["PSA_MASK", False],
        "schedule": ["PSA_SCHEDULE", False],
    }
    assert not page.evaluate("() => app.graph.nodes.some((node) => node.has_errors)")
    expected = widgets | {
        "model": [str(ids["UNETLoader"]), 0], "preset": [str(ids["PSAPresetLoader"]), 0]
    }  # fmt: skip
    patch_id = str(ids["PSAAttentionPatch"])
    assert page.evaluate(EXPORT)[patch_id]["inputs"] == expected
    mask_id = page.evaluate(CONNECT_MASK)
    assert page.evaluate(EXPORT)[patch_id]["inputs"] == expected | {"mask": [str(mask_id), 0]}


def as_before_the_sockets(saved: dict[str, Any]) -> dict[str, Any]:
    """The graph as an earlier version of the pack would have saved it."""
    new = {"PSARadialMask", "PSASparsitySchedule"}
    gone = {node["id"] for node in saved["nodes"] if node["type"] in new}
    saved["nodes"] = [node for node in saved["nodes"] if node["id"] not in gone]
    saved["links"] = [link for link in saved["links"] if link[1] not in gone]
    (patch,) = [node for node in saved["nodes"] if node["type"] == "PSAAttentionPatch"]
    widgets = ("quality", "unknown_models", "precision", "dense_backend", "max_extra_memory")
    added = ("mask", "schedule", "calibration", *widgets)
    patch["inputs"] = [slot for slot in patch["inputs"] if slot["name"] not in added]
    # Enabled, backend and min_tokens; the others came later.
    del patch["widgets_values"][3:]
    for name in widgets:
        patch.get("widgets_values_named", {}).pop(name, None)
    for place, slot in enumerate(patch["inputs"]):
        for link in saved["links"]:
            if link[0] == slot.get("link"):
                link[4] = place
    return saved
