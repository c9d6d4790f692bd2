"""Advanced inputs are folded away in the classic canvas as in Vue nodes, and come out at a click."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ..browser import ADD, CHOOSE, EXPORT, SAVE, SET, VALUES, reload_graph
from ..level_bar import FRAME, PLACE
from ..psa import ADDED_SCHEDULE_WIDGETS, MASK_WIDGETS, PRESET_NUMBERS, SCHEDULE_WIDGETS

WIDGETS = {
    "PSAPresetLoader": PRESET_NUMBERS,
    "PSARadialMask": MASK_WIDGETS,
    "PSASparsitySchedule": SCHEDULE_WIDGETS | ADDED_SCHEDULE_WIDGETS,
}
# What is hidden whether advanced inputs are or not.
NOT_OF_ITS_MODE = {"target_density", "target_error"}
NODES = pytest.mark.parametrize("node_type", WIDGETS)
# Of widgets that hold a value, in the classic canvas: name, whether advanced, and where it was drawn.
DRAWN = """() => {
    const node = window.psaNode;
    for (const widget of node.widgets) widget.last_y = null;
    app.canvas.draw(true, true);
    return node.widgets.filter((w) => w.serialize !== false).map((w) => [w.name, !!w.options?.advanced, w.last_y]);
}"""
CLICK = "() => window.psaNode.widgets.find((w) => w.name === 'advanced').callback()"
TOGGLE = "window.psaNode.widgets.find((w) => w.name === 'advanced').label"
LINK = """(name) => {
    const source = LiteGraph.createNode("PrimitiveInt");
    app.graph.add(source);
    source.pos = [-600, 0];
    source.connect(0, window.psaNode, window.psaNode.inputs.findIndex((input) => input.widget?.name === name));
}"""


@pytest.fixture
def classic(canvas: Any, request: pytest.FixtureRequest) -> Any:
    if request.node.callspec.params["canvas"] == "vue":
        pytest.skip("of the classic canvas")
    return canvas


def show(page: Any, node_type: str) -> None:
    page.evaluate(ADD, node_type)
    page.evaluate(PLACE, [1.0, 420, 60])
    page.wait_for_timeout(500)
    page.evaluate(FRAME)


def visible(page: Any) -> tuple[list[str], list[str]]:
    """Plain inputs that are drawn, and advanced ones."""
    found = page.evaluate(DRAWN)
    return tuple([name for name, kind, y in found if kind == advanced and y is not None] for advanced in (False, True))  # type: ignore[return-value]


@NODES
def test_advanced_inputs_come_out_at_a_click(classic: Any, node_type: str) -> None:
    show(classic, node_type)
    plain, advanced = visible(classic)
    height = classic.evaluate("window.psaNode.size[1]")
    assert len(plain) >= 7
    assert advanced == []
    assert classic.evaluate(TOGGLE) == "Show advanced inputs"

    classic.evaluate(CLICK)

    shown = visible(classic)
    names = [name for name in WIDGETS[node_type] if name not in NOT_OF_ITS_MODE]
    assert [*plain, *shown[1]] == sorted(names, key=[*plain, *shown[1]].index)
    assert shown[0] == plain
    assert classic.evaluate(TOGGLE) == "Hide advanced inputs"
    grown = classic.evaluate("window.psaNode.size[1]")
    assert grown - height == pytest.approx(24 * len(shown[1]), abs=2)

    classic.evaluate(CLICK)
    assert visible(classic) == (plain, [])
    assert classic.evaluate("window.psaNode.size[1]") == height


@NODES
def test_no_hole_is_left_where_inputs_are_folded(classic: Any, node_type: str) -> None:
    show(classic, node_type)
    bars = {"start_1", "end_1", "level_1"}

    rows = [(name, y) for name, _, y in classic.evaluate(DRAWN) if y is not None]

    gaps = {name: y - before for (_, before), (name, y) in itertools.pairwise(rows) if name not in bars}
    assert set(gaps.values()) == {24}, gaps


@NODES
def test_values_are_saved_and_sent_as_before(canvas: Any, node_type: str) -> None:
    show(canvas, node_type)
    values = canvas.evaluate(VALUES)
    assert list(values) == list(WIDGETS[node_type])

    saved = canvas.evaluate(SAVE)
    (exported,) = canvas.evaluate(EXPORT).values()

    assert saved["nodes"][0]["widgets_values"] == list(values.values())
    assert exported["inputs"] == values
    reload_graph(canvas, saved, node_type)
    assert canvas.evaluate(VALUES) == values


def test_what_is_open_stays_open_in_a_saved_graph(classic: Any) -> None:
    show(classic, "PSAPresetLoader")
    classic.evaluate(CLICK)
    classic.evaluate(CHOOSE, ["tile_width", 4])
    classic.evaluate(FRAME)
    size = classic.evaluate("[...window.psaNode.size]")

    reload_graph(classic, classic.evaluate(SAVE), "PSAPresetLoader")

    assert classic.evaluate("[...window.psaNode.size]") == pytest.approx(size)
    assert "tile_width" in visible(classic)[1]
    assert classic.evaluate(VALUES)["tile_width"] == 4


def test_a_linked_input_stays_where_its_link_ends(classic: Any) -> None:
    show(classic, "PSARadialMask")

    classic.evaluate(LINK, "block_size")

    assert visible(classic)[1] == ["block_size"]


def test_the_front_ends_setting_shows_all(classic: Any) -> None:
    show(classic, "PSAPresetLoader")
    classic.evaluate(SET, ["Comfy.Node.AlwaysShowAdvancedWidgets", True])
    try:
        assert len(visible(classic)[1]) == 14
    finally:
        classic.evaluate(SET, ["Comfy.Node.AlwaysShowAdvancedWidgets", False])
    assert visible(classic)[1] == []


def test_vue_nodes_have_their_own_control_alone(canvas: Any, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["canvas"] == "classic":
        pytest.skip("of Vue nodes")
    show(canvas, "PSAPresetLoader")
    node = canvas.locator(".lg-node")
    assert node.get_by_text("Show advanced inputs").count() == 1
    assert node.get_by_text("tile_width", exact=True).count() == 0

    node.get_by_text("Show advanced inputs").click()

    node.get_by_text("tile_width", exact=True).wait_for(timeout=5000)
    assert node.get_by_text("advanced inputs").count() == 1
