"""HunyuanVideo and 1.5, tiny."""

from __future__ import annotations

from .family import PROMPTS_OWN, Case, Family, Model

HUNYUAN_VIDEO = Model(
    "HunyuanVideo",
    {
        "image_model": "hunyuan_video", "in_channels": 16, "patch_size": [1, 2, 2], "out_channels": 16,
        "vec_in_dim": 768, "axes_dim": [16, 56, 56], "meanflow": False, "context_in_dim": 64, "hidden_size": 256,
        "mlp_ratio": 1.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 2, "theta": 256, "qkv_bias": True,
        "byt5": False, "guidance_embed": True, "use_cond_type_embedding": False, "vision_in_dim": None,
        "meanflow_sum": False,
    },
)  # fmt: skip
HUNYUAN_VIDEO_15 = Model(
    "HunyuanVideo15",
    {
        "image_model": "hunyuan_video", "in_channels": 65, "patch_size": [1, 1, 1], "out_channels": 32,
        "vec_in_dim": None, "axes_dim": [16, 56, 56], "meanflow": False, "context_in_dim": 64, "hidden_size": 256,
        "mlp_ratio": 1.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 0, "theta": 256, "qkv_bias": True,
        "byt5": False, "guidance_embed": False, "use_cond_type_embedding": True, "vision_in_dim": 1152,
        "meanflow_sum": True,
    },
)  # fmt: skip
CASES = {
    "HunyuanVideo": Case(
        Family(HUNYUAN_VIDEO, ((1, 16, 5, 16, 24),), mask="ones"), (5, 8, 12), sparse=3, dense={PROMPTS_OWN: 2},
        sinks=((0, 16, True),),
    ),
    "HunyuanVideo, two at once": Case(
        Family(HUNYUAN_VIDEO, ((2, 16, 5, 14, 22),)), (5, 7, 11), sparse=3, dense={PROMPTS_OWN: 2},
        sinks=((0, 16, True),),
    ),
    "HunyuanVideo, reference": Case(
        Family(HUNYUAN_VIDEO, ((1, 16, 5, 14, 22),), entries={"ref_latent": [1, 16, 1, 14, 22]}), (5, 7, 11),
        sparse=3, dense={PROMPTS_OWN: 2}, sinks=((0, 16 + 77, True),),
    ),
    "HunyuanVideo, padded prompt": Case(
        Family(HUNYUAN_VIDEO, ((1, 16, 5, 16, 24),), mask="holes"), (5, 8, 12), sparse=0,
        dense={PROMPTS_OWN: 2, "attention mask": 3},
    ),
    "HunyuanVideo 1.5": Case(
        Family(HUNYUAN_VIDEO_15, ((2, 32, 5, 7, 11),)), (5, 7, 11), dense={PROMPTS_OWN: 2}, sinks=((0, 16, True),)
    ),
}  # fmt: skip
