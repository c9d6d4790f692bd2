"""Every family of diffusers: what of it runs sparse, and that what is beside its video is exact."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from psa_core import ConfigError, PSAConfig

pytest.importorskip("diffusers", minversion="0.35")

from diffusers.models.attention_dispatch import _AttentionBackendRegistry

from psa_core.hosts.diffusers import patch
from psa_core.hosts.diffusers.families import hunyuan_video, minimax_h3
from psa_core.settings.radial import RadialMask

from ...support import diffusers_families
from ...support.diffusers_families import BATCH, FAMILIES, FRAMES, LAYERS, VIDEO, Family
from ...support.diffusers_models import Model
from ...support.tensors import relative_error

FULL = PSAConfig(block_m=64, block_n=32, mask_ratios={1: (0, 1)}, min_tokens=0)
# Nothing but sinks is at level 1: random models have keys that all queries look at.
SPARSE = FULL.replace(mask_mode="topk", mask_ratios={2: (0, 0.34), 0: (0.34, 1)})

every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@every_family
def test_level_1_is_the_models_own_attention_and_sinks_are_exact(family: Family) -> None:
    model = family.make()
    dense = model()
    with patch(model.transformer, FULL, backend="torch") as handle:
        assert relative_error(model(), dense) < 1e-4
    assert (handle.report.sparse_count, handle.report.dense_reasons) == (family.calls, {})
    assert handle.report.layers == set(range(family.layers))

    with patch(model.transformer, SPARSE, backend="torch", keep_levels=True) as handle:
        sparse = model()
    assert torch.isfinite(sparse).all()
    assert relative_error(sparse, dense) > 1e-4
    levels = handle.report.level_maps[0, 0]
    tokens = family.front + VIDEO + family.behind
    assert levels.shape[2:] == (-(-tokens // 64), -(-tokens // 32))
    exact = (levels == 1).all((0, 1, 2))
    held = [
        i * 32 < family.front or (family.behind and (i + 1) * 32 > tokens - family.behind) for i in range(len(exact))
    ]
    assert exact.tolist() == [bool(x) for x in held]
    assert torch.equal(model(), dense)


@every_family
def test_steps_are_counted_and_restoring_leaves_no_trace(family: Family) -> None:
    model = family.make()
    timesteps = (0.2, 0.4, 0.6) if family.rising else (900.0, 500.0, 100.0)
    kinds = [type(module) for module in model.transformer.modules()]
    processors = [getattr(module, "processor", None) for module in model.transformer.modules()]
    with patch(model.transformer, SPARSE.replace(warmup_steps=1), backend="torch") as handle:
        for timestep in timesteps:
            model(timestep)
    assert handle.report.dense_reasons == {"warm-up": family.calls}
    assert [call.step for call in handle.report.sparse_calls()] == [1] * family.calls + [2] * family.calls
    assert [type(module) for module in model.transformer.modules()] == kinds
    after = [getattr(module, "processor", None) for module in model.transformer.modules()]
    assert all(x is y for x, y in zip(after, processors, strict=True))


@pytest.mark.parametrize("name", ["wan_vace", "wan_animate"])
def test_scenes_are_counted_without_reference_frames(name: str) -> None:
    model = FAMILIES[name].make()
    clip = 1 + 4 * (FRAMES - 2)

    def with_scenes_up_to(end: int) -> PSAConfig:
        radial = RadialMask(sparsity_type="dense", scene_boundaries=(0, 4, end), scene_adjacency="own")
        return FULL.replace(radial=radial)

    with patch(model.transformer, with_scenes_up_to(clip), backend="torch") as handle:
        model()
    assert handle.report.sparse_count == FAMILIES[name].calls
    with patch(model.transformer, with_scenes_up_to(clip + 4), backend="torch"), pytest.raises(ConfigError, match="13"):
        model()


@pytest.mark.parametrize("make", [diffusers_families.hunyuan_video, diffusers_families.mochi])
def test_texts_of_other_lengths(make: type[Model]) -> None:
    """Of HunyuanVideo one mask hides both; Mochi has a call for each video."""
    model = make((7, 5))
    dense = model()
    with patch(model.transformer, FULL, backend="torch") as handle:
        assert relative_error(model(), dense) < 1e-4
    is_mochi = make is diffusers_families.mochi
    assert handle.report.dense_reasons == ({} if is_mochi else {"attention mask": LAYERS})
    assert handle.report.sparse_count == (BATCH * LAYERS if is_mochi else 0)


def test_text_without_padding_and_dense_calls_are_the_models_own() -> None:
    for text in ((diffusers_families.TEXT,) * BATCH, (7, 7)):
        model = diffusers_families.hunyuan_video(text)
        dense = model()
        with patch(model.transformer, FULL.replace(type="dense"), backend="torch") as handle:
            assert torch.equal(model(), dense)
        assert handle.report.dense_reasons == {"the preset is dense": LAYERS}
        with patch(model.transformer, FULL, backend="torch") as handle:
            assert relative_error(model(), dense) < 1e-4
        assert handle.report.sparse_count == LAYERS


def test_no_picture_is_hidden() -> None:
    model = diffusers_families.hunyuan_video_1_5(picture=False)
    dense = model()
    with patch(model.transformer, SPARSE, backend="torch", keep_levels=True) as handle:
        model()
    assert handle.report.level_maps[0, 0].shape[3] == -(-(VIDEO + 2 + 7) // 32)
    with patch(model.transformer, FULL, backend="torch"):
        assert relative_error(model(), dense) < 1e-4


def test_positions_without_sizes_leave_the_order_that_tokens_have() -> None:
    model = diffusers_families.ltx()
    for name in ("num_frames", "height", "width"):
        del model.inputs[name]
    dense = model()
    with patch(model.transformer, FULL, backend="torch") as handle:
        assert relative_error(model(), dense) < 1e-4
    assert handle.report.sparse_count == LAYERS


def test_sparse_attention_of_kandinskys_own_is_left_alone() -> None:
    model = diffusers_families.kandinsky5()
    block = model.transformer.visual_transformer_blocks[0]
    seen = []
    block.self_attention.processor = lambda attention, x, **call: seen.append(call["sparse_params"]) or x
    with patch(model.transformer, FULL, backend="torch") as handle:
        block.self_attention(torch.randn(1, 8, 32), rotary_emb=None, sparse_params={"P": 0.9})
    assert seen == [{"P": 0.9}]
    assert handle.report.dense_reasons == {"sparse attention of the model's own": 1}


def test_any_other_model_runs_sparse_without_a_grid() -> None:
    model = diffusers_families.another()
    dense = model()
    with patch(model.transformer, FULL, backend="torch") as handle:
        assert relative_error(model(), dense) < 1e-4
    assert handle.report.sparse_count == LAYERS
    assert handle.report.dense_reasons == {"cross-attention": LAYERS}
    with patch(model.transformer, SPARSE, backend="torch") as handle:
        assert relative_error(model(), dense) > 1e-4
    assert 0 < handle.report.density() < 1


def test_masks_of_other_models_count_where_they_mask_something() -> None:
    model = diffusers_families.another()
    for mask, reason in ((torch.ones(BATCH, VIDEO), {}), (torch.arange(VIDEO)[None] < 100, {"attention mask": LAYERS})):
        model.inputs["attention_mask"] = mask.float().expand(BATCH, -1)
        dense = model()
        with patch(model.transformer, FULL, backend="torch") as handle:
            assert relative_error(model(), dense) < 1e-4
        assert handle.report.dense_reasons == {"cross-attention": LAYERS, **reason}


@pytest.mark.parametrize("name", ["ltx", "hunyuan_video", "kandinsky5", "mochi"])
def test_an_unpatched_model_at_the_same_time_is_bit_equal(name: str) -> None:
    model, other = FAMILIES[name].make(), FAMILIES[name].make()
    alone, registry = other(), dict(_AttentionBackendRegistry._backends)
    inside, beside = [], []

    def run_other() -> None:
        with torch.no_grad():
            beside.append(other())

    def in_the_middle(*_: object) -> None:
        # In the middle of a patched forward pass, in this thread and in another.
        inside.append(other())
        thread = threading.Thread(target=run_other)
        thread.start()
        thread.join()

    with patch(model.transformer, SPARSE, backend="torch") as handle:
        layer = next(module for module in model.transformer.modules() if "_psa_layer" in vars(module))
        block = next(module for module in model.transformer.modules() if layer in module.children())
        block.register_forward_hook(in_the_middle)
        model()
    assert handle.report.sparse_count == FAMILIES[name].calls
    assert torch.equal(inside[0], alone)
    assert torch.equal(beside[0], alone)
    assert dict(_AttentionBackendRegistry._backends) == registry


@pytest.mark.gpu
@every_family
def test_on_a_gpu(family: Family) -> None:
    model = family.make().to("cuda", torch.bfloat16)
    dense = model(0.5).float()
    with patch(model.transformer, FULL, backend="triton") as handle:
        assert relative_error(model(0.5).float(), dense) < 0.05
    assert (handle.report.sparse_count, handle.report.dense_reasons) == (family.calls, {})
    with patch(model.transformer, SPARSE, backend="triton") as handle:
        assert torch.isfinite(model(0.5)).all()
    assert 0 < handle.report.density() < 1


@pytest.mark.parametrize(
    ("name", "module", "reader", "given"),
    [
        ("hunyuan_video", hunyuan_video, "_unpadded_here", "encoder_attention_mask"),
        ("hunyuan_video_1_5", hunyuan_video, "_unpadded_here", "image_embeds"),
        ("minimax_h3", minimax_h3, "_tokens", "audio_indices"),
    ],
    ids=["hunyuan_video", "hunyuan_video_1_5", "minimax_h3"],
)
def test_what_lies_on_the_device_is_read_once_for_a_prompt(
    monkeypatch: pytest.MonkeyPatch, name: str, module: Any, reader: str, given: str
) -> None:
    reads: list[Any] = []
    read = getattr(module, reader)

    def counted(*tensors: torch.Tensor) -> Any:
        reads.append(read(*tensors))
        return reads[-1]

    monkeypatch.setattr(module, reader, counted)
    model = FAMILIES[name].make()
    with patch(model.transformer, FULL, backend="torch") as handle:
        for timestep in (0.2, 0.4) if FAMILIES[name].rising else (900.0, 500.0):
            model(timestep)
        assert len(reads) == 1
        # Another prompt of the same shape, and one that takes this one's place.
        model.inputs[given] = model.inputs[given].clone()
        model()
        model.inputs[given].copy_(model.inputs[given].clone())
        model()
    assert len(reads) == 3
    assert handle.report.dense_reasons == {}
