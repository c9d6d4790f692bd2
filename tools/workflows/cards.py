"""What tells the cards of the workflows in the template browser apart."""

from __future__ import annotations

from typing import NamedTuple

_TINY, _WAN21, _WAN22, _COGVIDEOX, _COGVIDEOX15 = "#c2702d", "#2a6f8f", "#6d549c", "#2f7d5b", "#80852c"
_MINIMAX, _HUNYUAN, _LTX = "#a33f4e", "#3b4a8c", "#4f7a86"


class Card(NamedTuple):
    """The look of one card.

    Attributes:
        words: a line each, large where the card has no picture, else a label on it.
        colour: behind the words, one a family of models.
        draws_itself: the picture is what a node of the workflow draws. Those that run anywhere show their videos.
    """

    words: tuple[str, ...]
    colour: str
    draws_itself: bool = False


CARDS = {
    "tiny_video": Card(("PSA",), _TINY),
    "tiny_video_compare": Card(("dense | PSA",), _TINY),
    "tiny_calibration": Card(("calibration",), _TINY),
    "wan21_t2v_1_3b": Card(("Wan 2.1", "1.3B", "text"), _WAN21),
    "wan21_t2v_14b": Card(("Wan 2.1 14B",), _WAN21, draws_itself=True),
    "wan21_i2v_14b": Card(("Wan 2.1", "14B", "image"), _WAN21),
    "wan21_vace_14b": Card(("Wan 2.1", "VACE 14B", "reference"), _WAN21),
    "radial_mask_wan21": Card(("Wan 2.1 1.3B",), _WAN21, draws_itself=True),
    "compare_dense_and_psa": Card(("dense", "|", "PSA"), _WAN21),
    "wan22_ti2v_5b": Card(("Wan 2.2", "5B", "text, image"), _WAN22),
    "wan22_t2v_a14b": Card(("Wan 2.2", "A14B", "text"), _WAN22),
    "wan22_t2v_a14b_4steps": Card(("Wan 2.2 A14B", "text", "4 steps"), _WAN22),
    "wan22_i2v_a14b": Card(("Wan 2.2", "A14B", "image"), _WAN22),
    "wan22_i2v_a14b_4steps": Card(("Wan 2.2 A14B", "image", "4 steps"), _WAN22),
    "wan22_animate_14b": Card(("Wan 2.2", "Animate 14B", "motion"), _WAN22),
    "wan_animate2_14b": Card(("Wan", "Animate 2", "motion"), _WAN22),
    "ltx23_t2v": Card(("LTX", "2.3", "text, sound"), _LTX),
    "ltx23_i2v": Card(("LTX", "2.3", "image, sound"), _LTX),
    "ltx25_t2v": Card(("LTX-2.5", "text", "sound"), _LTX),
    "ltx25_i2v": Card(("LTX-2.5", "image", "sound"), _LTX),
    "minimax_h3_t2v": Card(("MiniMax", "H3", "text, sound"), _MINIMAX),
    "minimax_h3_i2v": Card(("MiniMax", "H3", "image, sound"), _MINIMAX),
    "minimax_h3_i2v_turbo": Card(("MiniMax H3", "image, sound", "8 steps"), _MINIMAX),
    "hunyuan_video_15_t2v": Card(("Hunyuan", "Video 1.5", "text"), _HUNYUAN),
    "cogvideox_5b_t2v": Card(("CogVideoX", "5B", "text"), _COGVIDEOX),
    "cogvideox_5b_i2v": Card(("CogVideoX", "5B", "image"), _COGVIDEOX),
    "cogvideox_5b_psa_4steps": Card(("CogVideoX 5B", "PSA LoRA", "4 steps"), _COGVIDEOX),
    "cogvideox15_5b_t2v": Card(("CogVideoX", "1.5", "text"), _COGVIDEOX15),
    "cogvideox15_5b_i2v": Card(("CogVideoX", "1.5", "image"), _COGVIDEOX15),
}
