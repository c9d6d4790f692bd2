"""VOID, a CogVideoX with two videos more in its channels; the others' are tiny checkpoints."""

from __future__ import annotations

from .family import Case, Family, Model

VOID = Model(
    "CogVideoX_Inpaint",
    {
        "image_model": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 64, "in_channels": 48,
        "num_layers": 2, "text_embed_dim": 64, "time_embed_dim": 64, "use_rotary_positional_embeddings": True,
    },
)  # fmt: skip
CASES = {
    "VOID": Case(
        Family(VOID, ((2, 16, 5, 15, 23),), text_tokens=226, entries={"concat_latent_image": [1, 32, 5, 15, 23]}),
        (5, 8, 12), sinks=((0, 226, True),),
    ),
}  # fmt: skip
