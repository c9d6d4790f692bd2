"""MiniMax H3, tiny."""

from __future__ import annotations

from .family import Case, F, Family, Model

MINIMAX_H3 = Model(
    "MiniMaxH3",
    {
        "image_model": "minimax_h3", "hidden_size": 256, "num_layers": 2, "token_refiner_num_layers": 1,
        "num_attention_heads": 2, "attention_head_dim": 128, "ffn_hidden_size": 256, "text_dim": 64,
        "timestep_input_dim": 64, "time_embed_hidden_size": 64, "time_embed_dim": 64,
    },
)  # fmt: skip
CASES = {
    "MiniMax H3": Case(
        Family(MINIMAX_H3, ((1, 24, 5, 16, 24), (1, 32, 2, 20))), (5, 8, 12),
        sinks=((0, 16, False), (16, 16 + 40, True)),
    ),
    "MiniMax H3, keyframe": Case(
        Family(
            MINIMAX_H3, ((1, 24, 5, 15, 23), (1, 32, 2, 20)),
            entries={"minimax_keyframes": [{"resolved_frame_index": 0, "latent": [1, 24, 1, 16, 24]}]},
        ),
        (5, 8, 12), sinks=((0, 16 + F, False), (16 + F, 16 + F + 40, True)),
    ),
    # Rows of a picture, then two of each of three latent frames of sound.
    "MiniMax H3, references": Case(
        Family(
            MINIMAX_H3, ((1, 24, 5, 16, 24), (1, 32, 2, 20)),
            entries={
                "minimax_refs": [
                    {"kind": "image", "latent_h": 16, "latent_w": 24, "latent": [1, 24, 1, 16, 24]},
                    {"kind": "audio", "ref_audio_t": 3, "audio_latent": [1, 32, 2, 3]},
                ]
            },
        ),
        (5, 8, 12), sinks=((0, 16 + F + 6, False), (16 + F + 6, 16 + F + 6 + 40, True)),
    ),
}  # fmt: skip
