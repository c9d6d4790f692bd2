"""LTX-Video and LTX-2, tiny."""

from __future__ import annotations

from .family import AUDIO, CROSS, Case, F, Family, Model, V

LTX_VIDEO = Model(
    "LTXV",
    {
        "image_model": "ltxv", "in_channels": 128, "num_layers": 2, "attention_head_dim": 64,
        "num_attention_heads": 2, "cross_attention_dim": 128, "caption_channels": 64,
    },
)  # fmt: skip
LTX_2 = Model(
    "LTXAV",
    {
        "image_model": "ltxav", "in_channels": 128, "num_layers": 2, "attention_head_dim": 128,
        "num_attention_heads": 2, "cross_attention_dim": 256, "audio_cross_attention_dim": 128,
        "audio_attention_head_dim": 64, "audio_num_attention_heads": 2, "caption_channels": 64,
        "connector_attention_head_dim": 64, "connector_num_attention_heads": 1, "connector_num_layers": 1,
    },
)  # fmt: skip

GUIDE = {"keyframe_idxs": [1, 3, F, 2], "concat_mask": {"ones": [1, 1, 6, 8, 12]}}
GUIDE_OF_TWO_STREAMS = GUIDE | {"concat_mask": {"ones": [1, 1, 6 * F * 128 + 8 * 10 * 16]}}
HALF = {"guide_attention_entries": [{"pre_filter_count": F, "strength": 0.5, "pixel_mask": None, "latent_shape": None}]}
CASES = {
    "LTX-Video": Case(Family(LTX_VIDEO, ((1, 128, 5, 8, 12),), mask="ones"), (5, 8, 12), dense={CROSS: 2}),
    "LTX-Video, odd": Case(Family(LTX_VIDEO, ((2, 128, 4, 7, 11),), mask="holes"), (4, 7, 11), dense={CROSS: 2}),
    "LTX-Video, guide": Case(
        Family(LTX_VIDEO, ((1, 128, 6, 8, 12),), mask="ones", entries=GUIDE), (5, 8, 12), dense={CROSS: 2},
        sinks=((V, V + F, True),),
    ),
    # The video looks at both with a mask, and the guide at both with another.
    "LTX-Video, guide at half strength": Case(
        Family(LTX_VIDEO, ((2, 128, 6, 8, 12),), mask="ones", entries=GUIDE | HALF), (5, 8, 12), sparse=0,
        dense={CROSS: 2, "weighted guides (those of strength 1 without a mask are not)": 2 * 2},
    ),
    "LTX-2": Case(
        Family(LTX_2, ((2, 128, 5, 7, 11), (2, 8, 10, 16)), text_dim=128), (5, 7, 11), dense={CROSS: 2, AUDIO: 2 * 4}
    ),
    "LTX-2, guide": Case(
        Family(LTX_2, ((1, 128, 6, 8, 12), (1, 8, 10, 16)), text_dim=128, entries=GUIDE_OF_TWO_STREAMS), (5, 8, 12),
        dense={CROSS: 2, AUDIO: 2 * 4}, sinks=((V, V + F, True),),
    ),
    # As many tokens of sound as of video.
    "LTX-2, long sound": Case(
        Family(LTX_2, ((1, 128, 5, 4, 6), (1, 8, 120, 16)), text_dim=128), (5, 4, 6), dense={CROSS: 2, AUDIO: 2 * 4}
    ),
}  # fmt: skip
