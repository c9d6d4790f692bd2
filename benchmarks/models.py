"""Whole models: a forward pass of a transformer with random weights, dense and through PSA. Needs diffusers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from psa_core.apps.bench.cases import COGVIDEOX_1_5, WAN_720P, Case, chosen_cases
from psa_core.apps.bench.checks import WrongResultError
from psa_core.apps.bench.ours import IMPORTANCE, Setting
from psa_core.apps.bench.results import Row
from psa_core.apps.bench.rivals import CUDNN
from psa_core.apps.bench.side_by_side import gpu, with_ratios
from psa_core.apps.bench.timing import Contender, Effort, measure
from psa_core.hosts.diffusers import patch

from .op.cases import MODEL_PART

MODEL_EFFORT = Effort(rounds=2, least=2, batch_ms=0.0)
_TIMESTEP = 999


@dataclass(frozen=True)
class Transformer:
    """A video model's transformer and the inputs of one forward pass.

    Attributes:
        case: its self-attention.
        build: makes it, in float32, on torch's default device.
        latents: shape of the video latents.
        text: (tokens, numbers a token) of the text.
        rotary: whether it is handed rotary angles.
    """

    case: Case
    build: Callable[[], Any]
    latents: tuple[int, ...]
    text: tuple[int, int]
    rotary: bool


def _wan() -> Any:
    return WanTransformer3DModel(
        num_attention_heads=12,
        attention_head_dim=128,
        in_channels=16,
        out_channels=16,
        text_dim=4096,
        freq_dim=256,
        ffn_dim=8960,
        num_layers=30,
    )


def _cogvideox_1_5() -> Any:
    return CogVideoXTransformer3DModel(
        num_attention_heads=48,
        attention_head_dim=64,
        in_channels=16,
        out_channels=16,
        time_embed_dim=512,
        text_embed_dim=4096,
        num_layers=42,
        sample_width=170,
        sample_height=96,
        sample_frames=81,
        patch_size=2,
        patch_size_t=2,
        patch_bias=False,
        use_rotary_positional_embeddings=True,
    )


TRANSFORMERS = (
    Transformer(WAN_720P, _wan, (1, 16, 18, 90, 160), (512, 4096), rotary=False),
    Transformer(COGVIDEOX_1_5, _cogvideox_1_5, (1, 22, 16, 96, 170), (226, 4096), rotary=True),
)


def model_rows(names: Sequence[str] | None = None, effort: Effort = MODEL_EFFORT) -> list[Row]:
    """Measure each transformer: its dense pass with cuDNN, and PSA with each estimator.

    Raises:
        BackendError: no GPU that can.
        ConfigError: a name fits no case.
        WrongResultError: a call stayed dense, or a pass gave something else than numbers.
    """
    device = gpu()
    cases = chosen_cases(names, [transformer.case for transformer in TRANSFORMERS])
    rows: list[Row] = []
    for transformer in tqdm([x for x in TRANSFORMERS if x.case in cases], unit="model", dynamic_ncols=True):
        rows += _rows_of(transformer, device, effort)
        torch.cuda.empty_cache()
    return rows


@torch.no_grad()
def forward_pass(transformer: Transformer, device: torch.device, dtype: torch.dtype) -> tuple[Any, Callable[[], Any]]:
    """The model with random weights, and a call of one forward pass on random inputs."""
    with device:
        model = transformer.build().eval()
        # Parameters alone: rotary angles stay as exact as pipelines have them.
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        inputs: dict[str, Any] = {
            "hidden_states": torch.randn(transformer.latents, dtype=dtype),
            "encoder_hidden_states": torch.randn(1, *transformer.text, dtype=dtype),
            "timestep": torch.tensor([_TIMESTEP]),
        }
        if transformer.rotary:
            tokens = transformer.case.tokens - transformer.case.text_length
            angles = torch.randn(tokens, transformer.case.head_dim // 2).repeat_interleave(2, 1)
            inputs["image_rotary_emb"] = (angles.cos(), angles.sin())

    @torch.no_grad()
    def call() -> torch.Tensor:
        return model(return_dict=False, **inputs)[0]

    return model, call


def _rows_of(transformer: Transformer, device: torch.device, effort: Effort) -> list[Row]:
    case = transformer.case
    model, call = forward_pass(transformer, device, torch.bfloat16)

    @contextmanager
    def dense() -> Iterator[None]:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            yield

    @contextmanager
    def sparse(setting: Setting) -> Iterator[Any]:
        # Cross-attention runs in cuDNN here as well.
        with dense(), patch(model, setting.config(case), backend="triton") as handle:
            yield handle

    contenders = [Contender(Row.of(MODEL_PART, case, CUDNN), call, dense)]
    with dense():
        _check(call(), f"{case.name}, dense")
    for importance in IMPORTANCE:
        setting = Setting(importance)
        with sparse(setting) as handle:
            _check(call(), f"{case.name}, PSA, {importance}")
        if handle.report.dense_count or not handle.report.sparse_count:
            raise WrongResultError(f"{case.name}: not every layer ran sparse: {handle.report.line()}")
        row = setting.row(MODEL_PART, case).replace(reached_density=handle.report.density())
        contenders.append(Contender(row, call, lambda setting=setting: sparse(setting)))  # type: ignore[misc]
    return with_ratios([contender.row for contender in contenders], measure(contenders, effort))


def _check(out: torch.Tensor, who: str) -> None:
    if not out.isfinite().all():
        raise WrongResultError(f"{who}: the forward pass gave something else than numbers")
