"""Reading a long prompt with a whole model: ``python -m benchmarks.prefill`` (an NVIDIA GPU, transformers).

A model of the size of Qwen2.5-VL-7B's language model with random weights, made on the GPU: seconds from the prompt to
the first token, with dense attention by FlashAttention, which transformers takes, and by cuDNN, and with PSA. First it
sees that PSA with every block at level 1 gives what dense attention gives.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2 import Qwen2Config

from psa_core import PSAConfig, load_preset
from psa_core.apps.bench.checks import WrongResultError
from psa_core.hosts.transformers import Handle, patch

from .gpu import need_gpu

LENGTHS = (32768, 65536)
# Of the logits of the last token, with bfloat16's rounding through all layers.
BOUND = 0.05
_CHECKED = 8192
_LINE = "{:<10}{:<22}{:>10}{:>8}{:>10}"
_LEVEL_1 = PSAConfig(mask_ratios={1: (0, 1)}, min_tokens=0)


def qwen2_5_vl_7b(layers: int = 28, hidden: int = 3584, heads: int = 28, kv_heads: int = 4, inner: int = 18944) -> Any:
    """The language model of Qwen2.5-VL-7B by its sizes, on torch's default device, with a small vocabulary."""
    config = Qwen2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=inner,
        vocab_size=1024,
        max_position_embeddings=131072,
        use_sliding_window=False,
    )
    return Qwen2ForCausalLM._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()


@torch.inference_mode()
def read(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The logits of the token behind a prompt, float32."""
    return model(ids, use_cache=True, logits_to_keep=1).logits[:, -1].float()


def check(model: Any, tokens: int = _CHECKED, backend: str = "auto") -> float:
    """The relative error of PSA's logits where every block is at level 1.

    Raises:
        WrongResultError: it is more than rounding.
    """
    ids = _prompt(model, tokens)
    dense = read(model, ids)
    with patch(model, _LEVEL_1, backend=backend) as handle:
        sparse = read(model, ids)
    error = (torch.linalg.vector_norm(sparse - dense) / torch.linalg.vector_norm(dense)).item()
    if not error < BOUND or handle.report.sparse_count != model.config.num_hidden_layers:
        raise WrongResultError(f"PSA at level 1 is off by {error:.3f}: {handle.report.line()}")
    return error


def measure(model: Any, tokens: int, config: PSAConfig) -> Iterator[tuple[str, float, float | None]]:
    """Seconds that a prompt takes, by attention, and the density of sparse calls."""
    ids = _prompt(model, tokens)
    contexts: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "dense, FlashAttention": lambda: sdpa_kernel(SDPBackend.FLASH_ATTENTION),
        "dense, cuDNN": lambda: sdpa_kernel(SDPBackend.CUDNN_ATTENTION),
        "PSA": lambda: patch(model, config),
    }
    for name, context in contexts.items():
        with context() as handle:
            try:
                seconds = min(_seconds(model, ids) for _ in range(3))
            # Not every cuDNN takes heads that share keys.
            except RuntimeError as error:
                if "No available kernel" not in str(error):
                    raise
                continue
        yield name, seconds, handle.report.density() if isinstance(handle, Handle) else None


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prefill", description=__doc__)
    parser.add_argument("--preset", help="of Qwen2.5-VL; default: its default preset, of density 0.15")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parsed = parser.parse_args(argv)
    need_gpu(parser)
    config = load_preset("Qwen2.5-VL", parsed.preset)
    began = time.perf_counter()
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = qwen2_5_vl_7b()
    print(f"model made in {time.perf_counter() - began:.0f} s; error at level 1: {check(model):.4f}", flush=True)
    print(_LINE.format("tokens", "attention", "prefill", "gain", "density"))
    for tokens in parsed.lengths:
        dense = 0.0
        for name, seconds, density in measure(model, tokens, config):
            # Against the faster of the dense ones.
            dense = dense if density is not None or (dense and dense < seconds) else seconds
            gain = "" if density is None else f"{dense / seconds:.2f}x"
            line = _LINE.format(f"{tokens:,}", name, f"{seconds:.2f} s", gain, f"{density:.3f}" if density else "")
            print(line, flush=True)


def _prompt(model: Any, tokens: int) -> torch.Tensor:
    return torch.randint(0, model.config.vocab_size, (1, tokens), device=model.device)


def _seconds(model: Any, ids: torch.Tensor) -> float:
    _wait(ids)
    began = time.perf_counter()
    read(model, ids)
    _wait(ids)
    return time.perf_counter() - began


def _wait(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


if __name__ == "__main__":
    main()
