"""Recipes measured once, kept in a file and given to later calls, which measure nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from psa_core import Calibration, ConfigError, PSAConfig, RadialMask, Recipe, calibrate, pyramid_sparse_attention
from psa_core.attention import steps
from psa_core.attention.calibrate import given_choice
from psa_core.attention.recipes import Choice

from ..support.tensors import Shape, random_levels, random_qkv
from .test_calibrated import CONFIG, SMALL, TINY, VIDEO, calibrated, check_heads_alone, chosen
from .test_trial import GRID, RADIAL, TEXT, tensors


class TestCalibration:
    @pytest.mark.parametrize("target", ["target_density", "target_error"])
    @pytest.mark.parametrize("changes", [{}, {"radial": RADIAL.replace(mode="intersect")}], ids=["reordered", "masked"])
    def test_measured_saved_loaded_and_given_is_the_call_that_measures(
        self, changes: dict[str, Any], target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config, qkv = CONFIG.replace(**{target: 0.35}, **changes), tuple(x[:1] for x in tensors(SMALL))
        out, info = calibrated(qkv, config, **VIDEO)
        calibration = calibrate(*qkv, config, **VIDEO, layer=3, model="a model")
        loaded = Calibration.load(calibration.save(tmp_path / "calibration.yaml"))
        assert loaded == calibration
        assert (loaded.model, loaded.grid, loaded.text_length) == ("a model", GRID, TEXT)
        assert (loaded.target_density, loaded.target_error) == (config.target_density, config.target_error)
        choice = chosen(info)
        assert list(loaded.recipes[3]) == [choice.recipes[number] for number in choice.of_head[0]]
        assert loaded.errors[3] == pytest.approx(choice.errors[0].tolist())

        monkeypatch.setattr(steps, "choose_recipes", _nothing_is_measured)
        given, given_info = calibrated(qkv, config, **VIDEO, calibration=loaded)
        assert torch.equal(given, out)
        assert torch.equal(given_info.levels, info.levels)

        torch._dynamo.reset()
        compiled = torch.compile(pyramid_sparse_attention, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(*qkv, config, **VIDEO, calibration=loaded), out)
        monkeypatch.undo()
        assert torch.equal(compiled(*qkv, config, **VIDEO), out)
        torch._dynamo.reset()

    def test_each_batch_entry_takes_what_is_given(self) -> None:
        qkv = tensors(SMALL)
        calibration = calibrate(*(x[:1] for x in qkv), CONFIG, **VIDEO)
        out, info = calibrated(qkv, CONFIG, **VIDEO, calibration=calibration)
        check_heads_alone(qkv, SMALL, out, info.levels, chosen(info), CONFIG, **VIDEO)

    def test_the_largest_error_of_batch_entries_decides(self) -> None:
        qkv = tensors(SMALL)
        choice = chosen(calibrated(qkv, CONFIG, **VIDEO)[1])
        calibration = calibrate(*qkv, CONFIG, **VIDEO)
        worst = choice.errors.argmax(0)
        assert list(calibration.recipes[0]) == [choice.recipes[choice.of_head[b, h]] for h, b in enumerate(worst)]
        assert calibration.errors[0] == pytest.approx(choice.errors.amax(0).tolist())

    def test_another_density_takes_the_place_of_its_own(self) -> None:
        qkv = tensors(SMALL)
        calibration = calibrate(*qkv, CONFIG, **VIDEO)
        denser = CONFIG.replace(target_density=0.5)
        out, info = calibrated(qkv, denser, **VIDEO, calibration=calibration)
        assert {recipe.density for recipe in chosen(info).recipes} == {0.5}
        check_heads_alone(qkv, SMALL, out, info.levels, chosen(info), denser, **VIDEO)

    @pytest.mark.parametrize(
        ("made", "aim"),
        [({"target_error": 0.3}, {}), ({"target_error": 0.3}, {"target_error": 0.2}), ({}, {"target_error": 0.3})],
    )
    def test_recipes_for_an_error_do_for_no_other_aim(self, made: dict, aim: dict) -> None:
        qkv = tensors(SMALL)
        calibration = calibrate(*qkv, CONFIG.replace(**made), **VIDEO)
        with pytest.raises(ConfigError, match=r"target_error = .*: the calibration was made for"):
            calibrated(qkv, CONFIG.replace(**aim), **VIDEO, calibration=calibration)

    def test_defaults(self) -> None:
        qkv = random_qkv(Shape(1, 2, 300, 300))
        assert calibrate(*qkv) == calibrate(*qkv, PSAConfig(mask_mode="calibrated", target_density=0.15))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"config": PSAConfig()}, "mask_mode = 'thresholdbound': must be calibrated"),
            ({"config": CONFIG.replace(radial=RadialMask()), **VIDEO}, "radial.mode = 'radial only': leaves nothing"),
            ({"config": CONFIG.replace(radial=RADIAL.replace(mode="coarsen")), **VIDEO}, "radial.mode = 'coarsen'"),
            ({"config": CONFIG.replace(radial=RADIAL.replace(mode="intersect"))}, "grid = None: a radial mask needs"),
            ({"grid": (2, 2, 2)}, "must make 777 tokens"),
            ({"text_length": 778}, "text_length = 778: must be a whole number between 0 and 777"),
            ({"static_levels": random_levels(TINY)}, "static_levels = .*must be uint8"),
            ({"layer": -1}, "layer = -1"),
            ({"model": 1}, "model = 1: must be a text"),
            ({"backend": "cuda"}, "backend = 'cuda'"),
        ],
    )
    def test_what_cannot_be_measured_is_refused(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            calibrate(*tensors(SMALL), **{"config": CONFIG, **arguments})

    @pytest.mark.parametrize(
        ("config", "calibration", "message"),
        [
            (PSAConfig(), {}, "mask_mode = 'thresholdbound': must be calibrated"),
            (CONFIG, {"layers": 2}, "calibration = '2 layers': .*calibration.layer"),
            (CONFIG, {"heads": 3}, "heads = 2: the calibration has recipes for 3"),
            (CONFIG, {"block_n": 64}, "block_n = 32: the calibration was made with 64"),
            (CONFIG, {"block_m": 128}, "block_m = 64: the calibration was made with 128"),
            (CONFIG, {"order": "Tile"}, "grid = None: the calibration has heads in order Tile"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, config: PSAConfig, calibration: dict[str, Any], message: str) -> None:
        given = _calibration(**calibration)
        compiled = torch.compile(pyramid_sparse_attention, backend="aot_eager")
        for attempt in (pyramid_sparse_attention, compiled):
            with pytest.raises(ConfigError, match=message):
                attempt(*tensors(SMALL), config, calibration=given)

    def test_numbers_are_on_the_device_once(self) -> None:
        q = tensors(SMALL)[0]
        first, second = (given_choice(_calibration(), q, CONFIG) for _ in range(2))
        assert first.of_head is second.of_head


def _calibration(
    layers: int = 1, heads: int = 2, block_m: int = 64, block_n: int = 32, order: str = "Raster"
) -> Calibration:
    recipe = Recipe(order=order, estimator="sampled_max", mix="tail", density=0.2)
    return Calibration(
        block_m=block_m,
        block_n=block_n,
        recipes={layer: [recipe] * heads for layer in range(layers)},
        errors={layer: [0.1] * heads for layer in range(layers)},
    )


def _nothing_is_measured(trial: Any) -> Choice:
    raise AssertionError("measured in spite of a calibration")
