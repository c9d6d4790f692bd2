"""The bars of mask_ratios in ComfyUI's real front end, in its classic canvas and in Vue nodes."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from psa_core.settings.mask_ratios import mask_ratios_from_bounds, quota_density

from ..browser import CHOOSE, EXPORT, SAVE, SELECT, VALUES, reload_graph
from ..level_bar import FRAME, PLACE, bounds, caption, drag, handle, show, widths
from ..psa import ADDED_SCHEDULE_WIDGETS, PRESET_NUMBERS, SCHEDULE_WIDGETS

SET_VALUE = "([name, value]) => { window.psaNode.widgets.find((w) => w.name === name).value = value; }"
# What callbacks of the numbers are told, as other extensions hear it.
WATCH = """() => {
    window.psaTold = [];
    for (const widget of window.psaNode.widgets) {
        const original = widget.callback;
        widget.callback = function (value, ...rest) {
            window.psaTold.push([widget.name, value]);
            return original?.call(this, value, ...rest);
        };
    }
}"""
LINK = """(name) => {
    const source = LiteGraph.createNode("PrimitiveFloat");
    app.graph.add(source);
    source.pos = [-600, 0];
    source.connect(0, window.psaNode, window.psaNode.inputs.findIndex((input) => input.widget?.name === name));
}"""
ADD_BESIDE = """(type) => {
    window.psaNode = LiteGraph.createNode(type);
    window.psaNode.pos = [-500, 0];
    app.graph.add(window.psaNode);
}"""
PASTE = """() => {
    app.canvas.selectNode(window.psaNode);
    app.canvas.copyToClipboard();
    app.canvas.pasteFromClipboard();
    window.psaNode = app.graph.nodes.at(-1);
    return app.graph.nodes.length;
}"""
RESIZE = """(more) => {
    const [width, height] = window.psaNode.computeSize();
    window.psaNode.setSize([width, height + more]);
    app.canvas.setDirty(true, true);
}"""
# Undo knows the graph only as it is when something ends.
REMEMBER = "() => { app.canvas.emitBeforeChange(); app.canvas.emitAfterChange(); }"
TO_SUBGRAPH = "() => { app.graph.convertToSubgraph(new Set([window.psaNode])); }"
# Bounds of levels 1 to 8 after every move, and their budget.
MOVES = """async ([starts, moves]) => {
    const { moved, sharesOf } = await import("/extensions/psa/level_bounds.js");
    return starts.map((numbers, run) => {
        const bounds = numbers.map((bound, i) => ({ level: 2 ** i, name: `l${2 ** i}`, bound, linked: false }));
        return moves[run].map(([level, place]) => {
            for (const [name, bound] of moved(bounds, level, place)) bounds.find((x) => x.name === name).bound = bound;
            return [bounds.map((x) => x.bound), sharesOf(bounds).budget];
        });
    });
}"""


@pytest.fixture
def schedule(canvas: Any) -> Any:
    """A Sparsity Schedule that uses both of its sets."""
    show(canvas, "PSASparsitySchedule")
    canvas.evaluate(CHOOSE, ["curve", "linear"])
    return canvas


def test_renderer_is_the_one_asked_for(loader: Any, request: pytest.FixtureRequest) -> None:
    vue = request.node.callspec.params["canvas"] == "vue"

    assert (loader.locator(".lg-node").count() > 0, loader.locator(".dom-widget").count() > 0) == (
        vue,
        not vue,
    )


def test_bar_shows_the_numbers(loader: Any) -> None:
    assert widths(loader) == [0.5, 0.1, 0.1, 0.1, 0.2]
    assert caption(loader) == ("mask_ratios", "budget 0.59")
    assert loader.locator("[role=slider]:visible").count() == 4
    described = {
        key: handle(loader, 2).get_attribute(f"aria-{key}") for key in ("label", "valuenow", "valuemin", "valuemax")
    }
    assert described == {"label": "mask_ratios: level_2", "valuenow": "0.6", "valuemin": "0.5", "valuemax": "0.7"}


@pytest.mark.parametrize("scale", [1.25, 0.5])
def test_dragging_a_border_moves_its_number(loader: Any, scale: float) -> None:
    loader.evaluate(PLACE, [scale, 420, 120])
    loader.evaluate(FRAME)

    drag(loader, 2, 0.05)

    assert bounds(loader) == pytest.approx([0.5, 0.65, 0.7, 0.8], abs=0.006)
    assert bounds(loader)[1] * 1000 % 5 == pytest.approx(0)
    assert widths(loader)[1:3] == pytest.approx([0.15, 0.05], abs=0.02)


def test_a_drag_tells_of_the_number_that_it_changes(loader: Any) -> None:
    loader.evaluate(WATCH)

    drag(loader, 2, 0.05)

    told = loader.evaluate("window.psaTold")
    assert {name for name, _ in told} == {"level_2"}
    assert told[-1] == ["level_2", loader.evaluate(VALUES)["level_2"]]


def test_a_border_stops_at_its_neighbours(loader: Any) -> None:
    drag(loader, 2, 0.3)
    assert bounds(loader) == [0.5, 0.7, 0.0, 0.8]

    drag(loader, 2, -0.4)
    assert bounds(loader) == [0.5, 0.0, 0.0, 0.8]
    assert widths(loader) == [0.5, 0.3, 0.2]


def test_a_level_squeezed_out_comes_back_on_the_way_back(loader: Any) -> None:
    drag(loader, 2, 0.3, -0.25)

    assert bounds(loader) == pytest.approx([0.5, 0.65, 0.7, 0.8], abs=0.006)


def test_a_level_that_is_left_out_can_be_pulled_out_again(loader: Any) -> None:
    for level in (2, 4):
        loader.evaluate(CHOOSE, [f"level_{level}", 0])
    assert widths(loader) == [0.5, 0.3, 0.2]
    assert handle(loader, 2).get_attribute("aria-valuetext") == "left out"

    drag(loader, 4, 0.1)
    drag(loader, 2, 0.05)

    assert bounds(loader) == pytest.approx([0.5, 0.55, 0.6, 0.8], abs=0.006)


def test_whatever_a_bar_writes_is_valid(canvas: Any) -> None:
    """Many borders moved to anywhere, level by level with some left out at the start."""
    random = Random(0)
    starts, moves = [], []
    for _ in range(200):
        ends = sorted(place / 50 for place in random.sample(range(1, 51), 4))
        starts.append([end if random.random() < 0.8 else 0.0 for end in ends])
        moves.append([[random.choice([1, 2, 4, 8]), random.uniform(-0.2, 1.2)] for _ in range(6)])

    runs = canvas.evaluate(MOVES, [starts, moves])

    assert len(runs) == 200
    for states in runs:
        for numbers, budget in states:
            ratios = mask_ratios_from_bounds(dict(zip((1, 2, 4, 8), numbers, strict=True)))
            assert budget == pytest.approx(quota_density(ratios))
            assert all(lo < hi for level, (lo, hi) in ratios.items() if level)


def test_a_click_changes_nothing(loader: Any) -> None:
    loader.evaluate(SET_VALUE, ["level_2", 0.6123])
    loader.evaluate(FRAME)

    drag(loader, 2, 0.0)

    assert bounds(loader)[1] == 0.6123


def test_keys_move_a_border(loader: Any) -> None:
    border = handle(loader, 2)
    moves = [
        ("ArrowRight", 0.605), ("ArrowUp", 0.61), ("ArrowLeft", 0.605), ("ArrowDown", 0.6), ("PageUp", 0.65),
        ("Shift+ArrowLeft", 0.6), ("PageDown", 0.55), ("Shift+ArrowRight", 0.6), ("Home", 0.0), ("ArrowRight", 0.505),
        ("Delete", 0.0), ("End", 0.7),
    ]  # fmt: skip
    # Which also selects the node, and Delete must not remove that.
    border.click()
    for key, number in moves:
        loader.keyboard.press(key)
        assert bounds(loader)[1] == number, key

    assert bounds(loader) == [0.5, 0.7, 0.0, 0.8]
    assert loader.evaluate("app.graph.nodes.length") == 1


def test_the_bar_follows_numbers_that_change_by_themselves(loader: Any) -> None:
    loader.evaluate(CHOOSE, ["level_1", 0.25])
    assert widths(loader) == [0.25, 0.35, 0.1, 0.1, 0.2]

    loader.evaluate(SET_VALUE, ["level_8", 1.0])
    assert widths(loader) == [0.25, 0.35, 0.1, 0.3]

    loader.evaluate(CHOOSE, ["preset", "psa_topk"])
    assert widths(loader) == [0.05, 0.05, 0.05, 0.1, 0.75]


def test_levels_beyond_8_have_a_segment_when_they_are_used(loader: Any) -> None:
    loader.evaluate(CHOOSE, ["level_32", 0.9])

    assert widths(loader) == [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]
    drag(loader, 32, -0.05)
    assert loader.evaluate(VALUES)["level_32"] == pytest.approx(0.85, abs=0.006)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [("level_4", 0.3, "level_4 is below level_2"), ("level_2", 1.5, "level_2 is not from 0 to 1")],
)
def test_numbers_that_are_not_valid_are_named(loader: Any, name: str, value: float, problem: str) -> None:
    loader.evaluate(SET_VALUE, [name, value])

    assert caption(loader)[0] == problem
    drag(loader, 1, -0.3)
    assert bounds(loader)[0] == pytest.approx(0.2, abs=0.006)


def test_saved_graph_and_prompt_know_no_bar(loader: Any) -> None:
    drag(loader, 2, 0.05)
    values = loader.evaluate(VALUES)

    (saved,) = loader.evaluate(SAVE)["nodes"]
    (exported,) = loader.evaluate(EXPORT).values()

    assert list(values) == list(PRESET_NUMBERS)
    assert saved["widgets_values"] == list(values.values())
    assert saved.get("widgets_values_named", values) == values
    assert "bar" not in str(saved)
    assert exported["inputs"] == values


def test_graph_saved_without_a_bar_loads(schedule: Any) -> None:
    """By places alone, as an earlier version of the pack and of the front end have saved it."""
    saved = schedule.evaluate(SAVE)
    numbers = SCHEDULE_WIDGETS | {"curve": "linear", "start_1": 0.2, "end_8": 0.45, "preview_steps": 12}
    (node,) = saved["nodes"]
    node["widgets_values"] = list(numbers.values())
    node.pop("widgets_values_named", None)
    node["size"] = [200, 100]

    reload_graph(schedule, saved, "PSASparsitySchedule")

    # What was added since is as it was without.
    numbers |= ADDED_SCHEDULE_WIDGETS
    assert schedule.evaluate(VALUES) == numbers
    (exported,) = schedule.evaluate(EXPORT).values()
    assert exported["inputs"] == numbers
    assert widths(schedule) == [0.2, 0.3, 0.1, 0.2, 0.2]
    assert widths(schedule, bar=1)[-1] == 0.55


def test_copies_and_subgraphs_keep_the_numbers(schedule: Any) -> None:
    schedule.evaluate(CHOOSE, ["end_8", 0.45])
    values = schedule.evaluate(VALUES)

    assert schedule.evaluate(PASTE) == 2
    assert schedule.evaluate(VALUES) == values

    schedule.evaluate(TO_SUBGRAPH)
    assert [node["inputs"] for node in schedule.evaluate(EXPORT).values()] == [values, values]


def test_nodes_do_not_share(loader: Any) -> None:
    loader.evaluate(ADD_BESIDE, "PSAPresetLoader")
    loader.wait_for_function("document.querySelectorAll('.psa-level-bar-track').length === 2", timeout=5000)
    loader.evaluate(CHOOSE, ["level_1", 0.1])
    second = loader.evaluate("app.graph.nodes.map((node) => node.widgets.find((w) => w.name === 'level_1').value)")

    assert second == [0.5, 0.1]
    assert sorted((widths(loader)[0], widths(loader, bar=1)[0])) == [0.1, 0.5]


def test_schedule_has_two_bars(schedule: Any) -> None:
    assert widths(schedule) == [0.4, 0.1, 0.1, 0.2, 0.2]
    assert [caption(schedule, bar) for bar in (0, 1)] == [("start", "budget 0.50"), ("end", "budget 0.16")]

    drag(schedule, 8, 0.2, bar=1)

    assert bounds(schedule, "start_") == [0.4, 0.5, 0.6, 0.8]
    assert bounds(schedule, "end_") == pytest.approx([0.1, 0.15, 0.2, 0.6], abs=0.006)


@pytest.mark.parametrize(
    ("curve", "used"), [("preset", (False, False)), ("constant", (True, False)), ("timestep", (True, False))]
)
def test_schedule_says_which_bars_count(schedule: Any, curve: str, used: tuple[bool, bool]) -> None:
    schedule.evaluate(CHOOSE, ["curve", curve])

    texts = [caption(schedule, bar)[1] for bar in (0, 1)]
    assert [text != f"not used: curve is {curve}" for text in texts] == list(used)


def test_a_drag_is_undone_as_one(loader: Any) -> None:
    loader.evaluate(REMEMBER)
    # What changes right after it remembers is taken for the same change.
    loader.wait_for_timeout(200)
    drag(loader, 2, 0.04, -0.08, 0.09)
    handle(loader, 8).press("ArrowLeft")
    assert bounds(loader)[3] == 0.795

    undone = []
    for _ in range(2):
        loader.keyboard.press("Control+z")
        loader.wait_for_timeout(500)
        loader.evaluate(SELECT, "PSAPresetLoader")
        undone.append(bounds(loader))

    assert undone[0] == pytest.approx([0.5, 0.65, 0.7, 0.8], abs=0.006)
    assert undone[1] == [0.5, 0.6, 0.7, 0.8]
    assert widths(loader) == [0.5, 0.1, 0.1, 0.1, 0.2]
    drag(loader, 1, -0.1)
    assert bounds(loader) == pytest.approx([0.4, 0.6, 0.7, 0.8], abs=0.006)


def test_a_linked_number_has_no_border_to_drag(loader: Any) -> None:
    loader.evaluate(LINK, "level_2")

    assert caption(loader) == ("mask_ratios", "level_2 linked")
    assert handle(loader, 2).get_attribute("aria-disabled") == "true"
    drag(loader, 2, 0.05)
    handle(loader, 2).press("ArrowRight")
    drag(loader, 1, 0.3)
    assert bounds(loader) == [0.6, 0.6, 0.7, 0.8]


def test_wheel_and_middle_button_move_the_canvas(loader: Any) -> None:
    box = loader.locator(".psa-level-bar-track").bounding_box()
    x, y = box["x"] + 30, box["y"] + 9
    before = loader.evaluate("[...app.canvas.ds.offset]")
    loader.mouse.move(x, y)

    loader.mouse.down(button="middle")
    loader.mouse.move(x + 50, y + 25, steps=4)
    loader.mouse.up(button="middle")
    after = loader.evaluate("[...app.canvas.ds.offset]")
    loader.mouse.wheel(0, -100)
    loader.wait_for_timeout(200)

    assert [after[0] - before[0], after[1] - before[1]] == pytest.approx([40, 20], abs=2)
    assert loader.evaluate("app.canvas.ds.scale") > 1.26
    assert bounds(loader) == [0.5, 0.6, 0.7, 0.8]


@pytest.mark.parametrize("more", [0, 400])
def test_the_bar_has_room_of_its_own(schedule: Any, more: int) -> None:
    """No bar reaches into another or out of its node, in a node as small as it gets and in a high one."""
    schedule.evaluate(RESIZE, more)
    schedule.wait_for_timeout(300)
    top, bottom = (schedule.locator(".psa-level-bar").nth(bar).bounding_box() for bar in (0, 1))
    scale, width = schedule.evaluate("[app.canvas.ds.scale, window.psaNode.size[0]]")

    assert 48 * scale - 1 < top["height"] < 53 * scale
    assert top["y"] + top["height"] + 4 * 20 * scale < bottom["y"]
    assert 150 * scale < top["width"] <= width * scale + 1
