"""The doctor's measurements: what it says of them, and when it has none. Times are made up but for those of a GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from psa_core import pyramid_sparse_attention
from psa_core.apps.bench import ours, side_by_side, timing
from psa_core.apps.bench.cases import COGVIDEOX, COGVIDEOX_1_5, WAN_14B, WAN_480P
from psa_core.apps.bench.results import PSA, Machine, Results, Row
from psa_core.apps.bench.rivals import CUDNN, FLASH, INT8, SAGE, TORCH
from psa_core.apps.bench.timing import Contender, Effort, Timing
from psa_core.apps.cli import main
from psa_core.apps.doctor import measure
from psa_core.apps.doctor.clip import DEFAULT_FAMILY, Clip
from psa_core.apps.doctor.diagnosis import Diagnosis, Host, diagnose
from psa_core.apps.doctor.measure import HostAttention
from psa_core.ops.backends import BackendError
from psa_core.settings.presets import bundled_dir, load_families

CPU = torch.device("cpu")
SMALL = Clip.of(DEFAULT_FAMILY, 256, 128, 17, heads=(2, 64))
OWN = HostAttention("the host's own", scaled_dot_product_attention)


def test_a_clip_has_the_tokens_of_its_model() -> None:
    clips = [
        (Clip.of("Wan2.1_1.3b", 832, 480, 81), WAN_480P),
        (Clip.of("Wan2.1_14b", 832, 480, 81), WAN_14B),
        (Clip.of("CogVideo_5b", 720, 480, 49), COGVIDEOX),
        (Clip.of("CogVideo1.5_5b", 1360, 768, 81), COGVIDEOX_1_5),
    ]
    for clip, case in clips:
        assert replace(clip.case(), name=case.name) == case
    assert Clip.of("Wan2.2_5B", 1280, 704, 121).case().grid == (31, 22, 40)
    videos = [name for name, family in load_families(bundled_dir()).items() if not family.host]
    assert {family: Clip.of(family, 832, 480, 81).family.name for family in videos}


def test_a_clip_is_halved_down_to_one_frame() -> None:
    clip: Clip | None = Clip.of(DEFAULT_FAMILY, 832, 480, 81)
    frames = []
    while clip is not None:
        frames.append(clip.frames)
        clip = clip.shortened()
    assert frames == [81, 41, 21, 11, 6, 3, 2, 1]


def made_up_times(contenders: Sequence[Contender], effort: Effort, tick: Callable[[], None]) -> list[Timing]:
    """Halved from each to the next."""
    for _ in range((1 + effort.rounds) * len(contenders)):
        tick()
    return [Timing(16 / 2**i, 0.1) for i in range(len(contenders))]


def without_kernels(*args: Any, backend: str, **kwargs: Any) -> Any:
    return pyramid_sparse_attention(*args, backend="torch", **kwargs)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is this CPU: everything runs, ours without kernels, and is checked, and no time is real."""
    monkeypatch.setattr(measure, "gpu", lambda who, device, head_dim: CPU)
    monkeypatch.setattr(measure, "DTYPE", torch.float32)
    monkeypatch.setattr(measure, "_heads_in_time", lambda case, device: case.heads)
    monkeypatch.setattr(side_by_side, "measure", made_up_times)
    monkeypatch.setattr(ours, "pyramid_sparse_attention", without_kernels)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (3 << 30, 8 << 30))
    for name in ("comfy_kitchen", "sageattention"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def sage(monkeypatch: pytest.MonkeyPatch, pretended: None) -> SimpleNamespace:
    """A package in the place of SageAttention, whose attention a test sets."""
    package = SimpleNamespace(sageattn=lambda q, k, v, tensor_layout, is_causal: scaled_dot_product_attention(q, k, v))
    monkeypatch.setitem(sys.modules, "sageattention", package)  # type: ignore[arg-type]
    return package


def by_name(rows: Sequence[Row]) -> dict[str, Row]:
    return {row.preset or row.attention: row for row in rows}


@pytest.mark.usefixtures("pretended")
def test_everything_is_checked_and_measured_against_the_host_s_own() -> None:
    steps: list[tuple[int, int]] = []

    diagnosis = diagnose(SMALL, Host(attention=OWN), lambda done, whole: steps.append((done, whole)))

    rows = by_name(diagnosis.results.rows)
    assert diagnosis.reason is None
    assert diagnosis.results.dense == OWN.name
    assert list(rows)[:1] == [OWN.name]
    assert set(rows) == {OWN.name, CUDNN, FLASH, INT8, SAGE, PSA, "psa_balanced"}
    for name in (OWN.name, "psa_balanced", PSA):
        assert rows[name].ms
        assert rows[name].ratio == 16 / rows[name].ms
        assert rows[name].error is not None
        assert rows[name].error < 1e-4
    assert 0 < (rows["psa_balanced"].reached_density or 0) <= 1
    assert (rows[OWN.name].tokens, rows[OWN.name].heads, rows[OWN.name].head_dim) == (640, 2, 64)
    assert f"dense_backend model, as no other is faster than {OWN.name} here" in diagnosis.text()
    # No kernel of cuDNN's runs here.
    assert "cuDNN's attention does not run here" in (rows[CUDNN].refusal or "")
    assert rows[SAGE].refusal == "SageAttention is not installed"
    done, whole = zip(*steps, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == whole[-1]
    assert max(done) <= min(whole)


@pytest.mark.usefixtures("pretended")
def test_where_a_gpu_has_it_int8_is_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "precisions", lambda *_: ("bf16", "int8"))
    steps: list[tuple[int, int]] = []
    diagnosis = diagnose(SMALL, progress=lambda done, whole: steps.append((done, whole)))
    (row,) = [row for row in diagnosis.results.rows if row.precision is not None]
    assert row.precision == "int8"
    assert row.ms
    assert "n = 128, mean, int8" in diagnosis.text()
    assert max(done for done, _ in steps) <= steps[-1][1]


def test_it_says_which_dense_backend_to_choose() -> None:
    def advice(**ratios: float) -> str:
        names = {"cudnn": CUDNN, "kitchen": INT8, "sage": SAGE, "flash": FLASH}
        rows = [replace(Row.of("doctor", WAN_480P, names[key]), ms=1.0, ratio=ratio) for key, ratio in ratios.items()]
        return Diagnosis([("psa", "1")], SMALL, Results(Machine.here(), OWN.name, rows)).dense_advice()

    own = OWN.name
    assert advice(cudnn=1.38, flash=2) == f"For dense steps: dense_backend cudnn, 1.38x as fast as {own}."
    assert (
        advice(cudnn=1.03, flash=2) == f"For dense steps: dense_backend model, as no other is faster than {own} here."
    )
    assert advice(cudnn=1.2, kitchen=1.9, sage=1.1) == (
        f"For dense steps: dense_backend cudnn, 1.20x as fast as {own}; "
        f"or dense_backend comfy_kitchen, 1.90x as fast as {own}, in INT8, which is an approximation."
    )


@pytest.mark.usefixtures("pretended")
def test_without_a_host_torch_s_choice_is_what_ratios_are_against() -> None:
    results = diagnose(SMALL).results

    assert results.dense == TORCH
    assert by_name(results.rows)[TORCH].ratio == 1


def test_sage_attention_takes_part_where_it_is_installed(sage: SimpleNamespace) -> None:
    row = by_name(measure.measure_card(SMALL, OWN))[SAGE]

    assert row.refusal is None
    assert row.ms


def broken(*_: Any, **__: Any) -> torch.Tensor:
    raise RuntimeError("no kernel image is available\nand much more")


def wrong(q: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return torch.zeros_like(q)


def does_not_fit(*_: Any, **__: Any) -> torch.Tensor:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate much")


@pytest.mark.parametrize(
    ("attention", "said"),
    [
        (broken, "no kernel image is available"),
        (wrong, "SageAttention, Wan2.1_1.3b, 640 tokens: wrong result, relative error 1 where 0.2 is allowed"),
        (does_not_fit, "out of memory"),
    ],
)
def test_a_broken_rival_is_named_with_its_reason_and_has_no_time(
    sage: SimpleNamespace, attention: Any, said: str
) -> None:
    sage.sageattn = attention

    diagnosis = diagnose(SMALL, Host(attention=OWN))

    row = by_name(diagnosis.results.rows)[SAGE]
    assert (row.refusal, row.ms, row.ratio) == (said, None, None)
    assert f"- SageAttention: {said}" in diagnosis.text()
    assert by_name(diagnosis.results.rows)["psa_balanced"].ms


@pytest.mark.usefixtures("pretended")
def test_where_the_host_s_own_is_broken_ratios_are_against_the_next_and_said_so() -> None:
    diagnosis = diagnose(SMALL, Host(attention=HostAttention("the host's own", broken)))

    assert diagnosis.results.dense == FLASH
    assert f"x as fast as {FLASH}: 640 tokens" in diagnosis.text()
    assert "- the host's own: no kernel image is available" in diagnosis.text()


@pytest.mark.usefixtures("pretended")
def test_a_wrong_result_of_ours_is_a_line_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real = measure.psa_contender
    monkeypatch.setattr(measure, "psa_contender", lambda *args: replace(real(*args), error=lambda: float("nan")))

    diagnosis = diagnose(SMALL, Host(attention=OWN))

    assert "wrong result, relative error nan" in (by_name(diagnosis.results.rows)["psa_balanced"].refusal or "")
    assert by_name(diagnosis.results.rows)[OWN.name].ms


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize(
    ("most", "said"),
    [(640, None), (639, "(Wan2.1_1.3b, 256 x 128, 9 frames), 2 heads of 64 would fit"), (1, "not even one frame does")],
)
def test_out_of_memory_says_what_would_fit(monkeypatch: pytest.MonkeyPatch, most: int, said: str | None) -> None:
    real = measure.video_inputs

    def small_memory(case: Any, *rest: Any) -> Any:
        return real(case, *rest) if case.tokens <= most else does_not_fit()

    monkeypatch.setattr(measure, "video_inputs", small_memory)

    diagnosis = diagnose(SMALL, Host(attention=OWN))

    assert (diagnosis.reason is None) == (said is None)
    if said is not None:
        assert (
            f"Not measured: out of memory (3.0 of 8.0 GiB are free): {SMALL.text()} is too much, " in diagnosis.text()
        )
        assert diagnosis.text().endswith(said)


@pytest.mark.usefixtures("pretended")
def test_out_of_memory_in_ours_counts_as_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    real = measure.psa_contender

    def small_memory(row: Row, *rest: Any) -> Contender:
        if row.tokens > 400:
            does_not_fit()
        return real(row, *rest)

    monkeypatch.setattr(measure, "psa_contender", small_memory)
    with pytest.raises(BackendError, match=r"out of memory .* 9 frames\), 2 heads of 64 would fit"):
        measure.measure_card(SMALL, OWN)


@pytest.mark.usefixtures("pretended")
def test_what_progress_raises_stops_it() -> None:
    class Cancelled(BaseException):
        pass

    def cancel(done: int, whole: int) -> None:
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        diagnose(SMALL, Host(attention=OWN), cancel)


def test_a_cpu_is_never_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(measure, "_measure", never)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    diagnosis = diagnose(SMALL, Host(attention=OWN))
    assert diagnosis.reason == "measuring speed needs a CUDA GPU, and torch sees none here"
    assert list(diagnosis.results.rows) == []
    # A GPU is there, and the host was told to leave it alone.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(Machine, "here", lambda comfyui: Machine("Card", None, "0", "0", "2000-01-01"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    diagnosis = diagnose(SMALL, Host(attention=OWN, device=CPU))
    assert diagnosis.reason == "measuring speed: the model runs on cpu, not on an NVIDIA or AMD GPU"
    assert "ms" not in diagnosis.text().rpartition("Not measured")[2]


def test_rounds_end_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    ticks: list[None] = []
    monkeypatch.setattr(timing, "_batch", lambda contender, calls: ([1.0] * calls, 0.1))
    monkeypatch.setattr(timing.time, "monotonic", lambda: next(clock))
    contender = Contender(Row.of("doctor", WAN_480P, TORCH), lambda: None)

    timing.measure([contender], Effort(rounds=9, seconds=2.5), lambda: ticks.append(None))

    # The clock is read at the start, and before each round but the first.
    assert len(ticks) == 1 + 3


@pytest.mark.gpu
def test_the_whole_measurement_on_this_gpu(tmp_path: Path) -> None:
    file = tmp_path / "doctor.json"
    began = timing.time.monotonic()
    assert main(["doctor", "--measure", "--json", str(file)]) == 0
    seconds = timing.time.monotonic() - began
    document = json.loads(file.read_text(encoding="utf-8"))
    print(json.dumps(document, indent=1))
    assert document["not_measured"] is None
    rows = {row["preset"] or row["precision"] or row["attention"]: row for row in document["rows"]}
    for name in (TORCH, "psa_balanced", PSA):
        assert rows[name]["ms"] > 0
        assert rows[name]["ratio"] > 0
        assert rows[name]["error"] < 1e-2
    if torch.cuda.get_device_capability() >= (8, 9) and torch.cuda.get_device_capability()[0] != 10:
        assert rows["int8+fp8"]["ms"] > 0
        assert rows["int8+fp8"]["error"] < 5e-2
    assert rows[TORCH]["ratio"] == 1
    assert all(row["refusal"] for row in document["rows"] if row["ms"] is None)
    # Of these a part compiles kernels the first time.
    assert seconds < 120
