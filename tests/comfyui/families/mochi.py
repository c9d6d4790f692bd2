"""Mochi, tiny."""

from __future__ import annotations

from .family import Case, Family, Model, V

MOCHI = Model(
    "GenmoMochi",
    {
        "image_model": "mochi_preview", "depth": 1, "patch_size": 2, "num_heads": 2, "hidden_size_x": 256,
        "hidden_size_y": 128, "mlp_ratio_x": 48.0, "mlp_ratio_y": 1.0, "learn_sigma": False, "in_channels": 12,
        "qk_norm": True, "qkv_bias": False, "out_bias": True, "attn_drop": 0.0, "patch_embed_bias": True,
        "posenc_preserve_area": True, "timestep_mlp_bias": True, "attend_to_padding": False,
        "timestep_scale": 1000.0, "use_t5": True, "t5_feat_dim": 64, "t5_token_length": 24,
        "rope_theta": 10000.0,
    },
)  # fmt: skip
CASES = {
    "Mochi": Case(
        Family(MOCHI, ((2, 12, 5, 16, 24),), text_tokens=24, mask="holes"), (5, 8, 12), sparse=1,
        sinks=((V, V + 12, True),),
    ),
}  # fmt: skip
