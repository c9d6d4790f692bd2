"""Radial Mask and Sparsity Schedule draw themselves before any run, in the classic canvas and in Vue nodes."""

from __future__ import annotations

from typing import Any

import pytest

from ..browser import ADD, CHOOSE, EXPORT, SAVE, SET, VALUES, reload_graph
from ..level_bar import FRAME, PLACE
from ..psa import ADDED_SCHEDULE_WIDGETS, MASK_WIDGETS, SCHEDULE_WIDGETS

WIDGETS = {"PSARadialMask": MASK_WIDGETS, "PSASparsitySchedule": SCHEDULE_WIDGETS | ADDED_SCHEDULE_WIDGETS}
TEXTS = "(svg) => [...svg.querySelectorAll('text')].map((text) => text.textContent)"
# How red some pixels are, whose places are shares of the map; what is kept is blue.
RED = """async ([image, places]) => {
    const loaded = Object.assign(new Image(), { src: image });
    await loaded.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: loaded.width, height: loaded.height });
    const context = canvas.getContext("2d");
    context.drawImage(loaded, 0, 0);
    const red = (row, column) => context.getImageData(column * loaded.width, row * loaded.height, 1, 1).data[0];
    return places.map((place) => red(...place));
}"""
LINK = """([type, name]) => {
    const source = LiteGraph.createNode(type);
    app.graph.add(source);
    source.pos = [-600, 0];
    source.connect(0, window.psaNode, window.psaNode.inputs.findIndex((input) => input.widget?.name === name));
}"""
UNLINK = "(name) => window.psaNode.disconnectInput(window.psaNode.inputs.findIndex((i) => i.widget?.name === name))"
SIDES = "(all) => all.map((rect) => Object.fromEntries(['x', 'height'].map((x) => [x, +rect.getAttribute(x)])))"
COLOUR = "(element) => getComputedStyle(element).fill"


def show(page: Any, node_type: str) -> Any:
    """A fresh node, and its picture when that is there."""
    page.evaluate(ADD, node_type)
    page.evaluate(PLACE, [1.0, 420, 120])
    return drawn(page)


def drawn(page: Any) -> Any:
    """The picture, when it is that of the widgets as they are."""
    page.evaluate(FRAME)
    picture = page.locator(".psa-picture:not(.psa-picture-old) > svg")
    picture.wait_for(timeout=20_000)
    return picture


def said(page: Any) -> str:
    """What stands in the picture's place."""
    page.evaluate(FRAME)
    note = page.locator(".psa-picture:not(.psa-picture-old) > .psa-picture-note")
    note.wait_for(timeout=20_000)
    text: str = note.inner_text()
    return text


def test_a_fresh_mask_is_drawn(canvas: Any) -> None:
    picture = show(canvas, "PSARadialMask")

    texts = picture.evaluate(TEXTS)
    assert texts[0] == "radial only, Wan, 832 x 480, 81 frames"
    assert texts[1].startswith("density 0.")
    assert {"0", "20", "key frame", "query frame", "1 full", "skipped"} <= set(texts)
    image = picture.locator("image").get_attribute("href")
    # A frame sees itself and the first one; the last frames do not see all of the first ones.
    diagonal = [[x / 40, x / 40] for x in range(1, 40)]
    assert max(canvas.evaluate(RED, [image, diagonal])) < 60
    assert max(canvas.evaluate(RED, [image, [[x / 40, 0.01] for x in range(40)]])) < 60
    far = canvas.evaluate(RED, [image, [[0.95, 0.1 + x / 200] for x in range(40)]])
    assert min(far) < 60
    assert max(far) > 200


def test_a_fresh_schedule_is_drawn(canvas: Any) -> None:
    picture = show(canvas, "PSASparsitySchedule")

    texts = picture.evaluate(TEXTS)
    assert texts[:2] == ["Budget over 30 steps, mask_ratios: preset", "without the preset's warm-up"]
    assert {"denoising step", "0", "25", "1", "0.5", "sparse, as the preset says"} <= set(texts)
    assert "dense" not in texts


def test_the_picture_follows_the_widgets(canvas: Any) -> None:
    before = show(canvas, "PSARadialMask").locator("image").get_attribute("href")
    for name, value in (("decay_factor", 0.25), ("mode", "coarsen"), ("model_type", "cogvideox")):
        canvas.evaluate(CHOOSE, [name, value])
        image = drawn(canvas).locator("image").get_attribute("href")
        assert image != before, name
        before = image
    texts = drawn(canvas).evaluate(TEXTS)
    assert texts[0] == "coarsen, CogVideoX, 832 x 480, 81 frames"
    assert {"text", "1 full", "2x", "4x", "8x"} <= set(texts)

    canvas.evaluate(CHOOSE, ["scene_boundaries", "0, 20, 41"])
    assert drawn(canvas).evaluate(TEXTS)[0].endswith("41 frames")


def test_bars_are_as_high_as_their_densities(canvas: Any) -> None:
    show(canvas, "PSASparsitySchedule")
    for name, value in (("warmup", "25%"), ("last_dense", "2"), ("curve", "constant"), ("preview_steps", 8)):
        canvas.evaluate(CHOOSE, [name, value])
    for level, bound in ((1, 0.25), (2, 0), (4, 0), (8, 0)):
        canvas.evaluate(CHOOSE, [f"start_{level}", bound])

    bars = drawn(canvas).locator("rect:not(.edge)").evaluate_all(SIDES)

    tall = bars[0]["height"]
    assert [round(bar["height"] / tall, 3) for bar in bars] == [1, 1, 0.25, 0.25, 0.25, 0.25, 1, 1]
    assert [bar["x"] for bar in bars] == sorted(bar["x"] for bar in bars)


def test_a_window_of_noise_is_told_of(canvas: Any) -> None:
    show(canvas, "PSASparsitySchedule")
    canvas.evaluate(CHOOSE, ["warmup", "3"])
    canvas.evaluate(CHOOSE, ["start_percent", 0.1])

    assert drawn(canvas).evaluate(TEXTS)[1] == "dense outside 0.1 to 1 of the noise (not drawn)"


@pytest.mark.parametrize(
    ("node_type", "name", "value", "line"),
    [
        ("PSARadialMask", "scene_boundaries", "0, x", "scene_boundaries = '0, x': 'x' is not a whole number"),
        ("PSASparsitySchedule", "warmup", "soon", "warmup = 'soon': must be a number of steps"),
    ],
)
def test_what_is_wrong_stands_in_the_pictures_place(
    canvas: Any, node_type: str, name: str, value: str, line: str
) -> None:
    show(canvas, node_type)
    right = canvas.evaluate(VALUES)[name]

    canvas.evaluate(CHOOSE, [name, value])
    assert said(canvas).startswith(line)

    canvas.evaluate(CHOOSE, [name, right])
    drawn(canvas)


@pytest.mark.parametrize(
    ("node_type", "name", "source"),
    [("PSARadialMask", "decay_factor", "PrimitiveFloat"), ("PSASparsitySchedule", "last_dense", "PrimitiveString")],
)
def test_what_comes_from_a_link_is_not_guessed(canvas: Any, node_type: str, name: str, source: str) -> None:
    show(canvas, node_type)

    canvas.evaluate(LINK, [source, name])
    assert said(canvas) == f"Known when it runs: {name} linked."

    canvas.evaluate(UNLINK, name)
    drawn(canvas)


@pytest.mark.parametrize(("node_type", "name"), [("PSARadialMask", "dense_layers"), ("PSASparsitySchedule", "start_1")])
def test_a_link_that_the_picture_does_not_depend_on_leaves_it(canvas: Any, node_type: str, name: str) -> None:
    show(canvas, node_type)
    canvas.evaluate(LINK, ["PrimitiveFloat" if name == "start_1" else "PrimitiveInt", name])
    canvas.wait_for_timeout(300)

    drawn(canvas)


def test_an_answer_that_is_late_is_dropped(canvas: Any) -> None:
    """The first answer comes after that of the widgets as they are."""
    show(canvas, "PSASparsitySchedule")
    held: list[Any] = []

    def hold(route: Any) -> None:
        if '"preview_steps":11' in route.request.post_data:
            held.append(route)
        else:
            route.continue_()

    canvas.route("**/psa/preview/schedule", hold)
    try:
        canvas.evaluate(CHOOSE, ["preview_steps", 11])
        canvas.wait_for_timeout(600)
        canvas.evaluate(CHOOSE, ["preview_steps", 12])
        assert drawn(canvas).evaluate(TEXTS)[0].startswith("Budget over 12 steps")
        with canvas.expect_response("**/psa/preview/schedule"):
            held[0].continue_()
        canvas.wait_for_timeout(300)
        assert drawn(canvas).evaluate(TEXTS)[0].startswith("Budget over 12 steps")
    finally:
        canvas.unroute("**/psa/preview/schedule")


def test_many_changes_ask_once(canvas: Any) -> None:
    show(canvas, "PSASparsitySchedule")
    asked: list[str] = []
    canvas.on("request", lambda request: asked.append(request.url) if "/psa/preview/" in request.url else None)

    for steps in range(40, 60):
        canvas.evaluate(CHOOSE, ["preview_steps", steps])

    assert drawn(canvas).evaluate(TEXTS)[0].startswith("Budget over 59 steps")
    assert 1 <= len(asked) <= 5


@pytest.mark.parametrize("node_type", WIDGETS)
def test_saved_graph_and_prompt_know_no_picture(canvas: Any, node_type: str) -> None:
    show(canvas, node_type)
    values, saved = canvas.evaluate(VALUES), canvas.evaluate(SAVE)

    assert list(values) == list(WIDGETS[node_type])
    assert saved["nodes"][0]["widgets_values"] == list(values.values())
    assert "picture" not in str(saved)
    reload_graph(canvas, saved, node_type)
    drawn(canvas)
    (exported,) = canvas.evaluate(EXPORT).values()
    assert exported["inputs"] == values


@pytest.mark.parametrize(("theme", "dark"), [("dark", False), ("light", True)])
def test_letters_stand_out_in_both_themes(canvas: Any, theme: str, dark: bool) -> None:
    canvas.evaluate(SET, ["Comfy.ColorPalette", theme])
    try:
        letters = show(canvas, "PSARadialMask").locator("text.ink").first
        red = int(letters.evaluate(COLOUR).removeprefix("rgb(").split(",")[0])
        assert (red < 100) == dark
    finally:
        canvas.evaluate(SET, ["Comfy.ColorPalette", "dark"])
