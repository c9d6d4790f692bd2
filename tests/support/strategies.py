"""Hypothesis strategies of settings."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st

from psa_core import Calibration, PSAConfig, RadialMask, Recipe, Schedule
from psa_core.settings.config import DENSE_BACKENDS, IMPORTANCE_ESTIMATORS, MASK_MODES, PRECISIONS
from psa_core.settings.mask_ratios import allowed_levels
from psa_core.settings.orders import ORDERS, REORDER_METHODS
from psa_core.settings.recipe import MIXES


@st.composite
def ratio_tilings(draw: st.DrawFn, block_n: int = 128) -> dict[int, tuple[float, float]]:
    """Intervals that tile [0, 1] in pyramid order, in any order of keys."""
    levels = [level for level in allowed_levels(block_n) if draw(st.booleans())] or [1]
    cuts = [0.0, *sorted(draw(st.floats(0, 1)) for _ in levels[1:]), 1.0]
    ratios = {level: (cuts[i], cuts[i + 1]) for i, level in enumerate(levels)}
    return {level: ratios[level] for level in draw(st.permutations(levels))}


def amounts() -> st.SearchStrategy[int | str]:
    """Any number of steps, or share of them, that is allowed."""
    return st.integers(0, 60) | st.floats(0, 100).map("{}%".format)


@st.composite
def schedules(draw: st.DrawFn, block_n: int = 128) -> Schedule:
    """Any schedule that is allowed."""
    start_percent, end_percent = sorted(draw(st.sets(st.integers(0, 100), min_size=2, max_size=2)))
    steps = draw(st.integers(0, 60))
    return Schedule(
        warmup=draw(st.none() | amounts()),
        last_dense=draw(amounts()),
        dense_layers=draw(st.lists(st.integers(0, 60), max_size=4)),
        curve=draw(st.sampled_from(["constant", "linear", "cosine", "timestep"])),
        start=draw(st.none() | ratio_tilings(block_n)),
        end=draw(st.none() | ratio_tilings(block_n)),
        steps=steps,
        start_step=draw(st.integers(0, max(steps - 1, 0))),
        start_percent=start_percent / 100,
        end_percent=end_percent / 100,
    )


@st.composite
def radial_masks(draw: st.DrawFn) -> RadialMask:
    """Any radial mask that is allowed."""
    inner = draw(st.sets(st.integers(1, 200), max_size=3))
    scenes = draw(st.booleans())
    own = (tuple(i == j for j in range(len(inner))) for i in range(len(inner)))
    return RadialMask(
        mode=draw(st.sampled_from(["radial only", "intersect", "finer wins", "coarsen"])),
        model_type=draw(st.sampled_from(["auto", "wan", "cogvideox"])),
        decay_factor=draw(st.floats(0.01, 16)),
        block_size=draw(st.integers(1, 256)),
        sparsity_type=draw(st.sampled_from(["radial", "dense"])),
        dense_layers=draw(st.integers(0, 50)),
        dense_timesteps=draw(amounts()),
        last_dense_timesteps=draw(amounts()),
        scene_boundaries=(0, *sorted(inner)) if scenes and inner else (),
        scene_adjacency=draw(st.sampled_from(["neighbours", "all", "own"])) if not inner else tuple(own),
        frames_per_token=draw(st.sampled_from([1, 4, 8])),
        reference_frames=draw(st.tuples(st.integers(0, 3), st.integers(0, 3))),
    )


def recipes() -> st.SearchStrategy[Recipe]:
    """Any recipe that is allowed."""
    return st.builds(
        Recipe,
        order=st.sampled_from(ORDERS),
        estimator=st.sampled_from(IMPORTANCE_ESTIMATORS),
        mix=st.sampled_from(MIXES),
        density=st.floats(0, 1, exclude_min=True),
    )


# PyYAML reads a next-line character back as a space.
WRITTEN_TEXT = st.text(st.characters(exclude_characters="\x85", codec="utf-8"))


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    """Any calibration that is allowed."""
    layers, heads = draw(st.sets(st.integers(0, 999), min_size=1, max_size=4)), draw(st.integers(1, 5))
    some = draw(st.lists(recipes(), min_size=1, max_size=4))
    return Calibration(
        block_m=draw(st.sampled_from([64, 128])),
        block_n=draw(st.sampled_from([32, 64, 128])),
        recipes={layer: [draw(st.sampled_from(some)) for _ in range(heads)] for layer in layers},
        errors={layer: [draw(st.floats(0, allow_infinity=False)) for _ in range(heads)] for layer in layers},
        **draw(targets("calibrated")),
        tile_size=draw(st.tuples(*[st.integers(1, 200)] * 3)),
        model=draw(WRITTEN_TEXT),
        grid=draw(st.none() | st.tuples(*[st.integers(1, 200)] * 3)),
        text_length=draw(st.integers(0, 10_000)),
        description=draw(WRITTEN_TEXT),
    )


def targets(mask_mode: str) -> st.SearchStrategy[dict[str, float]]:
    """Any targets that a ``mask_mode`` allows, as settings of a config."""
    if mask_mode != "calibrated":
        return st.just({})
    names = st.sampled_from(["target_density", "target_error"])
    return st.dictionaries(names, st.floats(0, 1, exclude_min=True), max_size=1)


@st.composite
def configs(draw: st.DrawFn) -> PSAConfig:
    """Any settings that are allowed."""
    block_n = draw(st.sampled_from([32, 64, 128]))
    shares, similarities, counts = st.floats(0, 1), st.floats(-1, 1), st.integers(0, 10_000)
    mask_mode = draw(st.sampled_from(MASK_MODES))
    aims = draw(targets(mask_mode))
    schedule = draw(st.none() | schedules(block_n))
    if schedule is not None and mask_mode == "calibrated":
        allowed = "target_error" not in aims and 0 not in schedule.densities.values()
        schedule = schedule if allowed else dataclasses.replace(schedule, start=None, end=None)
    return PSAConfig(
        type=draw(st.sampled_from(["psa", "dense"])),
        block_m=draw(st.sampled_from([64, 128])),
        block_n=block_n,
        tile_n=draw(st.integers(1, 256)),
        mask_ratios=draw(ratio_tilings(block_n)),
        mask_mode=mask_mode,
        **aims,
        min_full_ratio=draw(shares),
        importance=draw(st.sampled_from(IMPORTANCE_ESTIMATORS)),
        use_sim_mask=draw(st.booleans()),
        sim_thresholds={key: draw(similarities) for key in draw(st.sets(st.sampled_from(["x2", "x4", "x8"])))},
        use_rearrange=draw(st.booleans()),
        rearrange_method=draw(st.sampled_from(REORDER_METHODS)),
        early_density=draw(st.floats(1.0, 1.9)),
        candidate_orders=draw(st.lists(st.sampled_from(ORDERS), min_size=1, unique=True)),
        tile_size=draw(st.tuples(*[st.integers(1, 64)] * 3)),
        warmup_steps=draw(amounts()),
        min_tokens=draw(counts),
        text_length=draw(counts),
        attn_impl=draw(st.sampled_from(["new_mask_type", "old_mask_type"])),
        schedule=schedule,
        radial=draw(st.none() | radial_masks()),
        map_steps=draw(st.integers(1, 60)),
        precision=draw(st.sampled_from(PRECISIONS)),
        dense_backend=draw(st.sampled_from(DENSE_BACKENDS)),
        max_extra_memory=draw(st.floats(0, 64)),
        verbose=draw(st.booleans()),
        description=draw(WRITTEN_TEXT),
    )
