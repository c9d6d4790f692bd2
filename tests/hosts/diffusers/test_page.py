"""The page on diffusers: its examples run as they are written, with tiny random models in place of the large ones."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import psa_core

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")
pytest.importorskip("PIL")

import diffusers
from diffusers import utils
from PIL import Image

from psa_core.hosts.diffusers import Handle
from psa_core.hosts.diffusers.families import FAMILIES

from ...support import diffusers_families, tiny_families, tiny_h3, tiny_pipelines

PAGE = Path(psa_core.__file__).parent / "hosts" / "diffusers" / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
IMPORTS = EXAMPLES[0].partition("\n\n")[0]
# What loads in the place of weights on the Hub.
TINY: dict[str, tuple[str, Callable[[], Any]]] = {
    "Wan2.1-T2V": ("wan", tiny_pipelines.wan_pipeline),
    "Wan2.2-I2V": ("wan_image", tiny_families.wan_image),
    "VACE": ("wan_vace", tiny_families.wan_vace),
    "SkyReels": ("skyreels_v2", tiny_families.skyreels_v2),
    "CogVideoX": ("cogvideox", tiny_pipelines.cogvideox_pipeline),
    "LTX-Video": ("ltx", tiny_families.ltx),
    "LTX-2": ("ltx2", tiny_families.ltx2),
    '/HunyuanVideo"': ("hunyuan_video", tiny_families.hunyuan_video),
    "HunyuanVideo-1.5": ("hunyuan_video_1_5", tiny_families.hunyuan_video_1_5),
    "Kandinsky": ("kandinsky5", tiny_families.kandinsky5),
    "Cosmos": ("cosmos", tiny_families.cosmos),
    "mochi": ("mochi", tiny_families.mochi),
    "MiniMax-H3": ("minimax_h3", tiny_h3.pipeline),
}
SIZES = {"height": 64, "width": 64, "num_inference_steps": 3, "output_type": "latent"}


def in_place(pipeline: Any, family: str) -> Any:
    """A pipeline that has a tiny size, whatever it is asked for, and what it needs in the place of a prompt."""
    kind = type(pipeline)

    class Tiny(kind):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            call = inspect.signature(kind.__call__).bind(self, *args, **kwargs).arguments
            call |= {name: size for name, size in SIZES.items() if name in inspect.signature(kind.__call__).parameters}
            call["num_frames"] = 7 if family == "mochi" else 9
            if family in tiny_families.EMBEDDED:
                del call["prompt"]
                call |= tiny_families.EMBEDDED[family]()
            del call["self"]
            return super().__call__(**call)

        def to(self, device: str) -> Any:
            assert device == "cuda"
            return self

    Tiny.__name__ = kind.__name__
    pipeline.__class__ = Tiny
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def modular_in_place(pipeline: Any) -> Any:
    """The same of a modular pipeline, which has been loaded."""
    kind = type(pipeline)

    class Tiny(kind):
        def __call__(self, **inputs: Any) -> Any:
            return super().__call__(**inputs, height=64, width=64, num_inference_steps=3)

        def load_components(self, dtype: torch.dtype) -> None:
            assert dtype == torch.bfloat16

        def to(self, device: str) -> Any:
            assert device == "cuda"

    Tiny.__name__ = kind.__name__
    pipeline.__class__ = Tiny
    return pipeline


def run(example: str, monkeypatch: pytest.MonkeyPatch, **names: Any) -> dict[str, Any]:
    """Run an example where loading gives a tiny model and every call that can runs sparse; what it has defined."""
    found = next((tiny for hub_id, tiny in TINY.items() if hub_id in example), None)

    def load(kind: Any, hub_id: str, torch_dtype: torch.dtype) -> Any:
        assert torch_dtype == torch.bfloat16
        family, make = found
        return in_place(make(), family)

    presets = psa_core.load_preset
    if hasattr(diffusers, "MiniMaxH3ModularPipeline"):
        modular = classmethod(lambda kind, hub_id, workflow: modular_in_place(tiny_h3.pipeline(workflow)))
        monkeypatch.setattr(diffusers.MiniMaxH3ModularPipeline, "from_pretrained", modular)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", classmethod(load))
    monkeypatch.setattr(utils, "load_image", lambda name: Image.new("RGB", (64, 64)))
    monkeypatch.setattr(
        psa_core, "load_preset", lambda *name: presets(*name).replace(min_tokens=0, warmup_steps=1, schedule=None)
    )
    patch = psa_core.hosts.diffusers.patch
    monkeypatch.setattr(psa_core.hosts.diffusers, "patch", lambda *args, **more: patch(*args, backend="torch", **more))
    space = {**names}
    with torch.no_grad():
        exec(compile(f"{IMPORTS}\n{example}", str(PAGE), "exec"), space)
    return space


@pytest.mark.parametrize("example", [x for x in EXAMPLES if any(hub_id in x for hub_id in TINY)], ids=lambda x: x[:40])
def test_an_example_runs_sparse(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r"import (\w+Pipeline)$", example, re.MULTILINE):
        if not hasattr(diffusers, name):
            pytest.skip(f"this diffusers has no {name}")
    handle: Handle = run(example, monkeypatch)["handle"]
    assert handle.report.sparse_count
    assert handle.report.dense_reasons.keys() == {"warm-up"}


def test_a_transformer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = (x for x in EXAMPLES if "pipe.transformer, load_preset" in x)
    model = diffusers_families.FAMILIES["minimax_h3"].make()
    handle = run(example, monkeypatch, pipe=SimpleNamespace(transformer=model.transformer))["handle"]
    with torch.no_grad():
        for timestep in (0.2, 0.4):
            model(timestep)
    assert [call.step for call in handle.report.sparse_calls()] == [1, 1]


def test_every_example_is_run_and_every_family_is_in_the_table() -> None:
    others = [x for x in EXAMPLES if not any(hub_id in x for hub_id in TINY)]
    assert [name in x for name, x in zip(("MiniMax_H3", "Any"), others, strict=True)] == [True, True]
    page = PAGE.read_text(encoding="utf-8")
    names = set(re.findall(r"`(\w+)`", page.partition("## What runs sparse")[2].partition("Exact means")[0]))
    assert {name.removesuffix("Transformer3DModel") for name in FAMILIES} <= names
