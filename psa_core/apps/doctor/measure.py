"""How fast this card is: its dense attention beside ours, in under a minute."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import torch

from ...ops.backends import BackendError
from ...ops.precision import PRECISIONS, precisions
from ..bench.cases import Case
from ..bench.inputs import Inputs, video_inputs
from ..bench.ours import Setting, psa_contender
from ..bench.results import PSA, Row
from ..bench.rivals import Attention, dense_rivals, host_contender, sdpa_contender
from ..bench.side_by_side import DTYPE, OUT_OF_MEMORY, gpu, prepare, refused, side_by_side
from ..bench.timing import Contender, Effort
from .clip import Clip

Progress = Callable[[int, int], None]

_PART = "doctor"
_EFFORT = Effort(rounds=3, least=1, seconds=15.0)
# Beside the preset: the README's measured setting, so that a card compares with those there.
_SETTING = Setting("mean")
# Each contender runs five times at the least, and there are eight.
_SECONDS_A_CALL = 0.8
_PROBED_HEADS, _PROBED_TOKENS = 8, 16_384


class HostAttention(NamedTuple):
    """The dense attention that a host would run.

    Attributes:
        name: for the table.
        attend: of q, k and v ``[B, H, L, D]``, as models have them: views of ``[B, L, H, D]``.
    """

    name: str
    attend: Attention


def measure_card(
    clip: Clip,
    host: HostAttention | None = None,
    device: torch.device | None = None,
    progress: Progress = lambda done, whole: None,
) -> list[Row]:
    """Dense attention beside ours, each checked before it is timed.

    Args:
        clip: what attends to itself. Of heads that would take longer than a minute fewer are measured, as rows say.
        host: the dense attention of the host; torch's own choice without one.
        device: the GPU; None for torch's own.
        progress: called with the steps done and the whole; may raise to stop.

    Returns:
        A row for each attention, with numbers or, at the end, with a reason. Ratios are against the host's.

    Raises:
        BackendError: nothing can be measured here, or the clip is too long; the message says what would fit.
    """
    device = gpu("measuring speed", device, clip.head_dim)
    rows: list[Row] = []
    # What the exception holds is free only behind it.
    with suppress(torch.cuda.OutOfMemoryError):
        rows = _measure(clip, host, device, progress)
    torch.cuda.empty_cache()
    if not rows:
        raise BackendError(_what_fits(clip, device))
    return rows


def _measure(clip: Clip, host: HostAttention | None, device: torch.device, progress: Progress) -> list[Row]:
    """As :func:`measure_card`.

    Raises:
        OutOfMemoryError: the inputs or ours do not fit.
    """
    case = clip.case()
    case = replace(case, heads=_heads_in_time(case, device))
    inputs = video_inputs(case, device, DTYPE)
    dense = _dense(case, inputs, host)
    steps, whole = itertools.count(1), (len(dense) + 1 + len(_settings(case, device))) * (2 + _EFFORT.rounds)
    names = [contender.row.attention for contender in dense if isinstance(contender, Contender)]
    contenders = itertools.chain(dense, _ours(case, clip, inputs))
    rows = side_by_side(contenders, _EFFORT, names, lambda: progress(next(steps), whole))
    progress(whole, whole)
    if any(row.attention == PSA and row.refusal == OUT_OF_MEMORY for row in rows):
        raise torch.cuda.OutOfMemoryError
    return rows


def _dense(case: Case, inputs: Inputs, host: HostAttention | None) -> list[Contender | Row]:
    """The host's own first. One that is broken is a row that says so, whichever it is."""
    own = sdpa_contender(_PART, case, inputs, None) if host is None else host_contender(_PART, case, inputs, *host)
    cudnn = sdpa_contender(_PART, case, inputs)
    return [own, replace(cudnn, rival=True), *dense_rivals(_PART, case, inputs)]


def _ours(case: Case, clip: Clip, inputs: Inputs) -> Iterator[Contender | Row]:
    """The family's default preset as a run would take it, and the settings in the tensors' precision and in INT8."""
    name = clip.family.default
    preset = clip.family.presets[name]
    default = Row.of(_PART, case, PSA, importance=preset.importance, block_n=preset.block_n, preset=name)
    chosen = _settings(case, inputs.q.device)
    settings = ((setting.row(_PART, case), setting.config(case)) for setting in chosen)
    for row, config in ((default, preset), *settings):
        try:
            yield replace(psa_contender(row, case, config, inputs), rival=True)
        except Exception as failure:
            yield refused(row, failure)


def _settings(case: Case, device: torch.device) -> tuple[Setting, ...]:
    """One setting in the precision of the tensors, and in the coarsest that the GPU has."""
    coarsest = precisions(device, DTYPE, case.head_dim)[-1]
    return (_SETTING, *([replace(_SETTING, precision=coarsest)] if coarsest != PRECISIONS[0] else []))


def _heads_in_time(case: Case, device: torch.device) -> int:
    """How many of the heads can be measured within the time, by dense attention of some heads over some tokens."""
    heads, tokens = min(case.heads, _PROBED_HEADS), min(case.tokens, _PROBED_TOKENS)
    x = torch.randn(1, heads, tokens, case.head_dim, device=device, dtype=DTYPE)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(2):
        start.record()
        torch.nn.functional.scaled_dot_product_attention(x, x, x)
        end.record()
    end.synchronize()
    seconds_a_head = start.elapsed_time(end) / 1000 / heads * (case.tokens / tokens) ** 2
    return max(1, min(case.heads, int(_SECONDS_A_CALL / seconds_a_head)))


def _what_fits(clip: Clip, device: torch.device) -> str:
    """That a clip is too long, and half of it, or half of that, which is not: found by trying."""
    free, whole = (size / 2**30 for size in torch.cuda.mem_get_info(device))
    shorter = clip.shortened()
    while shorter is not None and not _fits(shorter, device):
        torch.cuda.empty_cache()
        shorter = shorter.shortened()
    torch.cuda.empty_cache()
    would = "not even one frame does" if shorter is None else f"{shorter.text()} would fit"
    return f"out of memory ({free:.1f} of {whole:.1f} GiB are free): {clip.text()} is too much, {would}"


def _fits(clip: Clip, device: torch.device) -> bool:
    case = clip.case()
    try:
        inputs = video_inputs(case, device, DTYPE)
        rows = [prepare(each) if isinstance(each, Contender) else each for each in _ours(case, clip, inputs)]
    except torch.cuda.OutOfMemoryError:
        return False
    return all(row.refusal != OUT_OF_MEMORY for row in rows)
