"""Each family: what of it runs sparse, what stays dense, and what every query sees at full resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from psa_core import RadialMask
from psa_core.masks.static import static_levels
from psa_core.ops.levels.rules import density, full_resolution_sinks
from psa_core.settings.sinks import read_sinks, sink_tokens

from ..conftest import ComfyUI
from ..families import Family, sampled
from ..psa import LEVEL_1_ONLY, line, psa, relative_error

STEPS = 2
LEVEL_8_ONLY = {"level_1": 0.0, "level_2": 0.0, "level_4": 0.0, "level_8": 1.0, "mask_mode": "topk"}
CROSS, PROMPTS_OWN, AUDIO = "cross-attention", "attention within the prompt", "audio"
Sinks = tuple[tuple[int, int, bool], ...]


@dataclass(frozen=True)
class Case:
    """A model and its inputs, and what is expected in each step.

    Attributes:
        grid: of the video in tokens.
        sinks: tokens beside it.
        others: tokens behind it that are none.
        sparse: calls that run sparse.
        dense: calls that do not, by reason.
    """

    family: Family
    grid: tuple[int, int, int]
    sparse: int = 2
    dense: dict[str, int] = field(default_factory=dict)
    sinks: Sinks = ()
    others: int = 0

    @property
    def density(self) -> float:
        """At level 8 but for sinks."""
        tokens = math.prod(self.grid) + sink_tokens(read_sinks(self.sinks)) + self.others
        levels = torch.full((1, 1, math.ceil(tokens / 128), math.ceil(tokens / 32)), 8, dtype=torch.uint8)
        return float(density(full_resolution_sinks(levels, read_sinks(self.sinks), 128, 32)))


def wan(variant: str, *, dense: int = 2, **more: Any) -> Case:
    """A Wan with conditioning entries beside its text, and what else is said of a case."""
    said = {key: more.pop(key) for key in ("sinks", "others") if key in more}
    family = Family(f"wan_{variant}", ((2, 16, 5, 15, 23),), entries=more)
    return Case(family, (5, 8, 12), dense={CROSS: dense}, **said)


# Tokens of a frame of the latents below, and of the video.
F, V = 96, 480
ONE = [1, 16, 1, 16, 24]
GUIDE = {"keyframe_idxs": [1, 3, F, 2], "concat_mask": {"ones": [1, 1, 6, 8, 12]}}
GUIDE_OF_TWO_STREAMS = GUIDE | {"concat_mask": {"ones": [1, 1, 6 * F * 128 + 8 * 10 * 16]}}
HALF = {"guide_attention_entries": [{"pre_filter_count": F, "strength": 0.5, "pixel_mask": None, "latent_shape": None}]}
CASES = {
    "LTX-Video": Case(Family("ltxv", ((1, 128, 5, 8, 12),), mask="ones"), (5, 8, 12), dense={CROSS: 2}),
    "LTX-Video, odd": Case(Family("ltxv", ((2, 128, 4, 7, 11),), mask="holes"), (4, 7, 11), dense={CROSS: 2}),
    "LTX-Video, guide": Case(
        Family("ltxv", ((1, 128, 6, 8, 12),), mask="ones", entries=GUIDE), (5, 8, 12), dense={CROSS: 2},
        sinks=((V, V + F, True),),
    ),
    # The video looks at both with a mask, and the guide at both with another.
    "LTX-Video, guide at half strength": Case(
        Family("ltxv", ((2, 128, 6, 8, 12),), mask="ones", entries=GUIDE | HALF), (5, 8, 12), sparse=0,
        dense={CROSS: 2, "attention with guides": 2 * 2},
    ),
    "LTX-2": Case(
        Family("ltxav", ((2, 128, 5, 7, 11), (2, 8, 10, 16)), text_dim=128), (5, 7, 11), dense={CROSS: 2, AUDIO: 2 * 4}
    ),
    "LTX-2, guide": Case(
        Family("ltxav", ((1, 128, 6, 8, 12), (1, 8, 10, 16)), text_dim=128, entries=GUIDE_OF_TWO_STREAMS), (5, 8, 12),
        dense={CROSS: 2, AUDIO: 2 * 4}, sinks=((V, V + F, True),),
    ),
    # As many tokens of sound as of video.
    "LTX-2, long sound": Case(
        Family("ltxav", ((1, 128, 5, 4, 6), (1, 8, 120, 16)), text_dim=128), (5, 4, 6), dense={CROSS: 2, AUDIO: 2 * 4}
    ),
    "MiniMax H3": Case(
        Family("minimax_h3", ((1, 24, 5, 16, 24), (1, 32, 2, 20))), (5, 8, 12),
        sinks=((0, 16, False), (16, 16 + 40, True)),
    ),
    "MiniMax H3, keyframe": Case(
        Family(
            "minimax_h3", ((1, 24, 5, 15, 23), (1, 32, 2, 20)),
            entries={"minimax_keyframes": [{"resolved_frame_index": 0, "latent": [1, 24, 1, 16, 24]}]},
        ),
        (5, 8, 12), sinks=((0, 16 + F, False), (16 + F, 16 + F + 40, True)),
    ),
    "HunyuanVideo": Case(
        Family("hunyuan_video", ((1, 16, 5, 16, 24),), mask="ones"), (5, 8, 12), sparse=3, dense={PROMPTS_OWN: 2},
        sinks=((0, 16, True),),
    ),
    "HunyuanVideo, two at once": Case(
        Family("hunyuan_video", ((2, 16, 5, 14, 22),)), (5, 7, 11), sparse=3, dense={PROMPTS_OWN: 2},
        sinks=((0, 16, True),),
    ),
    "HunyuanVideo, reference": Case(
        Family("hunyuan_video", ((1, 16, 5, 14, 22),), entries={"ref_latent": [1, 16, 1, 14, 22]}), (5, 7, 11),
        sparse=3, dense={PROMPTS_OWN: 2}, sinks=((0, 16 + 77, True),),
    ),
    "HunyuanVideo, padded prompt": Case(
        Family("hunyuan_video", ((1, 16, 5, 16, 24),), mask="holes"), (5, 8, 12), sparse=0,
        dense={PROMPTS_OWN: 2, "attention mask": 3},
    ),
    "HunyuanVideo 1.5": Case(
        Family("hunyuan_video_15", ((2, 32, 5, 7, 11),)), (5, 7, 11), dense={PROMPTS_OWN: 2}, sinks=((0, 16, True),)
    ),
    "Kandinsky 5": Case(
        Family("kandinsky5", ((2, 16, 5, 14, 22),)), (5, 7, 11), dense={PROMPTS_OWN: 1, CROSS: 2}
    ),
    "Cosmos": Case(Family("cosmos", ((2, 16, 5, 14, 22),)), (5, 7, 11), dense={CROSS: 2}),
    "Cosmos-Predict2": Case(Family("cosmos_predict2", ((2, 16, 5, 15, 23),)), (5, 8, 12), dense={CROSS: 2}),
    "Mochi": Case(
        Family("mochi_preview", ((2, 12, 5, 16, 24),), text_tokens=24, mask="holes"), (5, 8, 12), sparse=1,
        sinks=((V, V + 12, True),),
    ),
    "Wan, subjects": wan("t2v", time_dim_concat=ONE, sinks=((V, V + F, True),)),
    "Wan, many subjects": wan("t2v", time_dim_concat=[1, 16, 2, 16, 24], others=2 * F),
    "Wan, reference": wan("reference", reference_latents=[ONE], sinks=((0, F, True),)),
    "Wan, no place for a reference": wan("t2v", reference_latents=[ONE]),
    "Wan, contexts": wan("t2v", context_latents=[[1, 16, 5, 16, 24], ONE], others=V + F),
    "Wan, a context": wan("t2v", context_latents=[ONE], sinks=((V, V + F, True),)),
    "Wan, camera": wan("camera"),
    "Wan, Animate": Case(
        Family(
            "wan_animate", ((2, 16, 5, 14, 22),),
            entries={"pose_video_latent": [1, 16, 4, 14, 22], "concat_latent_image": [1, 16, 5, 14, 22]},
        ),
        # Text, and the image that CLIP sees.
        (5, 7, 11), dense={CROSS: 4},
    ),
    "Wan, HuMo": wan("humo", reference_latents=[ONE], sinks=((V, V + F, True),)),
    "Wan, S2V": wan("s2v", reference_latents=[ONE], reference_motion=[1, 16, 19, 16, 24], others=F + 136),
    "Wan, SCAIL": wan(
        "scail", dense=4, reference_latents=[ONE], sinks=((0, F, True),), pose_video_latent=[1, 16, 5, 8, 12],
        others=120,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_videos_attention_runs_sparse_around_its_sinks(comfyui: ComfyUI, case: Case) -> None:
    dense = comfyui.client.sample(sampled(case.family))
    graph = sampled(case.family, psa(**LEVEL_1_ONLY, unknown_models="video"))
    result = comfyui.client.run(graph)
    shown = line(result, graph)
    assert (shown.sparse, shown.reasons) == (
        STEPS * case.sparse, {reason: STEPS * count for reason, count in case.dense.items()}
    )  # fmt: skip
    assert relative_error(comfyui.client.latent(result), dense) < 1e-4
    if not case.sparse:
        return

    graph = sampled(case.family, psa(**LEVEL_8_ONLY, unknown_models="video"))
    result = comfyui.client.run(graph)
    latent = comfyui.client.latent(result)
    assert torch.isfinite(latent).all()
    assert relative_error(latent, dense) > 1e-4
    assert line(result, graph).density == pytest.approx(case.density, abs=6e-4)
    again = sampled(case.family, psa(**LEVEL_8_ONLY, unknown_models="video"))
    assert torch.equal(comfyui.client.sample(again), latent)


@pytest.mark.parametrize("name", ["HunyuanVideo", "LTX-2", "MiniMax H3"])
def test_guidance_with_prompts_of_other_lengths(comfyui: ComfyUI, name: str) -> None:
    family = CASES[name].family
    dense = comfyui.client.sample(sampled(family, cfg=5.0, negative_tokens=9))
    graph = sampled(family, psa(**LEVEL_1_ONLY, unknown_models="video"), cfg=5.0, negative_tokens=9)
    result = comfyui.client.run(graph)
    shown = line(result, graph)
    assert shown.sparse == 2 * STEPS * CASES[name].sparse
    assert set(shown.reasons) == set(CASES[name].dense)
    assert relative_error(comfyui.client.latent(result), dense) < 1e-4


@pytest.mark.parametrize("name", ["LTX-2", "MiniMax H3", "HunyuanVideo", "Kandinsky 5"])
def test_layers_are_those_of_the_video(comfyui: ComfyUI, name: str) -> None:
    case = CASES[name]
    graph = sampled(case.family, psa(schedule={"dense_layers": str(case.sparse - 1)}, unknown_models="video"))
    shown = line(comfyui.client.run(graph), graph)
    assert shown.sparse == STEPS * (case.sparse - 1)
    assert shown.reasons["dense layer"] == STEPS


def test_a_radial_mask_keeps_sinks_and_cuts_the_video(comfyui: ComfyUI) -> None:
    case = CASES["HunyuanVideo, reference"]
    graph = sampled(case.family, psa(mask={}, unknown_models="video"))
    shown = line(comfyui.client.run(graph), graph)
    mask = RadialMask(mode="radial only", decay_factor=0.2, block_size=8, model_type="cogvideox")
    expected = static_levels(mask, case.grid, 16 + 77, 128, 32)
    assert shown.sparse == STEPS * case.sparse
    assert shown.density == pytest.approx(float(density(expected)), abs=6e-4)
    assert float(density(expected)) < 0.9


@pytest.mark.parametrize("name", ["LTX-2", "HunyuanVideo", "Wan, contexts"])
def test_prompts_from_before_them_leave_them_as_they_were(comfyui: ComfyUI, name: str) -> None:
    graph = sampled(CASES[name].family, psa())
    shown = line(comfyui.client.run(graph), graph)
    assert shown.sparse == 0
    last = (
        "not a Wan or CogVideoX model"
        if "Wan" not in name
        else "1056 tokens are not the grid 5 x 8 x 12 plus 0 of text"
    )
    assert last in shown.reasons
