"""Schedules and radial masks through the diffusers host: steps, layers and frames are those of the pipeline."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from psa_core import ConfigError, PSAConfig, RadialMask, Schedule, radial_levels

pytest.importorskip("diffusers", minversion="0.35")

from psa_core.hosts.diffusers import Handle, patch

from ...support.diffusers_models import LAYERS, TEXT, Model, cogvideox_1_0, cogvideox_1_5, wan_model
from ...support.tensors import relative_error

SPARSE = PSAConfig(block_n=32, mask_ratios={1: (0, 0.3), 0: (0.3, 1)}, mask_mode="topk", min_tokens=0)
END = {1: (0, 0.1), 0: (0.1, 1)}
TIMESTEPS = (900, 700, 500, 300)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def pipeline_of(*models: Model, timesteps: Any = TIMESTEPS) -> Any:
    """What the host reads of a pipeline."""
    scheduler = SimpleNamespace(timesteps=torch.tensor(timesteps, dtype=torch.float32))
    names = ("transformer", "transformer_2")
    return SimpleNamespace(scheduler=scheduler, **{n: m.transformer for n, m in zip(names, models, strict=False)})


def sampled(model: Model, config: PSAConfig, timesteps: Any = TIMESTEPS, **options: Any) -> Handle:
    with patch(pipeline_of(model, timesteps=timesteps), config, backend="torch", **options) as handle:
        for timestep in timesteps:
            model(timestep)
    return handle


def sparse_steps(handle: Handle) -> list[int]:
    return sorted({call.step for call in handle.report.sparse_calls()})


@pytest.mark.parametrize("make", [wan_model, cogvideox_1_0])
def test_shares_and_last_steps_are_those_of_the_pipelines_scheduler(make: Any) -> None:
    handle = sampled(make(), SPARSE.replace(schedule=Schedule(warmup="25%", last_dense=1)))
    assert handle.report.dense_reasons == {"warm-up": LAYERS, "last steps": LAYERS}
    assert sparse_steps(handle) == [1, 2]


@pytest.mark.parametrize(("timesteps", "dense"), [(TIMESTEPS, 2), ((900, 100), 1), ((900, 700, 500, 300, 100), 3)])
def test_a_warmup_in_shares_is_of_the_steps_of_the_run(timesteps: Any, dense: int) -> None:
    handle = sampled(wan_model(), SPARSE.replace(warmup_steps="50%"), timesteps)
    assert handle.report.dense_reasons == {"warm-up": dense * LAYERS}
    masked = SPARSE.replace(radial=RadialMask(mode="intersect", dense_timesteps="50%"))
    assert sampled(wan_model(), masked, timesteps).report.dense_reasons == {"warm-up": dense * LAYERS}


def test_what_is_odd_for_the_number_of_steps_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    model = wan_model()
    with patch(pipeline_of(model), SPARSE.replace(warmup_steps=3), backend="torch"):
        for timestep in 2 * TIMESTEPS:
            model(timestep)
    said = "PSA: 1 of 4 steps run sparse (3 dense at the start); a warm-up of 30% would take 2"
    assert caplog.messages.count(said) == 1


def test_sparse_and_dense_calls_are_measured() -> None:
    report = sampled(wan_model(), SPARSE.replace(schedule=Schedule(warmup=1, last_dense=1, dense_layers=(1,)))).report
    seconds = report.seconds()
    assert seconds.sparse > 0
    assert set(seconds.dense) == {"warm-up", "last steps", "dense layer"}
    assert all(took > 0 for took in seconds.dense.values())
    assert (report.steps, report.layers) == (set(range(len(TIMESTEPS))), set(range(LAYERS)))


def test_the_schedulers_timesteps_are_read_when_the_run_begins() -> None:
    model = wan_model()
    pipeline = pipeline_of(model, timesteps=(1, 0))
    config = SPARSE.replace(schedule=Schedule(last_dense=1))
    with patch(pipeline, config, backend="torch") as handle:
        for timesteps in (TIMESTEPS, (800, 100)):
            pipeline.scheduler = SimpleNamespace(timesteps=torch.tensor(timesteps))
            for timestep in timesteps:
                model(timestep)
            assert handle.report.dense_reasons == {"last steps": LAYERS}
            assert sparse_steps(handle) == list(range(len(timesteps) - 1))


def test_a_loop_that_goes_over_the_same_timesteps_again_is_another_run() -> None:
    model = wan_model()
    with patch(pipeline_of(model), SPARSE.replace(warmup_steps=3), backend="torch") as handle:
        for _ in range(2):
            for timestep in TIMESTEPS:
                model(timestep)
            assert handle.report.dense_reasons == {"warm-up": 3 * LAYERS}
            assert sparse_steps(handle) == [3]


def test_a_run_from_a_video_begins_part_way() -> None:
    model = wan_model()
    with patch(pipeline_of(model), SPARSE.replace(warmup_steps=3), backend="torch") as handle:
        for timestep in TIMESTEPS[2:]:
            model(timestep)
    assert handle.report.dense_reasons == {"warm-up": LAYERS}
    assert sparse_steps(handle) == [3]


def test_two_experts_share_the_schedule() -> None:
    high, low = wan_model(), wan_model()
    config = SPARSE.replace(schedule=Schedule(warmup="50%", last_dense="25%"))
    with patch(pipeline_of(high, low), config, backend="torch") as handle:
        for model, timestep in zip((high, low, low, low), TIMESTEPS, strict=True):
            model(timestep)
    assert handle.report.dense_reasons == {"warm-up": 2 * LAYERS, "last steps": LAYERS}
    assert sparse_steps(handle) == [2]


def test_a_bare_transformer_is_told_the_number_of_steps() -> None:
    model = wan_model()
    config = SPARSE.replace(schedule=Schedule(last_dense=1))
    with pytest.raises(ConfigError, match="steps = None: must be given"):
        patch(model.transformer, config)
    with patch(model.transformer, config, backend="torch", steps=3) as handle:
        for timestep in TIMESTEPS[:3]:
            model(timestep)
    assert handle.report.dense_reasons == {"last steps": LAYERS}
    patch(model.transformer, SPARSE.replace(schedule=Schedule(warmup=1)), backend="torch").restore()


def test_a_window_is_a_share_of_the_steps_done() -> None:
    window = Schedule(start_percent=0.25, end_percent=0.75)
    handle = sampled(wan_model(), SPARSE.replace(mask_mode="calibrated", schedule=window))
    assert handle.report.dense_reasons == {"outside the schedule's window": 2 * LAYERS}
    assert sparse_steps(handle) == [1, 2]
    # The last that runs sparse, wherever it is.
    assert {measured.step for measured in handle.report.calibrated.errors()} == {2}


def test_a_schedule_says_which_steps_a_bare_transformer_runs() -> None:
    model = wan_model()
    config = SPARSE.replace(schedule=Schedule(warmup=3, last_dense="10%", steps=10, start_step=2))
    with patch(model.transformer, config, backend="torch") as handle:
        for _ in range(2):
            for timestep in TIMESTEPS:
                model(timestep)
            assert handle.report.dense_reasons == {"warm-up": LAYERS}
            assert sparse_steps(handle) == [3, 4, 5]


def test_dense_layers() -> None:
    handle = sampled(cogvideox_1_0(), SPARSE.replace(schedule=Schedule(dense_layers=(0,))))
    assert handle.report.dense_reasons == {"dense layer": len(TIMESTEPS)}
    assert {call.layer for call in handle.report.sparse_calls()} == {1}


def test_mask_ratios_move_over_the_steps() -> None:
    handle = sampled(wan_model(), SPARSE.replace(schedule=Schedule(curve="linear", end=END)))
    by_step = {call.step: call.density for call in handle.report.sparse_calls()}
    # 315 tokens are 10 blocks of 32, the last of 27.
    assert [by_step[step] for step in range(4)] == pytest.approx([0.3, 0.3, 0.2, 0.1])


def test_one_level_a_step() -> None:
    ratios = {1: (0, 0.5), 4: (0.5, 0.75), 0: (0.75, 1)}
    handle = sampled(wan_model(), SPARSE.replace(mask_ratios=ratios, mask_mode="timestep"))
    by_step = {call.step: call.density for call in handle.report.sparse_calls()}
    # A step without any level keeps one block a row.
    assert handle.report.dense_reasons == {"full-resolution step": 2 * LAYERS}
    assert [by_step[step] for step in (2, 3)] == pytest.approx([0.25, 0.1])


class TestRadial:
    @pytest.mark.parametrize(("make", "rule"), [(wan_model, "wan"), (cogvideox_1_0, "cogvideox")])
    def test_the_parameters_of_radial_attention(self, make: Any, rule: str) -> None:
        model = make()
        dense = model()
        mask = RadialMask(dense_layers=1, dense_timesteps=2, decay_factor=0.2, block_size=8)
        config = SPARSE.replace(radial=mask, warmup_steps=15, block_m=64)
        with patch(pipeline_of(model), config, backend="torch", keep_levels=True) as handle:
            assert torch.equal(model(999), dense)
            for timestep in TIMESTEPS[1:]:
                out = model(timestep)
        assert handle.report.dense_reasons == {"warm-up": 2 * LAYERS, "dense layer": 2}
        assert sorted(handle.report.level_maps) == [(2, 1), (3, 1)]
        text = TEXT if rule == "cogvideox" else 0
        expected = radial_levels(
            (5, 9, 7), block_m=64, block_n=32, model_type=rule, decay_factor=0.2, block_size=8, text_length=text
        )
        assert (expected == 0).any()
        assert torch.equal(handle.report.level_maps[2, 1], expected.expand(2, 2, -1, -1))
        assert relative_error(out, model(TIMESTEPS[3])) > 1e-4

    def test_dense_switches_it_off(self) -> None:
        model = cogvideox_1_0()
        dense = model(900)
        with patch(model.transformer, SPARSE.replace(radial=RadialMask(sparsity_type="dense")), backend="torch"):
            assert relative_error(model(900), dense) < 1e-4

    def test_scenes_are_counted_in_video_frames(self) -> None:
        mask = RadialMask(sparsity_type="dense", scene_boundaries="0, 9, 17", scene_adjacency="own")
        model = wan_model()
        with patch(model.transformer, SPARSE.replace(radial=mask), backend="torch", keep_levels=True) as handle:
            model()
        # Latent frames 0 to 2 hold video frames 0 to 8; a frame has 63 tokens.
        levels = handle.report.level_maps[0, 0][0, 0]
        assert (levels[2, : 2 * 63 // 32] == 0).all()
        assert (levels[0, -(-3 * 63 // 32) :] == 0).all()
        assert (levels[1] == 1).all()

    def test_scenes_of_another_clip_are_refused_at_the_first_forward_pass(self) -> None:
        for model, message in ((wan_model(), "must be 14 to 17"), (cogvideox_1_5(), "two latent frames each")):
            mask = RadialMask(scene_boundaries="0, 99")
            with (
                patch(model.transformer, SPARSE.replace(radial=mask), backend="torch"),
                pytest.raises(ConfigError, match=f"scene_boundaries = .*99 lies beyond the end.*{message}"),
            ):
                model()
