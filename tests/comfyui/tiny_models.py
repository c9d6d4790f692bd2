"""The models the tests sample: which checkpoint each one is, and what its sampling graph needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from .checkpoints import write_cogvideox, write_wan

LatentGrid = tuple[int, int, int]
"""Latent frames, height and width."""


@dataclass(frozen=True)
class Host:
    """One model: how to write its checkpoint, and the defaults of a graph that samples it."""

    name: str
    write: Callable[[Path], None]
    channels: int = 16
    text_tokens: int = 16
    latent: LatentGrid = (5, 16, 24)
    spatial_compression: int = 8
    temporal_patch: int = 1
    conditioning: Literal["text", "image", "vace"] = "text"
    clip_vision: bool = False

    @property
    def checkpoint(self) -> str:
        """The file name that UNETLoader is given."""
        return f"{self.name}.safetensors"

    def latent_grid(self, width: int, height: int, frames: int) -> LatentGrid:
        """The latent of a video given in pixels and frames (a multiple of 4, plus 1)."""
        return (frames - 1) // 4 + 1, height // self.spatial_compression, width // self.spatial_compression

    def token_grid(self, latent: LatentGrid | None = None) -> LatentGrid:
        """Frames, rows and columns of video tokens: what the model makes of a latent after padding it to patches."""
        frames, height, width = latent or self.latent
        return -(-frames // self.temporal_patch), -(-height // 2), -(-width // 2)


_COGVIDEOX_TEXT_TOKENS = 226

HOSTS: dict[str, Host] = {
    host.name: host
    for host in (
        Host("wan_t2v", partial(write_wan, seed=1)),
        Host("wan_t2v_low_noise", partial(write_wan, seed=2)),
        Host(
            "wan_i2v",
            partial(write_wan, seed=3, in_channels=36, clip_vision=True),
            conditioning="image",
            clip_vision=True,
        ),
        # Wan 2.2 A14B image-to-video: the image enters by its channels alone.
        Host("wan22_i2v", partial(write_wan, seed=4, in_channels=36), conditioning="image"),
        Host("wan22_i2v_low_noise", partial(write_wan, seed=5, in_channels=36), conditioning="image"),
        Host(
            "wan22_ti2v",
            partial(write_wan, seed=6, in_channels=48, out_channels=48),
            channels=48,
            spatial_compression=16,
        ),
        Host("wan_vace", partial(write_wan, seed=7, vace_layers=1), conditioning="vace"),
        Host(
            "wan_animate2",
            partial(write_wan, seed=12, in_channels=36, clip_vision=True, model_type="animate2"),
            conditioning="image",
            clip_vision=True,
        ),
        Host("cogvideox", partial(write_cogvideox, seed=8), text_tokens=_COGVIDEOX_TEXT_TOKENS),
        Host(
            "cogvideox_i2v",
            partial(write_cogvideox, seed=11, in_channels=32),
            text_tokens=_COGVIDEOX_TEXT_TOKENS,
            conditioning="image",
        ),
        Host(
            "cogvideox15",
            partial(write_cogvideox, seed=9, temporal_patch=2),
            text_tokens=_COGVIDEOX_TEXT_TOKENS,
            temporal_patch=2,
        ),
        Host(
            "cogvideox15_i2v",
            partial(write_cogvideox, seed=10, in_channels=32, temporal_patch=2, ofs=True),
            text_tokens=_COGVIDEOX_TEXT_TOKENS,
            temporal_patch=2,
            conditioning="image",
        ),
    )
}


def write_checkpoints(directory: Path) -> None:
    """Write every host's checkpoint into a folder that UNETLoader searches."""
    directory.mkdir(parents=True, exist_ok=True)
    for host in HOSTS.values():
        host.write(directory / host.checkpoint)
