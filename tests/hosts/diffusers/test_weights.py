"""Weights that change or move under the diffusers host: LoRAs, and the ways of offloading, in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from psa_core import PSAConfig

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("accelerate")

import accelerate
import diffusers

from psa_core.hosts.diffusers import Handle, patch

from ...support.tensors import relative_error
from ...support.tiny_pipelines import LAYERS, cogvideox_pipeline, save_cogvideox_lora, save_wan_lora, wan_pipeline

FULL = PSAConfig(block_n=32, mask_ratios={1: (0, 1)}, min_tokens=0, warmup_steps=0)
STEPS = 2

both = pytest.mark.parametrize("make", [wan_pipeline, cogvideox_pipeline])
both_with_lora = pytest.mark.parametrize(
    ("make", "save_lora"), [(wan_pipeline, save_wan_lora), (cogvideox_pipeline, save_cogvideox_lora)]
)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def sample(pipeline: Any) -> torch.Tensor:
    latents = pipeline(
        prompt="a",
        height=32,
        width=32,
        num_frames=9,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
    ).frames
    return latents.cpu()


def check_patched(pipeline: Any, handle: Handle, expected: torch.Tensor) -> None:
    """See that all calls run sparse, and at full resolution give what was expected."""
    assert relative_error(sample(pipeline), expected) < 1e-4
    assert (handle.report.sparse_count, handle.report.dense_count) == (STEPS * LAYERS, 0)


def states_of_a_lora(pipeline: Any, folder: Path) -> Iterator[None]:
    """Bring a pipeline into the states that a LoRA can be in, one after the other."""
    pipeline.load_lora_weights(folder, adapter_name="a")
    yield
    pipeline.set_adapters("a", 0.5)
    yield
    pipeline.fuse_lora(adapter_names=["a"])
    yield
    pipeline.unfuse_lora()
    pipeline.disable_lora()
    yield
    pipeline.unload_lora_weights()
    yield


@both_with_lora
def test_loras_come_change_and_go_while_patched(
    make: Callable[[], Any], save_lora: Callable[[Path], None], tmp_path: Path
) -> None:
    save_lora(tmp_path)
    pipeline = make()
    expected = [sample(pipeline) for _ in states_of_a_lora(pipeline, tmp_path)]
    assert all(relative_error(latents, expected[-1]) > 1e-2 for latents in expected[:3])
    with patch(pipeline, FULL, backend="torch") as handle:
        for _, latents in zip(states_of_a_lora(pipeline, tmp_path), expected, strict=True):
            check_patched(pipeline, handle, latents)


@both_with_lora
def test_loras_from_before_stay_and_restoring_leaves_every_bit(
    make: Callable[[], Any], save_lora: Callable[[Path], None], tmp_path: Path
) -> None:
    save_lora(tmp_path)
    pipeline = make()
    alone = sample(pipeline)
    pipeline.load_lora_weights(tmp_path)
    adapted = sample(pipeline)
    assert relative_error(adapted, alone) > 1e-2
    with patch(pipeline, FULL, backend="torch") as handle:
        check_patched(pipeline, handle, adapted)
    assert torch.equal(sample(pipeline), adapted)
    with patch(pipeline, FULL, backend="torch") as handle:
        pipeline.unload_lora_weights()
        check_patched(pipeline, handle, alone)
    assert torch.equal(sample(pipeline), alone)


def offload_models(pipeline: Any, device: torch.device) -> None:
    pipeline.enable_model_cpu_offload(device=device)


def offload_layers(pipeline: Any, device: torch.device) -> None:
    if device.type == "cpu":
        # All of a pipeline is for devices other than this.
        accelerate.cpu_offload(pipeline.transformer, device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)


def offload_groups(kind: str, **options: Any) -> Callable[[Any, torch.device], None]:
    def offload(pipeline: Any, device: torch.device) -> None:
        if device.type == "cpu" and diffusers.__version__.startswith("0.35."):
            pytest.skip("its group offloading wants a GPU")
        for name, component in pipeline.components.items():
            if name != "transformer" and isinstance(component, torch.nn.Module):
                component.to(device)
        stream = {"use_stream": True} if device.type != "cpu" else {}
        pipeline.transformer.enable_group_offload(
            onload_device=device, offload_device=torch.device("cpu"), offload_type=kind, **options, **stream
        )

    return offload


every_way = pytest.mark.parametrize(
    "offload",
    [
        pytest.param(offload_models, id="models"),
        pytest.param(offload_layers, id="layers"),
        pytest.param(offload_groups("block_level", num_blocks_per_group=1), id="blocks"),
        pytest.param(offload_groups("leaf_level"), id="leaves"),
    ],
)
every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@both
@every_way
@every_device
def test_offloading_before_and_while_patched(
    make: Callable[[], Any], offload: Callable[[Any, torch.device], None], device: str
) -> None:
    pipeline = make().to(device)
    expected = sample(pipeline)
    pipeline.to("cpu")
    with patch(pipeline, FULL, backend="torch") as handle:
        offload(pipeline, torch.device(device))
        for _ in range(2):
            check_patched(pipeline, handle, expected)
    assert torch.equal(sample(pipeline), expected)
    with patch(pipeline, FULL, backend="torch") as handle:
        check_patched(pipeline, handle, expected)
    assert torch.equal(sample(pipeline), expected)


def forwards(pipeline: Any) -> dict[str, Any]:
    """What offloading replaces."""
    return {name: module.forward for name, module in pipeline.transformer.named_modules()}


@both
@every_way
def test_offloading_goes_on_where_the_patch_is_gone(
    make: Callable[[], Any], offload: Callable[[Any, torch.device], None]
) -> None:
    pipeline = make()
    alone = forwards(pipeline)
    handle = patch(pipeline, FULL, backend="torch")
    assert forwards(pipeline) == alone
    offload(pipeline, torch.device("cpu"))
    offloaded = forwards(pipeline)
    assert offloaded != alone
    handle.restore()
    assert forwards(pipeline) == offloaded


@both
@pytest.mark.parametrize("offload", [offload_models, offload_layers])
def test_offloading_ends_while_patched(make: Callable[[], Any], offload: Callable[[Any, torch.device], None]) -> None:
    pipeline = make()
    expected = sample(pipeline)
    offload(pipeline, torch.device("cpu"))
    with patch(pipeline, FULL, backend="torch") as handle:
        check_patched(pipeline, handle, expected)
        pipeline.remove_all_hooks()
        assert not hasattr(pipeline.transformer, "_hf_hook")
        check_patched(pipeline, handle, expected)
    assert torch.equal(sample(pipeline), expected)
