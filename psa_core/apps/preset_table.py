"""The presets as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..settings.config import PSAConfig
from ..settings.errors import ConfigError
from ..settings.preset_schema import ModelFamily
from ..settings.presets import load_families

_HEAD = ("", "preset", "mode", "blocks", "warm-up", "levels", "description")
_FOOT = (
    "levels: share of a row's importance (thresholdbound) or of its key blocks (topk);",
    "calibrated: the density of every head, or the error up to which each chooses its own",
)


def preset_table(model: str | None = None, path: str | Path | None = None) -> str:
    """A table of presets, model after model; the default of a model is marked with a star.

    Args:
        model: only this one.
        path: a preset file or folder; None for the bundled presets and the user's.

    Raises:
        ConfigError: no such model, or a file is not valid.
        FileNotFoundError: ``path`` does not exist.
    """
    families = load_families(path)
    if model is not None and model not in families:
        raise ConfigError("--model", model, "must be one of " + ", ".join(families))
    chosen = [family for name, family in families.items() if model in (None, name)]
    rows = [_row(family, name, config) for family in chosen for name, config in family.presets.items()]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    lines = [_line(_HEAD, widths)]
    for family in chosen:
        lines += ["", family.name]
        lines += [_line(rows.pop(0), widths) for _ in family.presets]
    return "\n".join([*lines, "", *_FOOT])


def _row(family: ModelFamily, name: str, config: PSAConfig) -> Sequence[str]:
    star = "*" if name == family.default else ""
    if config.type == "dense":
        return star, name, "dense", "", "", "", config.description
    blocks = f"{config.block_m} x {config.block_n}"
    if config.radial is not None and config.radial.decides_alone:
        radial = config.radial
        levels = f"decay: {radial.decay_factor:g}  dense layers: {radial.dense_layers}"
        return star, name, radial.mode, blocks, str(radial.dense_timesteps), levels, config.description
    return star, name, config.mask_mode, blocks, str(config.warmup_steps), _levels(config), config.description


def _levels(config: PSAConfig) -> str:
    """The share of every level in use, such as ``1: 40%  2: 10%  skip: 50%``, or the target of calibrated attention."""
    if config.target_error is not None:
        return f"error: {config.target_error:.3g}"
    if config.target_density is not None:
        return f"density: {config.target_density:.3g}"
    shares = {level: hi - lo for level, (lo, hi) in config.mask_ratios.items() if hi > lo}
    return "  ".join(f"{level or 'skip'}: {share:.0%}" for level, share in shares.items())


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
