"""Calibration and kept level maps in diffusers: per layer, prompt and expert, for one run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from psa_core import Calibration, ConfigError, PSAConfig, Recipe
from psa_core.hosts import kept_choice

pytest.importorskip("diffusers", minversion="0.35")

from psa_core.hosts.diffusers import Handle, patch

from ...support.diffusers_models import Model, cogvideox_1_5, wan_model
from ...support.tensors import relative_error
from ...support.tiny_pipelines import HEADS, LAYERS, cogvideox_pipeline, wan_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

CONFIG = PSAConfig(mask_mode="calibrated", target_density=0.3, block_n=32, min_tokens=0, map_steps=3)
BY_ERROR = CONFIG.replace(target_error=0.1)
FIXED = PSAConfig(mask_mode="topk", block_n=32, min_tokens=0, map_steps=3)
# With and without the prompt one after another, and both together.
PIPELINES = {"wan": (wan_pipeline, 2), "cogvideox": (cogvideox_pipeline, 1)}

pipelines = pytest.mark.parametrize("name", PIPELINES)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The queries of the calls that chose recipes."""
    made: list[Any] = []

    def choose(trial: Any) -> Any:
        made.append(trial.q)
        return chosen(trial)

    chosen = kept_choice.choose_recipes
    monkeypatch.setattr(kept_choice, "choose_recipes", choose)
    return made


def sample(pipeline: Any, steps: int = 4, seed: int = 0, guidance: float = 3.0) -> torch.Tensor:
    return pipeline(
        prompt="a fox",
        height=128,
        width=128,
        num_frames=9,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    ).frames


def maps(handle: Handle) -> int:
    return len(handle._denoising.run._kept._maps.maps)


@pipelines
@pytest.mark.parametrize("config", [CONFIG, BY_ERROR, FIXED])
def test_the_same_seed_gives_the_same_run_and_a_report_of_it(name: str, config: PSAConfig, choices: list[Any]) -> None:
    make, passes = PIPELINES[name]
    pipeline = make()
    with patch(pipeline, config, backend="torch") as handle:
        first = sample(pipeline)
        assert maps(handle) == 0
        assert torch.equal(sample(pipeline), first)
    assert torch.isfinite(first).all()
    # The prompt and its negative share.
    assert len(choices) == (0 if config is FIXED else 2 * LAYERS)
    assert {len(q) for q in choices} <= {1}
    report = json.loads(json.dumps(handle.report.as_dict()))
    calls = passes * LAYERS
    assert report["map_ages"] == {"0": 2 * calls, "1": calls, "2": calls}
    if config is FIXED:
        assert "calibrated" not in report
        return
    calibrated = report["calibrated"]
    assert {layer: sum(counts.values()) for layer, counts in calibrated["recipes"].items()} == {"0": 2, "1": 2}
    assert [(x["step"], x["layer"]) for x in calibrated["measured_errors"]] == [(2, 0), (2, 1), (3, 0), (3, 1)]
    assert handle.report.line().startswith("PSA: error ")


@pipelines
def test_a_run_that_was_broken_off_leaves_nothing_to_the_next(name: str) -> None:
    def stop(*_: Any) -> None:
        if handle._denoising.position.step == 2:
            raise KeyboardInterrupt

    pipeline = PIPELINES[name][0]()
    with patch(pipeline, CONFIG, backend="torch"):
        expected = sample(pipeline)
    handle = patch(pipeline, CONFIG, backend="torch")
    hook = pipeline.transformer.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        sample(pipeline, seed=1)
    assert maps(handle) > 0
    hook.remove()
    assert torch.equal(sample(pipeline), expected)
    handle.restore()


def test_restoring_lets_go() -> None:
    pipeline = wan_pipeline()
    handle = patch(pipeline.transformer, CONFIG, backend="torch")
    sample(pipeline)
    assert maps(handle) > 0, "nobody knows that the run is over"
    handle.restore()
    assert maps(handle) == 0
    assert handle.report.calibrated


def test_another_patch_lets_go_of_what_the_older_kept() -> None:
    pipeline = wan_pipeline()
    older = patch(pipeline.transformer, CONFIG, backend="torch")
    sample(pipeline)
    patch(pipeline.transformer, CONFIG, backend="torch")
    assert maps(older) == 0


def test_one_prompt_has_one_choice(choices: list[Any]) -> None:
    pipeline = wan_pipeline()
    with patch(pipeline, CONFIG, backend="torch"):
        sample(pipeline, guidance=1.0)
    assert len(choices) == LAYERS


@pytest.mark.parametrize(("steps", "warmup"), [(4, 1), (8, 0), (8, 1)])
def test_few_steps_choose_in_the_first_sparse_one(steps: int, warmup: int) -> None:
    pipeline, seen = wan_pipeline(), []
    config = CONFIG.replace(warmup_steps=warmup)
    with patch(pipeline, config, backend="torch") as handle:
        give = handle.report.calibrated.give
        handle.report.calibrated.give = lambda *given: (seen.append(handle._denoising.position.step), give(*given))
        sample(pipeline, steps)
    assert seen[:LAYERS] == [warmup] * LAYERS


def two_experts() -> Any:
    """Of whose 4 steps each samples some."""
    return wan_pipeline(transformer_2=wan_pipeline().transformer, boundary_ratio=0.7)


def test_two_experts_choose_for_themselves(choices: list[Any]) -> None:
    pipeline = two_experts()
    with patch(pipeline, CONFIG.replace(map_steps=8), backend="torch") as handle:
        sample(pipeline)
        assert maps(handle) == 0
    assert len(choices) == 2 * LAYERS
    assert handle.report.map_ages()[0] == 2 * 2 * LAYERS
    # Of each in the last step that it has.
    assert [measured.step for measured in handle.report.calibrated.errors()] == [1] * LAYERS + [3] * LAYERS
    assert handle.report.as_dict()["calibrated"]["recipes"].keys() == {"0", "1"}


def test_two_experts_have_a_calibration_each(choices: list[Any], tmp_path: Path) -> None:
    pipeline = two_experts()
    with patch(pipeline, CONFIG, backend="torch") as handle:
        sample(pipeline, guidance=1.0)
    saved = {
        name: Calibration.load(calibration.save(tmp_path / f"{name}.yaml"))
        for name, calibration in handle.calibrations("A14B").items()
    }
    assert list(saved) == ["transformer", "transformer_2"]
    for name, calibration in saved.items():
        assert (calibration.model, calibration.grid) == ("A14B", (3, 8, 8)), name
    with pytest.raises(ConfigError, match=r"calibration = 'one': transformer and transformer_2 have one each: calibra"):
        handle.calibration()

    # Unlike what either has chosen.
    tail = Recipe(order="Columns", estimator="mean", mix="tail", density=0.3)
    given = {
        "transformer": saved["transformer"],
        "transformer_2": replace(saved["transformer_2"], recipes=dict.fromkeys(range(LAYERS), [tail] * HEADS)),
    }
    choices.clear()
    with patch(pipeline, CONFIG, backend="torch", calibration=given) as handle:
        sample(pipeline, guidance=1.0)
    assert not choices
    taken = handle.calibrations()
    assert taken["transformer"].recipes == saved["transformer"].recipes
    assert taken["transformer_2"].recipes == given["transformer_2"].recipes

    with patch(pipeline, CONFIG, backend="torch", calibration={"transformer_2": given["transformer_2"]}) as handle:
        sample(pipeline, guidance=1.0)
    assert len(choices) == LAYERS
    assert handle.calibrations()["transformer"].recipes == saved["transformer"].recipes


def test_one_transformer_has_one_calibration(choices: list[Any]) -> None:
    pipeline = wan_pipeline()
    with patch(pipeline, CONFIG, backend="torch") as handle:
        with pytest.raises(ConfigError, match="nothing was chosen in it"):
            handle.calibrations()
        expected = sample(pipeline, guidance=1.0)
    calibration = handle.calibration("Wan")
    assert handle.calibrations("Wan") == {"transformer": calibration}
    choices.clear()
    for given in (calibration, {"transformer": calibration}):
        with patch(pipeline, CONFIG, backend="torch", calibration=given):
            assert torch.equal(sample(pipeline, guidance=1.0), expected)
    assert not choices


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"target_error": 0.1}, {}, r"^transformer: target_error = 0\.1: the calibration was made for a density"),
    (
        {"mask_mode": "topk", "target_density": None},
        {},
        r"^transformer: mask_mode = 'topk': must be calibrated for a run",
    ),
    ({"block_n": 64}, {}, r"^transformer: block_n = 64: the calibration was made with 32"),
    ({}, {"heads": HEADS + 1}, rf"^transformer: heads = {HEADS}: .* it is of another model"),
    ({}, {"layers": LAYERS - 1}, rf"^transformer: layer = {LAYERS - 1}: .* none for this"),
]


@pytest.mark.parametrize(("changes", "made", "message"), REFUSED)
def test_a_calibration_that_does_not_fit_is_refused_before_sampling(
    changes: dict[str, Any], made: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        patch(wan_pipeline(), CONFIG.replace(**changes), calibration=by_hand(**made))


def test_dense_layers_need_no_recipes() -> None:
    config = CONFIG.replace(schedule={"dense_layers": [LAYERS - 1]})
    with patch(wan_pipeline(), config, calibration=by_hand(layers=LAYERS - 1)):
        pass


def test_a_calibration_of_no_transformer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^transformer: calibration = 'file.yaml': must be a Calibration"):
        patch(wan_pipeline(), CONFIG, calibration="file.yaml")
    with pytest.raises(ConfigError, match="config = 'auto_fast': must be a PSAConfig"):
        patch(wan_pipeline(), "auto_fast")
    with pytest.raises(ConfigError, match=r"calibration = 'transformer_2': there is no such .* here, but transformer$"):
        patch(wan_pipeline(), CONFIG, calibration={"transformer_2": by_hand()})
    with pytest.raises(
        ConfigError, match=r"= 'one': each .* its own: give \{'transformer': .*'transformer_2': \.\.\.\}"
    ):
        patch(two_experts(), CONFIG, calibration=by_hand())


def by_hand(layers: int = LAYERS, heads: int = HEADS) -> Calibration:
    recipe = Recipe(order="Raster", estimator="mean", mix="tail", density=0.3)
    return Calibration(
        block_m=CONFIG.block_m,
        block_n=CONFIG.block_n,
        recipes={layer: [recipe] * heads for layer in range(layers)},
        errors={layer: [0.1] * heads for layer in range(layers)},
        target_density=0.3,
    )


@pytest.mark.parametrize(("make", "config"), [(wan_model, CONFIG), (cogvideox_1_5, FIXED)])
def test_compiled_it_is_as_without(make: Callable[[], Model], config: PSAConfig, choices: list[Any]) -> None:
    model, timesteps = make(), (900, 900, 800, 800, 700, 700, 600, 600)
    with patch(model.transformer, config, backend="torch", steps=4) as handle:
        expected = [model(timestep) for timestep in timesteps]
        ages, chosen = handle.report.map_ages(), len(choices)
    torch._dynamo.reset()
    compiled = torch.compile(model.transformer, fullgraph=True, backend="aot_eager")
    with patch(model.transformer, config, backend="torch", steps=4) as handle:
        model.transformer, transformer = compiled, model.transformer
        outputs = [model(timestep) for timestep in timesteps]
        model.transformer = transformer
        assert maps(handle) == 0
    torch._dynamo.reset()
    assert all(relative_error(x, y) < 1e-5 for x, y in zip(outputs, expected, strict=True))
    assert ages == handle.report.map_ages() == {0: 8, 1: 4, 2: 4}
    assert len(choices) == 2 * chosen == (0 if config is FIXED else 2 * LAYERS)
