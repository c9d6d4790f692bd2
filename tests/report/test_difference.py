"""Two videos as ComfyUI holds them: numbers, a video of what differs, and the plot."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")

from psa_core import ConfigError
from psa_core.report.difference import compare_videos
from psa_core.report.pictures.quality import quality_picture, quality_title
from psa_core.report.quality import Quality, measure_quality

SHAPE = (3, 12, 16, 3)


@pytest.fixture
def reference() -> torch.Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25


@pytest.fixture
def video(reference: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    return reference + 0.02 * noise * torch.arange(1, 4).view(-1, 1, 1, 1)


def test_measures_what_quality_does_and_amplifies_what_differs(video: torch.Tensor, reference: torch.Tensor) -> None:
    seen = []
    found = compare_videos(video, reference, 20, lambda: seen.append(1))

    assert found.quality == measure_quality(video.numpy(), reference.numpy())
    assert len(seen) == 3
    assert found.video.shape == SHAPE
    assert found.video.dtype == torch.float32
    torch.testing.assert_close(found.video, ((video - reference).abs() * 20).clamp(max=1))
    assert 0.1 < (found.video == 1).float().mean() < 0.9


def test_transparency_and_what_is_outside_0_and_1_do_not_count(reference: torch.Tensor) -> None:
    reference[0, :4], reference[1, :4] = 0, 1
    beyond = reference.clone()
    beyond[0, :4], beyond[1, :4] = -3, 2
    with_alpha = torch.cat([beyond, torch.rand(*SHAPE[:3], 1)], dim=-1)

    for video, other in ((with_alpha, reference), (reference, with_alpha.half().float())):
        found = compare_videos(video, other, 4)
        assert found.video.shape == SHAPE
        assert found.video.max() < 0.01
    assert compare_videos(beyond, reference, 4).quality.psnr == (math.inf,) * 3


def test_videos_in_half_precision_count_as_numbers_of_full(video: torch.Tensor, reference: torch.Tensor) -> None:
    found = compare_videos(video.half(), reference.bfloat16(), 4)
    wanted = compare_videos(video.half().float(), reference.bfloat16().float(), 4)
    assert found.quality == wanted.quality
    assert torch.equal(found.video, wanted.video)


def test_one_frame_and_equal_videos_have_numbers_for_json(video: torch.Tensor, reference: torch.Tensor) -> None:
    one = compare_videos(video[:1], reference[:1], 4)
    assert len(one.quality.psnr) == len(one.video) == 1
    same = compare_videos(reference, reference.clone(), 64)
    assert not same.video.any()
    document = json.loads(json.dumps(same.quality.as_dict(), allow_nan=False))
    assert document["psnr"] == "identical"
    assert document["frames"]["ssim"] == pytest.approx([1] * 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda video: video[:1], "video = '1 frame': the reference has 3 frames: make both with the same length"),
        (lambda video: video[:, :, :8], r"video = '8 x 12': the reference has 16 x 12 \(width x height\)"),
        (lambda video: video.transpose(1, 2), r"video = '12 x 16': the reference has 16 x 12"),
        (lambda video: video[..., :1], r"video = \[3, 12, 16, 1\]: must be \[frames, height, width, 3 or 4\]"),
        (lambda video: video[:0], "video = .*with a frame or more"),
        (lambda video: video[0], "video = .*must be"),
    ],
)
def test_videos_that_do_not_fit_are_refused(video: torch.Tensor, reference: torch.Tensor, change, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compare_videos(change(video), reference, 4)


def test_a_reference_of_no_use_is_refused_by_name(video: torch.Tensor, reference: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="reference = "):
        compare_videos(video, reference[..., :1], 4)


def test_frames_smaller_than_ssim_s_window_are_refused(video: torch.Tensor, reference: torch.Tensor) -> None:
    assert len(compare_videos(video[:, :7, :7], reference[:, :7, :7], 4).video) == 3
    with pytest.raises(ConfigError, match="video = '7 x 6': SSIM looks at windows of 7 x 7 pixels"):
        compare_videos(video[:, :6, :7], reference[:, :6, :7], 4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_pixels_that_are_no_numbers_are_refused(video: torch.Tensor, reference: torch.Tensor, bad: float) -> None:
    broken = video.clone()
    broken[1, 2, 3, 0] = bad
    with pytest.raises(ConfigError, match="video = 'frame 1': holds pixels that are not numbers"):
        compare_videos(broken, reference, 4)
    with pytest.raises(ConfigError, match="reference = 'frame 1'"):
        compare_videos(video, broken, 4)


def test_the_title_says_the_means_and_what_is_left_out() -> None:
    assert quality_title(quality(30, 34)) == "PSNR 32.00 dB, SSIM 0.9500"
    assert quality_title(quality(30, math.inf, 31)) == "PSNR 30.50 dB (1 of 3 frames identical, left out), SSIM 0.9500"
    assert quality_title(quality(math.inf, math.inf)) == "PSNR identical, SSIM 0.9500"
    flickering = dataclasses.replace(quality(30), flicker=0.1234)
    assert quality_title(flickering) == "PSNR 30.00 dB, SSIM 0.9500, flicker 0.123"


@pytest.mark.parametrize("psnr", [(30.0,), (math.inf,), (math.inf,) * 4, (30.0, math.inf, 34.0), (30.0, 31.0) * 90])
def test_the_plot_is_drawn_of_any_clip(psnr: tuple[float, ...]) -> None:
    picture = quality_picture(quality(*psnr))
    assert picture.mode == "RGB"
    assert picture.width == 920
    # Marks where frames are equal, and only there.
    assert has(picture, (0xC9, 0x8A, 0x1B)) == (math.inf in psnr)
    assert has(picture, (0x1F, 0x2D, 0x7A)) == any(value != math.inf for value in psnr)
    assert has(picture, (0x1A, 0x8A, 0x6E))


def test_the_plot_shows_the_numbers() -> None:
    low, high, lower_ssim = (
        np.asarray(quality_picture(Quality(psnr, ssim, None)))
        for psnr, ssim in (
            ((20.0, 30.0, 20.0), (0.9,) * 3),
            ((20.0, 30.0, 30.0), (0.9,) * 3),
            ((20.0, 30.0, 20.0), (0.9, 0.8, 0.9)),
        )
    )
    half = len(low) // 2
    assert (low[40:half] != high[40:half]).any()
    assert (low[half:] == high[half:]).all()
    assert (low[half:] != lower_ssim[half:]).any()
    assert (low[40 : half - 20] == lower_ssim[40 : half - 20]).all()


def quality(*psnr: float) -> Quality:
    return Quality(psnr, (0.95,) * len(psnr), lpips=None)


def has(picture, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(picture) == colour).all(-1).any())
