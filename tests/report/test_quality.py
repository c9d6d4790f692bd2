"""PSNR, SSIM and LPIPS against what they are by definition."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("skimage")

from psa_core.report.quality import Quality, flicker, load_lpips, measure_quality

SHAPE = (3, 24, 32, 3)


def noisy(amount: float) -> tuple[np.ndarray, np.ndarray]:
    """A video and its reference."""
    generator = np.random.default_rng(0)
    reference = generator.uniform(0.2, 0.8, SHAPE).astype(np.float32)
    return reference + generator.uniform(-amount, amount, SHAPE).astype(np.float32), reference


def test_psnr_is_what_its_formula_says_frame_by_frame() -> None:
    video, reference = noisy(0.1)
    expected = [-10 * math.log10(np.mean((x - y) ** 2)) for x, y in zip(video, reference, strict=True)]
    quality = measure_quality(video, reference)
    assert quality.psnr == pytest.approx(expected, rel=1e-4)
    assert quality.mean_psnr == pytest.approx(sum(expected) / 3, rel=1e-4)
    shifted = measure_quality(reference + np.float32(0.1), reference)
    assert shifted.psnr == pytest.approx([20] * 3, abs=1e-3)


def test_ssim_of_flat_frames_is_what_its_formula_says_and_noise_lowers_it() -> None:
    flat = measure_quality(np.full(SHAPE, 0.5), np.full(SHAPE, 0.7))
    assert flat.ssim == pytest.approx([(2 * 0.5 * 0.7 + 1e-4) / (0.5**2 + 0.7**2 + 1e-4)] * 3)
    little, much = (measure_quality(*noisy(amount)).mean_ssim for amount in (0.05, 0.3))
    assert 1 > little > much > 0


def test_equal_videos_are_called_identical_in_json() -> None:
    _, reference = noisy(0)
    quality = measure_quality(reference.copy(), reference)
    assert quality.mean_psnr == math.inf
    assert quality.mean_ssim == pytest.approx(1)
    document = json.loads(json.dumps(quality.as_dict(), allow_nan=False))
    assert (document["psnr"], document["lpips"]) == ("identical", None)
    assert document["frames"]["psnr"] == ["identical"] * 3


def test_one_equal_frame_does_not_hide_the_others() -> None:
    video, reference = noisy(0.1)
    video[1] = reference[1]
    quality = measure_quality(video, reference)
    assert quality.psnr[1] == math.inf
    assert quality.mean_psnr == pytest.approx((quality.psnr[0] + quality.psnr[2]) / 2)
    assert quality.mean_psnr < 30


def test_flicker_is_the_error_of_changes() -> None:
    video = np.random.default_rng(0).random((5, 8, 9, 3))
    assert flicker(video, video) == 0
    assert flicker(video + 0.3, video) == pytest.approx(0, abs=1e-6)
    assert flicker(np.repeat(video[:1], 5, 0), video) == pytest.approx(1)
    pulsing = video + 0.1 * (np.arange(5) % 2)[:, None, None, None]
    expected = 0.1 / np.sqrt(np.square(np.diff(video, axis=0)).mean())
    assert flicker(pulsing, video) == pytest.approx(expected)
    assert measure_quality(pulsing, video).flicker == pytest.approx(expected)


@pytest.mark.parametrize("frames", [1, 3])
def test_beside_a_reference_that_does_not_move_there_is_no_flicker(frames: int) -> None:
    still = np.repeat(noisy(0)[1][:1], frames, 0)
    quality = measure_quality(noisy(0.1)[0][:frames], still)
    assert quality.flicker is None
    assert json.loads(json.dumps(quality.as_dict(), allow_nan=False))["flicker"] is None


def test_json_brings_back_the_numbers_also_of_a_file_without_flicker() -> None:
    quality = measure_quality(*noisy(0.1))
    document = json.loads(json.dumps(quality.as_dict()))
    assert Quality.from_dict(document) == quality
    del document["flicker"]
    assert Quality.from_dict(document).flicker is None


@pytest.mark.parametrize("shape", [(3, 24, 32), (3, 6, 32, 3), (3, 24, 32, 4), (0, 24, 32, 3)])
def test_what_is_no_video_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be "):
        measure_quality(np.zeros(shape), np.zeros(shape))
    with pytest.raises(ValueError, match="one shape"):
        measure_quality(np.zeros(SHAPE), np.zeros((2, *SHAPE[1:])))


def test_without_its_package_there_is_no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert load_lpips() is None


def install(monkeypatch: pytest.MonkeyPatch, network: type) -> None:
    """A package ``lpips`` with this network."""
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=network))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


def test_lpips_gets_frames_from_minus_one_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    class Network(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            assert not self.training
            assert not torch.is_grad_enabled()
            given.append((x, y))
            return (x - y).abs().mean().view(1, 1, 1, 1)

    install(monkeypatch, Network)
    video, reference = np.zeros(SHAPE), np.ones(SHAPE)
    video[0], video[:, 0, 0, 2] = 1, 0.5
    quality = measure_quality(video, reference, load_lpips())
    x, y = given[1]
    assert x.shape == (1, 3, 24, 32)
    assert (x[0, :, 5, 5].tolist(), x[0, :, 0, 0].tolist(), y.min()) == ([-1] * 3, [-1, -1, 0], 1)
    assert quality.lpips is not None
    assert quality.lpips[0] < 0.01 < 1.9 < quality.lpips[1] == quality.lpips[2]
    assert quality.mean_lpips == pytest.approx(sum(quality.lpips) / 3)
    assert quality.as_dict()["lpips"] == quality.mean_lpips


def test_without_its_weights_there_is_no_lpips_and_a_warning(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def unreachable(**_) -> None:
        raise OSError("no route to host")

    install(monkeypatch, unreachable)
    assert load_lpips() is None
    assert "no route to host" in caplog.text
