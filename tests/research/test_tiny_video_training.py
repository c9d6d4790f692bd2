"""Training of the tiny video model: its parts against plain ones, and all of it for a few steps on a CPU."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("skimage")
pytest.importorskip("matplotlib")

from diffusers import AutoencoderKLWan

from psa_core.models.tiny_video import files, model
from psa_core.models.tiny_video.vocabulary import Words, embed, indices
from research.tiny_video import clips
from research.tiny_video.architecture import new_autoencoder, new_transformer
from research.tiny_video.training import __main__ as training
from research.tiny_video.training import autoencoder, latents, samples, transformer, whole_clip
from research.tiny_video.training.export import export_autoencoder, export_transformer
from research.tiny_video.training.muon import Muon, orthogonal
from research.tiny_video.training.optimizer import Optimizer
from research.tiny_video.training.scale import normalised, restored, to_wan_scale


@pytest.fixture(autouse=True)
def _seeded():
    # Compiling takes longer than all else here; torch before 2.6 does it all the same.
    eager = getattr(torch.compiler, "set_stance", lambda _: nullcontext())
    with torch.random.fork_rng(), eager("force_eager"):
        torch.manual_seed(0)
        yield


def error(x: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((x - wanted).norm() / wanted.norm())


@pytest.fixture(name="small", scope="module")
def make_small():
    """An autoencoder of random weights, biases and norms among them."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        network = AutoencoderKLWan(base_dim=4).eval()
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 5, 13])
def test_whole_clips_are_as_diffusers_has_them_part_by_part(small, frames: int) -> None:
    clip = torch.rand(2, 3, frames, 32, 48) * 2 - 1
    wanted = small.encode(clip).latent_dist
    mean, log_variance = whole_clip.encode(small, clip)
    assert error(mean, wanted.mean) < 1e-5
    assert error(log_variance, wanted.logvar) < 1e-5
    again = whole_clip.decode(small, mean)
    assert error(again.clamp(-1, 1), small.decode(mean).sample) < 1e-5


@torch.no_grad()
def test_scaling_latents_changes_nothing_that_is_shown() -> None:
    network = AutoencoderKLWan(base_dim=4).eval()
    clip = torch.rand(2, 3, 5, 32, 32) * 2 - 1
    posterior = network.encode(clip).latent_dist
    shown = network.decode(posterior.mean).sample
    to_wan_scale(network, posterior.mean)
    after = network.encode(clip).latent_dist
    assert error(network.decode(after.mean).sample, shown) < 1e-4
    normal = normalised(network, after.mean)
    assert normal.mean((0, 2, 3, 4)).abs().max() < 1e-3
    assert (normal.std((0, 2, 3, 4)) - 1).abs().max() < 1e-2
    assert error(restored(network, normal), after.mean) < 1e-5
    # What was a deviation from the mean is the same one on the new scale.
    factor = after.mean.std((0, 2, 3, 4)) / posterior.mean.std((0, 2, 3, 4))
    wanted = posterior.std * factor.view(1, -1, 1, 1, 1)
    assert error(after.std, wanted) < 1e-3


def test_exported_weights_load_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    wanted = new_transformer().state_dict(), new_autoencoder().state_dict()
    export_transformer(wanted[0], tmp_path / files.TRANSFORMER.name)
    export_autoencoder(wanted[1], tmp_path / files.AUTOENCODER.name)
    found = model.load_transformer(folder=tmp_path).state_dict(), model.load_autoencoder(tmp_path).state_dict()
    for weights, again, precision in zip(wanted, found, (torch.bfloat16, torch.float16), strict=True):
        assert weights.keys() == again.keys()
        for name, x in weights.items():
            assert torch.equal(again[name], x.to(precision).float()), name


@pytest.mark.parametrize("shape", [(1, 4, 40), (3, 8, 14), (2, 50, 6)])
def test_updates_are_nearly_orthogonal(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonal(matrices)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert error(found, left @ right) < 0.35


def test_muon_walks_down_and_treats_shapes_alike() -> None:
    parameters = [torch.nn.Parameter(torch.randn(6, 4, 3, 3)) for _ in range(2)]
    targets = [torch.randn(6, 4, 3, 3) for _ in range(2)]
    optimizer = Muon(parameters, 0.05)

    def loss() -> torch.Tensor:
        return sum((x - y).square().sum() for x, y in zip(parameters, targets, strict=True))  # type: ignore[return-value]

    before = float(loss().detach())
    for _ in range(150):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert float(loss().detach()) < before / 5


def test_learning_rates_rise_and_fall_to_zero() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 1))
    optimizer = Optimizer(network, lambda name, _: name == "0.weight", rates=(0.01, 0.02), steps=400, falling=0.5)
    rates = []
    for _ in range(400):
        rates.append([group["lr"] for part in optimizer._optimizers for group in part.param_groups])
        optimizer.step(network(torch.randn(4, 3)).square().mean())
    peak = max(rates)
    assert peak == [0.01, 0.02]
    assert rates[0][0] < 0.001
    assert rates[-1][0] < 0.001
    assert rates[150] == peak


def test_embeddings_of_numbers_are_those_of_words() -> None:
    words = Words("red", "star", ground="navy")
    assert torch.equal(transformer.embeddings(torch.tensor([indices(words)]))[0], embed(words))


def test_every_colour_and_shape_is_scored_once_a_round() -> None:
    words = samples.scored_words(2)
    assert len(words) == 64
    assert len({(x.colour, x.shape) for x in words}) == 32
    assert {x.motion for x in words} == {"still", "left", "right", "up", "down", "turning"}


def test_training_from_nothing_and_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A few steps at a size that a CPU can do: both networks are written, and the second run goes on from the first."""
    for module, name, value in (
        (autoencoder, "STAGES", (autoencoder.Stage(0.5, 2, 1), autoencoder.Stage(0.5, 1, 5))),
        (autoencoder, "_CROP", 32),
        (autoencoder, "HEIGHT", 64),
        (autoencoder, "WIDTH", 96),
        (clips, "FRAMES", 5),
        (clips, "HEIGHT", 64),
        (clips, "WIDTH", 96),
        (latents, "_AT_ONCE", 1),
        (transformer, "STAGES", (transformer.Stage(0.5, 2, 1), transformer.Stage(0.5, 1, 2))),
        (training, "_JUDGED", 1),
        (samples, "_LATENT", (16, 2, 8, 12)),
        (samples, "_STEPS", 2),
        (samples, "_AT_ONCE", 2),
        (training, "scored_words", lambda rounds: [Words("red", "circle")] * rounds),
    ):
        monkeypatch.setattr(module, name, value)
    drawn: list[int] = []
    draw = latents.Bank.draw

    def recorded(bank: latents.Bank, count: int, frames: int, generator: torch.Generator):
        drawn.append(frames)
        return draw(bank, count, frames, generator)

    monkeypatch.setattr(latents.Bank, "draw", recorded)
    shared = ["--transformer-steps", "2", "--clips", "3", "--measured", "2", "--rounds", "2"]
    training.main(["--output", str(tmp_path / "first"), "--autoencoder-steps", "2", *shared])
    assert drawn == [1, 2]
    drawn.clear()
    training.main(["--output", str(tmp_path / "on"), "--go-on-from", str(tmp_path / "first"), *shared])
    assert drawn == [2, 2]
    first, on = (json.loads((tmp_path / name / "training.json").read_text()) for name in ("first", "on"))
    assert [len(first["losses"][name]) for name in ("autoencoder", "transformer")] == [2, 2]
    assert list(on["losses"]) == ["transformer"]
    assert set(first["score"]) == {"colour", "shape", "colour and shape", "motion"}
    assert len(first["autoencoder_psnr"]) == 1
    for name in ("first", "on"):
        assert (tmp_path / name / "loss.png").stat().st_size > 1000
    old, new = (model.load_transformer(folder=tmp_path / name).state_dict() for name in ("first", "on"))
    name = "blocks.0.attn1.to_q.weight"
    # Learning rates have only begun to rise.
    assert 0 < error(new[name], old[name]) < 0.3
    same = (model.load_autoencoder(tmp_path / name).decoder.conv_in.weight for name in ("first", "on"))
    assert torch.equal(*same)
