"""Pictures of nodes and workflows as a user sees them, without the front end's menus around them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

# No first-run dialog, no map and no numbers in a corner.
_SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}
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
_MARGIN = 14
# Of cards: pixels, letters in a line of the title, colours.
_CARD, _TITLE, _LETTERS = (512, 512), 38, 24
_PAPER, _ACCENT, _INK = "#1b1d21", "#2a6f8f", "#f2f2f2"
_LARGEST = 4000


def prepare(page: Any) -> None:
    """Settle the front end for pictures; once a page is enough."""
    page.evaluate(_SET, _SETTINGS)


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


def thumbnail(picture: Image.Image, title: str) -> Image.Image:
    """A card for the template browser: the upper left part of a picture, with a title below it."""
    width, height = _CARD
    shown = height * 5 // 8
    part = min(picture.width, picture.height * width // shown), min(picture.height, picture.width * shown // width)
    card = Image.new("RGB", _CARD, _PAPER)
    card.paste(picture.crop((0, 0, *part)).resize((width, shown), Image.Resampling.LANCZOS))
    draw, font = ImageDraw.Draw(card), ImageFont.load_default(_TITLE)
    draw.rectangle((0, shown, width, shown + 6), fill=_ACCENT)
    lines = textwrap.wrap(title, _LETTERS)
    draw.multiline_text((24, (shown + height) // 2 + 3), "\n".join(lines), _INK, font, anchor="lm", spacing=10)
    return card


def has_content(picture: Image.Image) -> bool:
    """Whether anything at all is drawn: an empty canvas has a handful of colours."""
    return len(picture.resize((400, 400)).quantize(64).getcolors() or ()) > 20
