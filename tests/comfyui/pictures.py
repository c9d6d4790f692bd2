"""Pictures of nodes and workflows as a user sees them, without the front end's menus around them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

# No first-run dialog, no map and no numbers in a corner.
_SETTINGS = {"Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}
_SET = """async (settings) => {
    for (const [name, value] of Object.entries(settings)) await app.extensionManager.setting.set(name, value);
}"""
_BARE = """
#graph-canvas-container > :not(#graph-canvas):not(.isolate), .comfyui-body > :not(#graph-canvas-container),
.p-toast, .p-dialog-mask, .no-drag { display: none !important; }
"""
# Where the nodes (all for none named) lie, with their titles, and groups with them when all are shown.
_BOUNDS = """(ids) => {
    const nodes = app.graph.nodes.filter((node) => ids.length === 0 || ids.includes(String(node.id)));
    const boxes = nodes.map((node) => [node.pos[0], node.pos[1] - 30, node.pos[0] + node.size[0],
        node.pos[1] + (node.flags.collapsed ? 0 : node.size[1])]);
    if (ids.length === 0) for (const group of app.graph.groups) {
        boxes.push([group.pos[0], group.pos[1], group.pos[0] + group.size[0], group.pos[1] + group.size[1]]);
    }
    const side = (i, pick) => pick(...boxes.map((box) => box[i]));
    return [side(0, Math.min), side(1, Math.min), side(2, Math.max), side(3, Math.max)];
}"""
_SHOW = """async ([x, y, scale]) => {
    Object.assign(app.canvas.ds, { scale, offset: [x, y] });
    app.canvas.setDirty(true, true);
    // DOM widgets follow the canvas a frame later.
    await new Promise((done) => setTimeout(done, 400));
}"""
_CENTRE = """() => {
    const node = app.graph.nodes.find((node) => node.widgets?.some((widget) => widget.name === "picture"));
    // Beside the menus.
    Object.assign(app.canvas.ds, { scale: 1.5, offset: [-node.pos[0] + 90, -node.pos[1] - node.size[1] + 440] });
    app.canvas.setDirty(true, true);
}"""
_DRAWN = """(types) => types.every(
    (type) => app.graph.nodes.find((node) => node.type === type)?.imgs?.[0]?.naturalWidth > 200)"""
_MARGIN = 14
# Of cards: pixels, letters in a line of the title, colours.
_CARD, _TITLE, _TAG, _WORDS, _LETTERS = (512, 512), 38, 30, 68, 24
_PAPER, _NODE, _INK = "#1b1d21", "#353535", "#f2f2f2"
_LARGEST = 4000


def prepare(page: Any) -> None:
    """Settle the front end for pictures; once a page is enough."""
    page.evaluate(_SET, _SETTINGS)


def wait_until_drawn(page: Any, types: Iterable[str]) -> None:
    """Wait for the pictures that nodes of these types have made, which are fetched when the nodes are drawn."""
    page.wait_for_function(_DRAWN, arg=list(types), timeout=30_000)


def take(page: Any, nodes: Sequence[int] = (), scale: float = 1.0) -> Image.Image:
    """A picture of some nodes, or of the whole graph with its groups.

    Args:
        page: the front end.
        nodes: ids; none for all.
        scale: screen pixels a unit of the canvas; below 0.6 the front end writes no text.
    """
    left, top, right, bottom = page.evaluate(_BOUNDS, [str(node) for node in nodes])
    width, height = (min(_LARGEST, int(size * scale) + 2 * _MARGIN) for size in (right - left, bottom - top))
    before = page.viewport_size
    page.set_viewport_size({"width": width, "height": height})
    style = page.add_style_tag(content=_BARE)
    try:
        page.evaluate(_SHOW, [_MARGIN / scale - left, _MARGIN / scale - top, scale])
        shot = page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height})
    finally:
        style.evaluate("(element) => element.remove()")
        page.set_viewport_size(before)
    return Image.open(io.BytesIO(shot)).convert("RGB")


def drawn_by_node(page: Any) -> Image.Image:
    """What a node of the graph draws of itself, in the proportions of a card's picture."""
    drawn = page.locator(".psa-picture:not(.psa-picture-old) > svg")
    style = page.add_style_tag(content=_BARE)
    try:
        page.evaluate(_CENTRE)
        drawn.wait_for(timeout=20_000)
        page.wait_for_timeout(500)
        picture = Image.open(io.BytesIO(drawn.screenshot())).convert("RGB")
    finally:
        style.evaluate("(element) => element.remove()")
    return ImageOps.pad(picture, (2 * _CARD[0], 2 * _CARD[1] * 5 // 8), color=_NODE)


def thumbnail(shown: Sequence[Image.Image], title: str, words: Sequence[str], colour: str) -> Image.Image:
    """A card for the template browser: pictures side by side under a label, or large words; below them the title."""
    width, height = _CARD
    below = height * 5 // 8
    card, font = Image.new("RGB", _CARD, _PAPER), ImageFont.load_default(_TITLE)
    draw = ImageDraw.Draw(card)
    for place, picture in enumerate(shown):
        size = width // len(shown), below
        card.paste(ImageOps.fit(picture, size), (place * size[0], 0))
    draw.rectangle((0, below if shown else 0, width, below + 6), fill=colour)
    large = ImageFont.load_default(_TAG if shown else _WORDS)
    text, corner = "\n".join(words), (24, below - 30)
    if shown:
        left, top, right, bottom = draw.textbbox(corner, text, large, anchor="ls")
        draw.rounded_rectangle((left - 12, top - 8, right + 12, bottom + 8), 8, fill=colour)
        draw.text(corner, text, _INK, large, anchor="ls")
    else:
        draw.multiline_text((24, below // 2), text, _INK, large, anchor="lm", spacing=18)
    lines = textwrap.wrap(title, _LETTERS)
    draw.multiline_text((24, (below + height) // 2 + 3), "\n".join(lines), _INK, font, anchor="lm", spacing=10)
    return card


def has_content(picture: Image.Image) -> bool:
    """Whether anything at all is drawn: an empty canvas has a handful of colours."""
    return len(picture.resize((400, 400)).quantize(64).getcolors() or ()) > 20
