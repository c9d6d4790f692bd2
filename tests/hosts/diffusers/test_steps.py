"""Steps in diffusers' own pipelines: those that the user asks for and the progress bar shows, with every scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import PIL.Image
import pytest
import torch

from psa_core import PSAConfig, Schedule

pytest.importorskip("diffusers", minversion="0.35")

import diffusers

from psa_core.hosts.diffusers import Handle, patch
from psa_core.hosts.diffusers.steps import SchedulerSteps

from ...support.tiny_pipelines import LAYERS, cogvideox_pipeline, wan_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

WARM_UP, LAST = 2, 1
CONFIG = PSAConfig(
    block_n=32,
    mask_ratios={1: (0, 0.3), 0: (0.3, 1)},
    mask_mode="topk",
    min_tokens=0,
    schedule=Schedule(warmup=WARM_UP, last_dense=LAST),
)
EVERY_STEP = CONFIG.replace(schedule=None, warmup_steps=0)
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
SECOND_ORDER = (
    "DPMSolverSDEScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
)
FOR_WAN = (
    *SECOND_ORDER,
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMapEulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "LMSDiscreteScheduler",
    "LTXEulerAncestralRFScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)
FOR_COGVIDEOX = (
    *(name for name in FOR_WAN if not name.startswith(("Flow", "LTX"))),
    "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler",
    "DDIMScheduler",
    "DDPMScheduler",
    "IPNDMScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "TCDScheduler",
)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def scheduler_of(name: str, **settings: Any) -> Any:
    """A scheduler by name, with as much of the settings as it has."""
    kind = getattr(diffusers, name, None)
    if kind is None:
        pytest.skip(f"this diffusers has no {name}")
    if name == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde")
    known = inspect.signature(kind.__init__).parameters
    # Numbers are all that matters here, so a scheduler of noise levels that are not Wan's will do.
    settings = settings if settings.keys() <= known.keys() else {}
    return kind(**settings)


class Bar:
    """In place of a pipeline's progress bar."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self) -> None:
        self.done += 1


class Watched:
    """A pipeline, the step of its progress bar at every forward pass of its latest run, and the inputs of the last."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline, self.bar = pipeline, Bar(0)
        self.seen: list[int] = []
        self.inputs: dict[str, Any] = {}
        pipeline.progress_bar = self._progress_bar
        for name in ("transformer", "transformer_2"):
            if getattr(pipeline, name, None) is not None:
                getattr(pipeline, name).register_forward_pre_hook(self._see, with_kwargs=True)

    def run(self, steps: int, **call: Any) -> None:
        self.seen.clear()
        size = {} if "video" in call else {"num_frames": 9}
        self.pipeline(prompt="a", height=32, width=32, num_inference_steps=steps, output_type="latent", **size, **call)

    def _see(self, transformer: Any, args: Any, inputs: dict[str, Any]) -> None:
        self.seen.append(self.bar.done)
        self.inputs = inputs

    def _progress_bar(self, iterable: Any = None, total: int = 0) -> Bar:
        self.bar = Bar(total)
        return self.bar


def check(handle: Handle, seen: list[int], steps: int) -> None:
    """See that the host has counted steps as they were seen, and knows how many there are."""
    sparse = [step for step in seen if WARM_UP <= step < steps - LAST]
    assert sparse
    assert [call.step for call in handle.report.sparse_calls()] == [step for step in sparse for _ in range(LAYERS)]
    assert handle.report.dense_reasons == {
        "warm-up": LAYERS * sum(step < WARM_UP for step in seen),
        "last steps": LAYERS * sum(step >= steps - LAST for step in seen),
    }


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", FOR_WAN)
def test_wan(name: str, guidance: float) -> None:
    watched = Watched(wan_pipeline(scheduler=scheduler_of(name, **FLOW)))
    with patch(watched.pipeline, CONFIG, backend="torch") as handle:
        watched.run(6, guidance_scale=guidance)
    calls = 11 if name in SECOND_ORDER else 6
    assert len(watched.seen) == (calls if guidance == 1.0 else 2 * calls)
    check(handle, watched.seen, 6)


@pytest.mark.parametrize("name", FOR_COGVIDEOX)
def test_cogvideox(name: str) -> None:
    watched = Watched(cogvideox_pipeline())
    settings = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    watched.pipeline.scheduler = scheduler_of(name, prediction_type="v_prediction", **settings)
    with patch(watched.pipeline, CONFIG, backend="torch") as handle:
        watched.run(6)
    assert len(watched.seen) == {"PNDMScheduler": 7}.get(name, 11 if name in SECOND_ORDER else 6)
    check(handle, watched.seen, 6)


def test_no_scheduler_of_second_order_is_left_out() -> None:
    kinds = {name: getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Scheduler")}
    found = {name for name, kind in kinds.items() if inspect.getattr_static(kind, "order", 1) != 1}
    # Karras' works with a pipeline of its own alone.
    assert found - {"KarrasVeScheduler"} <= set(SECOND_ORDER)


@pytest.mark.skipif(diffusers.__version__.startswith("0.35."), reason="its pipeline begins at the second such step")
def test_steps_whose_timesteps_are_rounded_to_the_same_number() -> None:
    scheduler = scheduler_of("UniPCMultistepScheduler", **FLOW, flow_shift=1000.0)
    watched = Watched(wan_pipeline(scheduler=scheduler))
    with patch(watched.pipeline, CONFIG, backend="torch") as handle:
        watched.run(6)
    assert len(set(scheduler.timesteps.tolist())) < 6
    check(handle, watched.seen, 6)


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
def test_two_experts_count_on(name: str) -> None:
    pipeline = wan_pipeline(scheduler=scheduler_of(name), transformer_2=wan_pipeline().transformer, boundary_ratio=0.5)
    experts = pipeline.transformer, pipeline.transformer_2
    watched, calls = Watched(pipeline), []
    for expert in experts:
        expert.register_forward_pre_hook(lambda module, _: calls.append(module))
    with patch(pipeline, CONFIG, backend="torch") as handle:
        watched.run(6)
    assert set(calls) == set(experts)
    check(handle, watched.seen, 6)


class Kind(NamedTuple):
    """A pipeline beside those that make videos of text alone.

    Attributes:
        pipeline: its class.
        make: the pipeline that has its components.
        channels: that its transformer takes in; None for those that it gives.
        inputs: beside the prompt.
    """

    pipeline: str
    make: Callable[..., Any]
    channels: int | None
    inputs: dict[str, Any]


PICTURE = PIL.Image.new("RGB", (32, 32), (200, 60, 20))
OTHERS = {
    "wan_image": Kind("WanImageToVideoPipeline", wan_pipeline, 12, {"image": PICTURE}),
    "wan_5b_image": Kind("WanImageToVideoPipeline", wan_pipeline, None, {"image": PICTURE}),
    "cogvideox_image": Kind("CogVideoXImageToVideoPipeline", cogvideox_pipeline, 8, {"image": PICTURE}),
    "wan_video": Kind("WanVideoToVideoPipeline", wan_pipeline, None, {"video": [PICTURE] * 9}),
    "cogvideox_video": Kind("CogVideoXVideoToVideoPipeline", cogvideox_pipeline, None, {"video": [PICTURE] * 9}),
}


def other(name: str, **changes: Any) -> Watched:
    """One of the others, but for these components and settings."""
    kind = OTHERS[name]
    components = {key: value for key, value in kind.make().components.items() if value is not None} | changes
    if kind.channels is not None:
        transformer = components["transformer"]
        components["transformer"] = type(transformer).from_config(transformer.config, in_channels=kind.channels).eval()
    return Watched(getattr(diffusers, kind.pipeline)(**components))


@pytest.mark.parametrize("name", ["wan_image", "cogvideox_image"])
def test_from_a_picture(name: str) -> None:
    watched = other(name)
    with patch(watched.pipeline, CONFIG, backend="torch") as handle:
        watched.run(6, **OTHERS[name].inputs)
    check(handle, watched.seen, 6)


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("wan_video", "UniPCMultistepScheduler"),
        ("wan_video", "HeunDiscreteScheduler"),
        ("cogvideox_video", "CogVideoXDDIMScheduler"),
        ("cogvideox_video", "KDPM2DiscreteScheduler"),
    ],
)
def test_from_a_video_denoising_begins_part_way(name: str, scheduler: str) -> None:
    settings = FLOW if name == "wan_video" else {"prediction_type": "v_prediction"}
    watched = other(name, scheduler=scheduler_of(scheduler, **settings))
    with patch(watched.pipeline, EVERY_STEP, backend="torch") as handle:
        watched.run(8, strength=0.5, **OTHERS[name].inputs)
    assert set(watched.seen) == {0, 1, 2, 3}
    expected = [4 + step for step in watched.seen for _ in range(LAYERS)]
    assert [call.step for call in handle.report.sparse_calls()] == expected


def test_a_timestep_for_every_token() -> None:
    watched = Watched(wan_pipeline(expand_timesteps=True))
    with patch(watched.pipeline, CONFIG, backend="torch") as handle:
        watched.run(6)
    check(handle, watched.seen, 6)


def test_a_timestep_for_every_token_and_0_where_the_picture_is() -> None:
    watched = other("wan_5b_image", expand_timesteps=True)
    with patch(watched.pipeline, CONFIG, backend="torch") as handle:
        watched.run(6, **OTHERS["wan_5b_image"].inputs)
    check(handle, watched.seen, 6)


both = pytest.mark.parametrize("make", [wan_pipeline, cogvideox_pipeline])


@both
def test_every_run_has_a_report_of_its_own(make: Callable[[], Any]) -> None:
    watched = Watched(make())
    with patch(watched.pipeline, CONFIG, backend="torch") as handle:
        reports = []
        for steps in (6, 4, 9):
            watched.run(steps)
            check(handle, watched.seen, steps)
            reports.append(handle.report)
        assert len({id(report) for report in reports}) == 3


@both
def test_runs_of_one_step(make: Callable[[], Any]) -> None:
    watched = Watched(make())
    with patch(watched.pipeline, EVERY_STEP, backend="torch") as handle:
        for _ in range(2):
            watched.run(1)
            assert handle.report.sparse_count == LAYERS * len(watched.seen)


@both
@pytest.mark.parametrize("last", [0, 2])
def test_a_run_after_one_that_was_broken_off(make: Callable[[], Any], last: int) -> None:
    watched = Watched(make())

    def fail(pipeline: Any, step: int, *rest: Any) -> dict[str, Any]:
        if step == last:
            raise KeyboardInterrupt
        return {}

    with patch(watched.pipeline, CONFIG, backend="torch") as handle:
        with pytest.raises(KeyboardInterrupt):
            watched.run(6, callback_on_step_end=fail)
        watched.run(6)
        check(handle, watched.seen, 6)


@both
@pytest.mark.parametrize("last", [0, 2])
def test_a_run_after_one_that_was_interrupted(make: Callable[[], Any], last: int) -> None:
    watched = Watched(make())

    def interrupt(pipeline: Any, step: int, *rest: Any) -> dict[str, Any]:
        pipeline._interrupt = step >= last
        return {}

    with patch(watched.pipeline, CONFIG, backend="torch") as handle:
        watched.run(6, callback_on_step_end=interrupt)
        assert max(watched.seen) <= last
        watched.run(6)
        check(handle, watched.seen, 6)


def test_a_forward_pass_after_a_run_goes_by_its_timestep() -> None:
    watched = Watched(wan_pipeline())
    with patch(watched.pipeline, CONFIG, backend="torch") as handle:
        watched.run(6)
        for index, reason in ((0, "warm-up"), (5, "last steps")):
            timestep = watched.pipeline.scheduler.timesteps[index : index + 1]
            watched.pipeline.transformer(**{**watched.inputs, "timestep": timestep})
            assert handle.report.dense_reasons[reason] == LAYERS
    assert set(handle.report.dense_reasons) == {"warm-up", "last steps"}


def test_another_scheduler_while_patched() -> None:
    watched = Watched(wan_pipeline())
    with patch(watched.pipeline, CONFIG, backend="torch") as handle:
        for name in ("FlowMatchHeunDiscreteScheduler", "UniPCMultistepScheduler"):
            watched.pipeline.scheduler = scheduler_of(name, **FLOW)
            watched.run(6)
            check(handle, watched.seen, 6)


def test_vace_with_its_own_blocks() -> None:
    transformer = diffusers.WanVACETransformer3DModel(
        num_attention_heads=1, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=16, freq_dim=8, ffn_dim=8,
        num_layers=LAYERS - 1, vace_layers=[0], vace_in_channels=2 * 4 + 64,
    )  # fmt: skip
    components = {k: v for k, v in wan_pipeline(transformer=transformer).components.items() if v is not None}
    watched = Watched(diffusers.WanVACEPipeline(**components))
    with patch(watched.pipeline, CONFIG, backend="torch") as handle:
        watched.run(6)
    check(handle, watched.seen, 6)


def test_models_that_are_told_noise_levels_instead_of_timesteps() -> None:
    """As Cosmos-Predict2's pipelines do it."""
    scheduler = scheduler_of("FlowMatchEulerDiscreteScheduler")
    counter, sample = SchedulerSteps(SimpleNamespace(scheduler=scheduler)), torch.randn(1, 4)
    for _ in range(2):
        scheduler.set_timesteps(4)
        found = []
        for sigma, timestep in zip(scheduler.sigmas, scheduler.timesteps, strict=False):
            found += [counter.at(sigma / (sigma + 1), sample) for _ in range(2)]
            scheduler.step(sample, timestep, sample)
        assert [(x.step, x.repeats) for x in found] == [(i, j) for i in range(4) for j in range(2)]
        assert [x.anew for x in found] == [True] + 7 * [False]
