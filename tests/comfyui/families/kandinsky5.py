"""Kandinsky 5, tiny."""

from __future__ import annotations

from .family import CROSS, PROMPTS_OWN, Case, Family, Model

KANDINSKY5 = Model(
    "Kandinsky5",
    {
        "image_model": "kandinsky5", "model_dim": 128, "ff_dim": 128, "time_dim": 64, "visual_embed_dim": 132,
        "in_text_dim": 64, "num_text_blocks": 1, "num_visual_blocks": 2,
    },
)  # fmt: skip
CASES = {
    "Kandinsky 5, image": Case(
        Family(KANDINSKY5, ((1, 16, 5, 16, 24),), entries={"time_dim_replace": [1, 16, 1, 16, 24]}), (5, 8, 12),
        dense={PROMPTS_OWN: 1, CROSS: 2},
    ),
    "Kandinsky 5": Case(
        Family(KANDINSKY5, ((2, 16, 5, 14, 22),)), (5, 7, 11), dense={PROMPTS_OWN: 1, CROSS: 2}
    ),
}  # fmt: skip
