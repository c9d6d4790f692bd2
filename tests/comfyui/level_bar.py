"""What tests of the bars of mask_ratios do in ComfyUI's front end, in either of its renderers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .browser import ADD, EMPTY, LOAD, SET, VALUES

RENDERERS = {"classic": False, "vue": True}
# The presets have arrived, and those of other models have gone.
LISTED = "window.psaNode.widgets.find((w) => w.name === 'preset').options.values.length === 7"
PLACE = """([scale, x, y]) => {
    window.psaNode.pos = [0, 0];
    Object.assign(app.canvas.ds, { scale, offset: [x / scale, y / scale] });
    app.canvas.setDirty(true, true);
}"""
# The bar looks at the numbers once a frame.
FRAME = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@contextmanager
def rendered(page: Any, renderer: str) -> Iterator[Any]:
    """The page, without a node, in one of the renderers; in the classic one and as large as before afterwards."""
    size = page.viewport_size
    page.set_viewport_size({"width": 1200, "height": 1000})
    page.evaluate(LOAD, EMPTY)
    _render(page, renderer)
    try:
        yield page
    finally:
        page.evaluate(LOAD, EMPTY)
        _render(page, "classic")
        page.set_viewport_size(size)


def _render(page: Any, renderer: str) -> None:
    page.evaluate(SET, ["Comfy.VueNodes.Enabled", RENDERERS[renderer]])
    page.wait_for_function("(vue) => !!LiteGraph.vueNodesMode === vue", arg=RENDERERS[renderer], timeout=10_000)


def show(page: Any, node_type: str, scale: float = 1.25) -> None:
    page.evaluate(ADD, node_type)
    page.evaluate(PLACE, [scale, 420, 120])
    page.wait_for_selector(".psa-level-bar-track", state="visible", timeout=10_000)
    page.evaluate(FRAME)


def handle(page: Any, level: int, bar: int = 0) -> Any:
    return page.locator(".psa-level-bar").nth(bar).locator(f"[role=slider][data-level='{level}']")


def caption(page: Any, bar: int = 0) -> tuple[str, str]:
    """What stands above a bar: name or what is wrong, and budget."""
    page.evaluate(FRAME)
    bars = page.locator(".psa-level-bar").nth(bar)
    return tuple(bars.locator(f".psa-level-bar-{part}").inner_text() for part in ("name", "budget"))  # type: ignore[return-value]


def widths(page: Any, bar: int = 0) -> list[float]:
    """Width of every segment that has one, as a share of the bar: finest level first, skipped last."""
    page.evaluate(FRAME)
    segments = page.locator(".psa-level-bar").nth(bar).locator(".psa-level-bar-segment")
    boxes = [
        segment["width"] for segment in segments.evaluate_all("(all) => all.map((x) => x.getBoundingClientRect())")
    ]
    return [round(width / sum(boxes), 2) for width in boxes if width]


def drag(page: Any, level: int, *shares: float, bar: int = 0) -> None:
    """Take a border with the mouse and move it by shares of the bar, one after the other."""
    track = page.locator(".psa-level-bar-track").nth(bar).bounding_box()
    box = handle(page, level, bar).bounding_box()
    # Beside its middle: the border must not jump to the mouse.
    x, y = box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for share in shares:
        x += share * track["width"]
        page.mouse.move(x, y, steps=3)
    page.mouse.up()


def bounds(page: Any, prefix: str = "level_") -> list[float]:
    """The numbers of levels 1 to 8."""
    values = page.evaluate(VALUES)
    return [round(values[f"{prefix}{level}"], 6) for level in (1, 2, 4, 8)]
