"""Pictures of every node, with what it shows after a run. ``--write-pictures`` saves them for the help pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tools.workflows.canvas import Canvas, Output, Workflow
from tools.workflows.layout import put
from tools.workflows.parts import empty_video, patch, sample
from tools.workflows.tiny import TEXT

from .. import pictures
from ..browser import ADD, CHOOSE, EXPORT
from ..conftest import ComfyUI
from ..server import PACK_ROOT

FOLDER = PACK_ROOT / "web" / "docs" / "pictures"
# Nodes that show all that they have before a run, and widgets to set.
FRESH: dict[str, dict[str, Any]] = {
    "PSAAttentionPatch": {},
    "PSAPresetLoader": {},
    "PSASparsitySchedule": {"warmup": "25%", "last_dense": "2", "curve": "cosine"},
    "PSARadialMask": {"decay_factor": 0.5},
    "PSACogVideoXLoader": {},
    "PSACogVideoXLoRA": {},
    "PSASavePreset": {},
    "PSASaveCalibration": {},
    "PSALoadCalibration": {},
    "PSATinyVideoModel": {},
    "PSATinyVideoPrompt": {},
}
SHOWING = ("PSAReport", "PSACompare", "PSADoctor")
SCALE = 1.25
CLIPS = {False: (192, 160, 5, 2), True: (256, 224, 17, 12)}
"""Width, height, frames and steps of the clip behind Report and Compare: worth looking at where pictures are kept."""

IDS = "(type) => app.graph.nodes.filter((node) => node.type === type).map((node) => node.id)"
WIDEN = """() => {
    window.psaNode.setSize([Math.max(360, window.psaNode.size[0]), window.psaNode.computeSize()[1]]);
}"""
QUEUE = "() => app.queuePrompt(0)"
# None of the pictures that nodes draw themselves is on its way.
AT_REST = "() => [...document.querySelectorAll('.psa-picture')].every((each) => each.querySelector('svg'))"


@pytest.fixture(scope="module")
def front_end(page: Any) -> Any:
    pictures.prepare(page)
    return page


@pytest.fixture(scope="module")
def keep(request: pytest.FixtureRequest) -> bool:
    """Whether the pictures are to be saved."""
    wanted: bool = request.config.getoption("--write-pictures")
    if wanted:
        FOLDER.mkdir(exist_ok=True)
    return wanted


@pytest.mark.parametrize("node_type", FRESH)
def test_fresh_node(node_type: str, front_end: Any, keep: bool) -> None:
    front_end.evaluate(ADD, node_type)
    for widget in FRESH[node_type].items():
        front_end.evaluate(CHOOSE, widget)
    front_end.wait_for_timeout(500)
    front_end.evaluate(WIDEN)
    # Drawn where it is seen.
    pictures.take(front_end, front_end.evaluate(IDS, node_type), SCALE)
    front_end.wait_for_function(AT_REST, timeout=20_000)

    check(pictures.take(front_end, front_end.evaluate(IDS, node_type), SCALE), FOLDER / f"{node_type}.jpg", keep)


def test_nodes_after_a_run(comfyui: ComfyUI, front_end: Any, keep: bool) -> None:
    presets = comfyui.client.get_json("/psa/presets")["models"]
    put(front_end, showcase(*CLIPS[keep]).specification(presets))
    assert front_end.evaluate(EXPORT)
    before = set(comfyui.client.get_json("/history"))
    # Pictures are fetched when their nodes are drawn.
    pictures.take(front_end, scale=0.7)

    front_end.evaluate(QUEUE)

    done = comfyui.client.wait_for_history(before, timeout=580)
    assert done["status"]["status_str"] == "success"
    pictures.take(front_end, scale=0.7)
    pictures.wait_until_drawn(front_end, SHOWING)
    for node_type in SHOWING:
        shot = pictures.take(front_end, front_end.evaluate(IDS, node_type), SCALE)
        check(shot, FOLDER / f"{node_type}.jpg", keep)


def test_every_help_page_has_its_picture() -> None:
    assert {file.stem for file in FOLDER.glob("PSA*.jpg")} == {*FRESH, *SHOWING}
    for file in FOLDER.glob("PSA*.jpg"):
        assert pictures.has_content(Image.open(file).convert("RGB")), file.name


def check(picture: Image.Image, file: Path, keep: bool) -> None:
    assert pictures.has_content(picture), file.stem
    if keep:
        picture.save(file, quality=88, optimize=True)


def showcase(width: int, height: int, frames: int, steps: int) -> Workflow:
    """Every node that shows something, each with something to show."""

    def build(canvas: Canvas) -> None:
        canvas.group("Model")
        model = canvas.add("PSATinyVideoModel")
        vae = Output(model.node, 1)
        text, nothing = (canvas.add("PSATinyVideoPrompt", text=words) for words in (TEXT, ""))
        latent = empty_video(canvas, width, height, frames)
        canvas.group("Settings")
        preset = canvas.preset("tiny_video", "auto_balanced")
        chosen = patch(canvas, model, preset=preset, min_tokens=1, backend="torch")
        canvas.group("Samplers")
        how: dict[str, Any] = {"cfg": 4.0, "sampler": "euler"}
        dense = sample(canvas, model, (text, nothing), latent, steps=steps, **how)
        sparse = sample(canvas, chosen, (text, nothing), latent, steps=steps, **how)
        canvas.group("Results")
        canvas.add("PSAReport", size=(640, 900), model=chosen, samples=sparse)
        videos = [canvas.add("VAEDecode", samples=each, vae=vae) for each in (dense, sparse)]
        canvas.add("PSACompare", size=(640, 520), reference=videos[0], video=videos[1], gain=4.0)
        canvas.add("PSADoctor", size=(640, 560))

    return Workflow("showcase", "Showcase", "", (), build, runs_here=True)
