"""Every kernel once, on small inputs, for NVIDIA's sanitizer: no pytest, and nothing of torch's own beside it.

``PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python tests/ops/sanitizer_case.py``, and the
same with ``--tool racecheck``. Without torch's cache every tensor is an allocation of its own, and what lies past its
end shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from psa_core import PSAConfig, pyramid_sparse_attention
from psa_core.ops.attention import dispatch

RATIOS = {1: (0.0, 0.2), 2: (0.2, 0.35), 4: (0.35, 0.5), 8: (0.5, 0.8), 0: (0.8, 1.0)}


def run_all(device: str = "cuda") -> None:
    """Both head sizes, estimators and modes; an index, text, the cosine cap and a static map; ragged last blocks."""
    grid, text = (3, 7, 11), 20
    tokens = grid[0] * grid[1] * grid[2] + text
    for d in (64, 128):
        q, k, v = (torch.randn(1, tokens, 2, d, device=device).half().transpose(1, 2) for _ in range(3))
        for importance, mode in (("sampled_max", "thresholdbound"), ("mean", "topk")):
            config = PSAConfig(block_n=64, mask_ratios=RATIOS, importance=importance, mask_mode=mode, use_sim_mask=True)
            static = torch.full((1, 1, -(-tokens // 128), -(-tokens // 64)), 8, dtype=torch.uint8, device=device)
            static[..., 1::3] = 0
            for static_levels in (None, static):
                out = pyramid_sparse_attention(
                    q, k, v, config, grid=grid, text_length=text, static_levels=static_levels, backend="triton"
                )
                assert out.isfinite().all()
            for causal, heads in ((False, 2), (True, 1)):
                some = q[:, :, :100], k[:, :heads], v[:, :heads]
                out = pyramid_sparse_attention(*some, config, causal=causal, backend="triton")
                assert out.isfinite().all()
            # Packed tiles of a whole block are what Hopper's own kernel reads in INT8.
            out = pyramid_sparse_attention(
                q, k, v, config.replace(block_n=128, precision="int8"), grid=grid, text_length=text, backend="triton"
            )
            assert out.isfinite().all()
            print(f"head size {d}, {importance}, {mode}: done", flush=True)


if __name__ == "__main__":
    print("chosen kernel:", dispatch.hopper_refusal(torch.device("cuda", 0), torch.float16, 128) or "Hopper")
    run_all()
    dispatch.hopper_refusal = lambda *_: "a run of the portable kernel"  # type: ignore[assignment]
    print("portable kernel:")
    run_all()
