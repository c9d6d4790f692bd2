"""Every kind of Wan, tiny."""

from __future__ import annotations

from typing import Any

from .family import CROSS, Case, F, Family, Model, V

_WAN: dict[str, Any] = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 256, "ffn_dim": 256, "num_heads": 2, "num_layers": 2,
    "patch_size": (1, 2, 2), "freq_dim": 256, "window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True,
    "eps": 1e-6, "in_dim": 16, "out_dim": 16, "text_dim": 64,
}  # fmt: skip
T2V = Model("WAN21_T2V", _WAN)
REFERENCE = Model("WAN21_T2V", {**_WAN, "in_dim_ref_conv": 16})
CAMERA = Model("WAN22_Camera", {**_WAN, "model_type": "camera_2.2"})
HUMO = Model("WAN21_HuMo", {**_WAN, "model_type": "humo"})
S2V = Model("WAN22_S2V", {**_WAN, "model_type": "s2v", "audio_inject_layers": [0]})
WAN_ANIMATE = Model("WAN22_Animate", {**_WAN, "model_type": "animate", "in_dim": 36})
WAN_ANIMATE_2 = Model("WAN_Animate2", {**_WAN, "model_type": "animate2", "in_dim": 36})
WAN_DANCER = Model("WAN22_WanDancer", {**_WAN, "model_type": "wandancer", "in_dim": 36, "audio_inject_layers": [0]})
SCAIL = Model("WAN21_SCAIL", {**_WAN, "model_type": "scail", "in_dim": 20})
ONE = [1, 16, 1, 16, 24]


def wan(model: Model, *, dense: int = 2, **more: Any) -> Case:
    """A Wan with conditioning entries beside its text, and what else is said of a case."""
    said = {key: more.pop(key) for key in ("sinks", "others") if key in more}
    return Case(Family(model, ((2, 16, 5, 15, 23),), entries=more), (5, 8, 12), dense={CROSS: dense}, **said)


CASES = {
    "Wan, subjects": wan(T2V, time_dim_concat=ONE, sinks=((V, V + F, True),)),
    "Wan, many subjects": wan(T2V, time_dim_concat=[1, 16, 2, 16, 24], others=2 * F),
    "Wan, reference": wan(REFERENCE, reference_latents=[ONE], sinks=((0, F, True),)),
    "Wan, no place for a reference": wan(T2V, reference_latents=[ONE]),
    "Wan, contexts": wan(T2V, context_latents=[[1, 16, 5, 16, 24], ONE], others=V + F),
    "Wan, a context": wan(T2V, context_latents=[ONE], sinks=((V, V + F, True),)),
    "Wan, camera": wan(CAMERA),
    "Wan, Animate": Case(
        Family(
            WAN_ANIMATE, ((2, 16, 5, 14, 22),),
            entries={"pose_video_latent": [1, 16, 4, 14, 22], "concat_latent_image": [1, 16, 5, 14, 22]},
        ),
        # Text, and the image that CLIP sees.
        (5, 7, 11), dense={CROSS: 4},
    ),
    "Wan, Animate 2": Case(
        Family(
            WAN_ANIMATE_2, ((2, 16, 5, 15, 23),),
            entries={"pose_video_latent": [1, 16, 4, 15, 23], "concat_latent_image": [1, 16, 5, 15, 23]},
        ),
        # The pose's own call and one a frame, and what is cross-attention of the clip is of the pose too.
        (5, 8, 12), sparse=2 * (1 + 5), dense={CROSS: 2 * 4}, parts=((0, V - F), (0, V), *[(F, V)] * 4),
    ),
    "Wan, WanDancer": wan(WAN_DANCER, dense=4, concat_latent_image=[1, 16, 5, 15, 23]),
    "Wan, HuMo": wan(HUMO, reference_latents=[ONE], sinks=((V, V + F, True),)),
    "Wan, S2V": wan(S2V, reference_latents=[ONE], reference_motion=[1, 16, 19, 16, 24], others=F + 136),
    "Wan, SCAIL": wan(
        SCAIL, dense=4, reference_latents=[ONE], sinks=((0, F, True),), pose_video_latent=[1, 16, 5, 8, 12],
        others=120,
    ),
}  # fmt: skip
