"""Preset files that several tests read."""

from __future__ import annotations

from pathlib import Path

import yaml

from psa_core import PSAConfig, load_presets
from psa_core.settings.dial import DIAL_PRESETS

# model: text length and video scale in width, height, depth
FAMILIES = {
    "Wan2.1_14b": (0, (16, 16, 4)),
    "Wan2.1_1.3b": (0, (16, 16, 4)),
    "Wan2.2_A14B": (0, (16, 16, 4)),
    "Wan2.2_5B": (0, (32, 32, 4)),
    "CogVideo1.5_5b": (226, (16, 16, 8)),
    "CogVideo_5b": (226, (16, 16, 4)),
    "CogVideo_2b": (226, (16, 16, 4)),
    "tiny_video": (0, (16, 16, 4)),
    "LTX-Video": (0, (32, 32, 8)),
    "LTX-2": (0, (32, 32, 8)),
    "MiniMax_H3": (0, (32, 32, 4)),
    "HunyuanVideo": (0, (16, 16, 4)),
    "HunyuanVideo1.5": (0, (16, 16, 4)),
    "Kandinsky5": (0, (16, 16, 4)),
    "Cosmos1": (0, (16, 16, 8)),
    "Cosmos_Predict2": (0, (16, 16, 4)),
    "Mochi": (0, (16, 16, 6)),
    "Any": (0, (16, 16, 4)),
}
# Those that make no videos.
LANGUAGE_MODELS = {"Language", "Qwen2.5-VL", "Qwen3-VL"}
# All that have presets beside the dial, but the one that comes with the package.
LARGE = [model for model in FAMILIES if model.startswith(("Wan", "CogVideo"))]

# An upstream attention_config.yaml: several models, and the example presets of its guides.
UPSTREAM_FILE = """
Wan2.1_14b:
  default_attention: baseline
  video_scale:
    width_divisor: 16
    height_divisor: 16
    depth_divisor: 4
  text_length: 0
  attention_configs:
    baseline:
      type: dense
      description: "Dense attention baseline"
    capped:
      type: psa
      description: "Upstream refuses these two together"
      use_rearrange: true
      use_sim_mask: true
      block_size: {m: 128, n: 64, tile_n: 32}
      mask_ratios: {1: [0.0, 1.0]}
      mask_mode: topk
      attn_impl: new_mask_type
CogVideo_5b:
  default_attention: my_custom_preset     # Default preset to use
  video_scale:                       # Video dimension divisors (model-specific)
    width_divisor: 16
    height_divisor: 16
    depth_divisor: 4
  text_length: 226                   # Text token length (0 for text-free models)
  attention_configs:
    my_custom_preset:
      type: psa
      description: "我的自定义 PSA 配置"
      use_rearrange: true
      use_sim_mask: false
      block_size:
        m: 128
        n: 64
        tile_n: 32
      mask_ratios:
        1: [0.0, 0.5]
        2: [0.5, 0.7]
        4: [0.7, 0.9]
        0: [0.9, 1.0]
      mask_mode: thresholdbound
      attn_impl: new_mask_type
      tile_size: [2, 8, 8]
      warmup_steps: 10
      rearrange_method: Gilbert
      verbose: false
      sim_thresholds:
        x2: 0.7
        x4: 0.65
        x8: 0.6
    shorter:
      type: psa
      use_rearrange: true
      block_size:
        m: 128
        n: 64
        tile_n: 32
      mask_ratios:
        1: [0.0, 0.5]
        2: [0.5, 0.7]
        4: [0.7, 0.9]
        0: [0.9, 1.0]
      mask_mode: thresholdbound
      warmup_steps: 10
"""


def in_files(path: Path | None = None) -> dict[str, dict[str, PSAConfig]]:
    """``load_presets`` without what every model has beside its files: the dial."""
    return {
        model: {name: config for name, config in presets.items() if name not in DIAL_PRESETS}
        for model, presets in load_presets(path).items()
    }


def write(path: Path, presets: dict[str, dict], model: str = "M", **family: object) -> Path:
    path.write_text(yaml.safe_dump({model: {"attention_configs": presets, **family}}), encoding="utf-8")
    return path
