"""What is drawn of a mask: the level map of a run, averaged over pixels."""

from __future__ import annotations

import pytest
import torch

from psa_core.masks.preview import mask_preview
from psa_core.masks.static import static_levels
from psa_core.ops.levels.rules import density
from psa_core.settings.errors import ConfigError
from psa_core.settings.radial import RADIAL_MODES, RadialMask


@pytest.mark.parametrize("mode", RADIAL_MODES)
@pytest.mark.parametrize(("model_type", "text_length"), [("wan", 0), ("auto", 0), ("cogvideox", 226)])
def test_small_clips_are_drawn_block_by_block(mode: str, model_type: str, text_length: int) -> None:
    mask = RadialMask(mode=mode, model_type=model_type, decay_factor=0.5)
    # 13 latent frames of 15 x 26 tokens, the last column ragged.
    levels = static_levels(mask, (13, 15, 26), text_length, 128, 128)[0, 0]

    drawn = mask_preview(mask, 410, 240, 49)

    assert (drawn.grid, drawn.text_length, drawn.blocks, drawn.frames) == ((13, 15, 26), text_length, len(levels), 49)
    assert drawn.density == pytest.approx(float(density(levels)))
    assert set(drawn.shares) == set(levels.unique().tolist())
    for level, share in drawn.shares.items():
        assert (share == 255 * (levels == level)).all()


def test_large_clips_are_drawn_by_shares() -> None:
    mask = RadialMask(model_type="wan")
    # 1,021 blocks a side, whose windows are narrower than a pixel.
    levels = static_levels(mask, (33, 45, 88), 0, 128, 128)[0, 0]

    drawn = mask_preview(mask, 1408, 720, 129)

    total = sum(share.float() for share in drawn.shares.values())
    assert total.shape == (256, 256)
    assert ((total - 255).abs() <= 1).all()
    assert float(drawn.shares[1].float().mean()) / 255 == pytest.approx(float((levels == 1).float().mean()), abs=0.01)
    assert (drawn.shares[1].diagonal() > 0).all()
    assert drawn.density == pytest.approx(float(density(levels)))


def test_scenes_say_how_long_the_clip_is_and_count_video_frames() -> None:
    drawn = mask_preview(RadialMask(scene_boundaries="0, 17, 33", scene_adjacency="own"), 128, 128, 81)

    assert (drawn.frames, drawn.grid) == (33, (9, 8, 8))
    # Frames of 64 tokens: blocks 0 and 1 are of the first scene, 4 of the second.
    assert drawn.shares[0][4, 0] == 255
    assert drawn.shares[1].dtype == torch.uint8


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((4112, 16, 1), "4096 a side"),
        ((16, 16, 4097), "4096 a side"),
        ((4096, 4096, 81), "500,000 tokens"),
        ((0, 16, 1), "preview_width = 0"),
        ((16, "16", 1), "preview_height = '16'"),
    ],
)
def test_sizes_that_cannot_be_drawn_are_refused(size: tuple, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        mask_preview(RadialMask(), *size)


def test_scenes_beyond_what_can_be_drawn_are_refused() -> None:
    with pytest.raises(ConfigError, match="4096 a side"):
        mask_preview(RadialMask(scene_boundaries="0, 60000"), 16, 16, 81)
