"""Cosmos 1 and Cosmos-Predict2, tiny."""

from __future__ import annotations

from .family import CROSS, Case, Family, Model

COSMOS = Model(
    "CosmosT2V",
    {
        "image_model": "cosmos", "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16,
        "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 256,
        "block_config": "FA-CA-MLP", "concat_padding_mask": True, "pos_emb_cls": "rope3d",
        "pos_emb_learnable": False, "pos_emb_interpolation": "crop", "block_x_format": "THWBD",
        "affline_emb_norm": True, "use_adaln_lora": True, "adaln_lora_dim": 32, "num_blocks": 2, "num_heads": 2,
        "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
        "crossattn_emb_channels": 64,
    },
)  # fmt: skip
COSMOS_PREDICT2 = Model(
    "CosmosT2IPredict2",
    {
        "image_model": "cosmos_predict2", "max_img_h": 240, "max_img_w": 240, "max_frames": 128,
        "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 256,
        "concat_padding_mask": True, "crossattn_emb_channels": 64, "pos_emb_cls": "rope3d",
        "pos_emb_learnable": True, "pos_emb_interpolation": "crop", "use_adaln_lora": True, "adaln_lora_dim": 32,
        "num_blocks": 2, "num_heads": 2, "extra_per_block_abs_pos_emb": False,
    },
)  # fmt: skip
CASES = {
    "Cosmos": Case(Family(COSMOS, ((2, 16, 5, 14, 22),)), (5, 7, 11), dense={CROSS: 2}),
    "Cosmos-Predict2": Case(Family(COSMOS_PREDICT2, ((2, 16, 5, 15, 23),)), (5, 8, 12), dense={CROSS: 2}),
}  # fmt: skip
