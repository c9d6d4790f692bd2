"""``psa compare``: what runs when, and what happens when something fails."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("skimage")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("imageio_ffmpeg")

from psa_core.apps.compare import comparing, sampler
from psa_core.apps.compare.comparison_settings import Clip
from psa_core.apps.compare.machine import dense_attention
from psa_core.apps.compare.results import ClipResult, Comparison, Take, summaries
from psa_core.apps.compare.table import rows

from ..support.compare_command import FOX, STEPS, Compare
from ..support.generate_command import errors

TWO = ("--presets", "full", "coarse it")


class Runs(list):
    """Every run of the pipeline: preset, prompt, seed, steps, whether errors were measured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.configs: list[Any] = []
        self._sample = sampler.sample
        monkeypatch.setattr(sampler, "sample", self)

    def __call__(self, pipeline, settings, prompt, *, measure_errors=False):
        self.append((settings.preset, prompt, settings.seed, settings.steps, measure_errors))
        self.configs.append(settings.config)
        self.fail(settings, prompt, measure_errors)
        return self._sample(pipeline, settings, prompt, measure_errors=measure_errors)

    def fail(self, settings, prompt: str, measure_errors: bool) -> None:
        """Nothing fails here."""


def test_timed_runs_come_last_and_measure_no_errors(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch)
    assert compare(*TWO, "--seeds", "5", "2", "5", prompts=("x",)) == 0
    measured = [("full", "x", 5, STEPS, True), ("coarse it", "x", 5, STEPS, True)]
    timed = [(preset, "x", seed, STEPS, False) for seed in (5, 2) for preset in ("dense", "full", "coarse it")]
    assert runs == measured + timed


def test_without_errors_nothing_runs_before_on_a_cpu(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch)
    assert compare(*TWO, "--no-errors") == 0
    assert runs == [(preset, FOX, 0, STEPS, False) for preset in ("dense", "full", "coarse it")]


@pytest.mark.parametrize("with_errors", [True, False])
def test_a_gpu_is_warmed_up_before_it_is_timed(with_errors: bool, compare: Compare, monkeypatch) -> None:
    monkeypatch.setattr(comparing, "gpu_name", lambda: "GPU <1>")
    runs = Runs(monkeypatch)
    words = [] if with_errors else ["--no-errors"]
    assert compare("--presets", "late", "coarse it", *words) == 0
    before = [(STEPS, True)] * 2 if with_errors else [(2, False)] * 2
    assert [run[3:] for run in runs] == [(2, False), *before, *[(STEPS, False)] * 3]
    if not with_errors:
        # What the preset runs dense at first would compile nothing of its own.
        assert [config.warmup_steps for config in runs.configs[1:]] == [0, 0, 0, 99, 0]
    times = {row["preset"]: (row["seconds"], row["speed_up"]) for row in compare.numbers()["summary"]}
    for seconds, speed_up in times.values():
        assert speed_up == pytest.approx(times["dense"][0] / seconds)
    page = compare.page()
    assert "GPU <1>" in page.texts
    assert f"{times['late'][1]:.2f}x" in page.texts
    assert not any("times on a CPU" in text for text in page.texts)


def test_a_clip_that_fails_does_not_stop_the_others(compare: Compare, capsys, monkeypatch) -> None:
    class Failing(Runs):
        def fail(self, settings, prompt, measure_errors) -> None:
            if prompt == "boom" and settings.preset == "dense":
                raise RuntimeError("out of words\nand more")

    runs = Failing(monkeypatch)
    assert compare("--presets", "full", prompts=("boom", "Waves")) == 1
    assert [run[:2] for run in runs] == [("full", "boom"), ("dense", "boom"), ("dense", "Waves"), ("full", "Waves")]
    out, err = capsys.readouterr()
    assert errors(err) == [
        "psa: 1 with dense failed: RuntimeError: out of words",
        f"psa: 1 of 2 comparisons in {compare.output}; failed: 1 with dense (RuntimeError: out of words)",
    ]
    assert out.startswith("attention ")
    first, second = compare.numbers()["clips"]
    assert (first["video"], second["video"]) == (None, "02-waves-seed-0.mp4")
    assert [take["report_line"] for take in first["takes"]] == ["failed: RuntimeError: out of words"]
    assert len(second["takes"]) == 2
    page = compare.page()
    assert "There is no video." in page.texts
    assert "1 with dense (RuntimeError: out of words)" in page.texts


def test_a_preset_that_fails_leaves_the_others(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Runs):
        def fail(self, settings, prompt, measure_errors) -> None:
            if settings.preset == "full":
                raise RuntimeError("no memory for errors" if measure_errors else "no memory")

    Failing(monkeypatch)
    assert compare(*TWO) == 1
    numbers = compare.numbers()
    assert numbers["failures"] == [
        "errors of full (RuntimeError: no memory for errors)",
        "1 with full (RuntimeError: no memory)",
    ]
    assert list(numbers["attention_errors"]) == ["coarse it"]
    full, coarse = numbers["summary"][1:]
    assert set(full.values()) == {"full", None}
    assert coarse["psnr"] > 20
    assert (numbers["clips"][0]["takes"][1]["report_line"]) == "failed: RuntimeError: no memory"
    assert all((compare.output / link).exists() for link in compare.page().links)


def test_a_video_that_is_not_numbers_has_failed(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = sampler.sample

    def broken(pipeline, settings, prompt, **more):
        made = sample(pipeline, settings, prompt, **more)
        if settings.preset == "full":
            made.frames[0, 0, 0, 0] = np.nan
        return made

    monkeypatch.setattr(sampler, "sample", broken)
    assert compare(*TWO, "--no-errors") == 1
    (failure,) = compare.numbers()["failures"]
    assert failure == "1 with full (ValueError: the video has pixels that are not numbers)"


def test_a_video_file_that_cannot_be_written_is_told(compare: Compare, capsys, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(comparing, "write_video", full)
    assert compare("--presets", "coarse it", "--no-errors") == 1
    assert "the video of 1 (OSError: [Errno 28] No space left on device)" in capsys.readouterr().err
    assert compare.summary()["coarse it"]["psnr"] > 20
    assert compare.numbers()["clips"][0]["video"] is None


def test_what_is_done_is_on_disk_before_the_next_clip(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Runs):
        def fail(self, settings, prompt, measure_errors) -> None:
            if prompt == "Waves":
                raise KeyboardInterrupt

    Interrupted(monkeypatch)
    assert compare("--presets", "full", prompts=(FOX, "Waves")) == 130
    assert len(compare.numbers()["clips"]) == 1
    assert "1 more to come: the comparison has not ended." in compare.page().texts


def test_speed_up_is_of_the_clips_that_both_have(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Comparison] = []
    monkeypatch.setattr(comparing, "write_page", found.append)
    assert compare(*TWO, "--no-errors") == 0
    comparison = found[0]
    comparison.gpu = "GPU"
    first = ClipResult(Clip("x", 0), [Take("dense", "", 8.0), Take("full", "", 2.0), Take("coarse it", "failed")])
    second = ClipResult(Clip("y", 0), [Take("dense", "", 4.0), Take("full", "", 4.0), Take("coarse it", "", 1.0)])
    comparison.clips = [first, second]
    assert [row.speed_up for row in summaries(comparison)] == [1, 2, 4]
    assert [row[3] for row in rows(comparison)] == ["1.00x", "2.00x", "4.00x"]


@pytest.mark.parametrize(
    ("processor", "chosen", "name"),
    [
        (SimpleNamespace(_attention_backend=None), None, "torch's scaled_dot_product_attention"),
        (SimpleNamespace(_attention_backend=None), "sage", "diffusers' sage backend"),
        # It knows no backends, whatever is chosen.
        (SimpleNamespace(), "sage", "torch's scaled_dot_product_attention"),
    ],
)
def test_the_dense_attention_is_named(processor, chosen: str | None, name: str, monkeypatch) -> None:
    monkeypatch.delenv("DIFFUSERS_ATTN_BACKEND", raising=False)
    if chosen:
        monkeypatch.setenv("DIFFUSERS_ATTN_BACKEND", chosen)
    attention = SimpleNamespace(processor=processor)
    pipeline = SimpleNamespace(transformer=SimpleNamespace(modules=lambda: [SimpleNamespace(), attention]))
    assert dense_attention(pipeline) == name


def test_the_same_seed_gives_what_psa_generate_gives(compare: Compare, tmp_path, monkeypatch) -> None:
    from psa_core.apps.generate import generating

    frames: dict[str, list[np.ndarray]] = {"generate": [], "compare": []}
    for name, module in (("generate", generating), ("compare", sampler)):
        sample = module.sample

        def kept(*arguments, name=name, sample=sample, **more):
            made = sample(*arguments, **more)
            frames[name].append(made.frames)
            return made

        monkeypatch.setattr(module, "sample", kept)
    words = ["--seeds", "4", "--presets", "coarse it", "--no-errors"]
    assert compare(*words) == 0
    from psa_core.apps.cli import main

    where = ["--path", str(compare.folder / "wan"), "--presets-file", str(compare.folder / "mine.yaml")]
    size = ["--width", "128", "--height", "96", "--frames", "5", "--steps", str(STEPS), "--model", "Wan2.1_1.3b"]
    attention = ["--preset", "coarse it", "--backend", "torch", "--min-tokens", "0", "--seed", "4"]
    assert main(["generate", *where, *size, *attention, "--prompt", FOX, "--output", str(tmp_path / "g")]) == 0
    assert np.array_equal(frames["generate"][0], frames["compare"][1])
    assert json.loads(next((tmp_path / "g").glob("*.json")).read_text())["preset"] == "coarse it"
