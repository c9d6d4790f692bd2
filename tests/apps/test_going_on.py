"""``psa compare`` and ``psa generate`` in the folder of a run that has ended early: killed, or by a full disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("skimage")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
iio = pytest.importorskip("imageio.v3")
pytest.importorskip("imageio_ffmpeg")

from psa_core.apps.compare import comparing, sampler  # noqa: E402
from psa_core.apps.generate import generating  # noqa: E402
from psa_core.settings.files import locked  # noqa: E402

from ..support.compare_command import FOX, FRAMES, Compare  # noqa: E402
from ..support.generate_command import Generate, errors  # noqa: E402
from ..support.limited_disk import needs_limits, run_python  # noqa: E402

PLENTY = 1 << 30


def killed_at(module: str, command: list[str], prompt: str) -> int:
    """Run a command in a process that is killed when it comes to a prompt; the exit code."""
    code = (
        "import os, signal, sys; from psa_core.apps.cli import main\n"
        f"import {module} as module\n"
        "sample = module.sample\n"
        "def fatal(pipeline, settings, prompt, **more):\n"
        f"    if prompt == {prompt!r}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return sample(pipeline, settings, prompt, **more)\n"
        "module.sample = fatal\n"
        f"sys.exit(main({command!r}))"
    )
    return run_python(code, PLENTY).returncode


def sampled(module: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """A list that fills with what runs: preset, prompt, seed."""
    ran: list[tuple[str, str, int]] = []
    sample = module.sample

    def counted(pipeline, settings, prompt, **more):
        ran.append((settings.preset, prompt, settings.seed))
        return sample(pipeline, settings, prompt, **more)

    monkeypatch.setattr(module, "sample", counted)
    return ran


@needs_limits
def test_a_killed_comparison_goes_on(compare: Compare, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    words, prompts = ["--presets", "coarse it", "--seeds", "3"], (FOX, "Waves", "Hills")
    assert killed_at("psa_core.apps.compare.sampler", compare.command(*words, prompts=prompts), "Waves") == -9
    before = compare.numbers()
    assert [clip["prompt"] for clip in before["clips"]] == [FOX]
    ran = sampled(sampler, monkeypatch)
    assert compare(*words, prompts=prompts) == 0
    assert ran == [(preset, prompt, 3) for prompt in ("Waves", "Hills") for preset in ("dense", "coarse it")]
    assert capsys.readouterr().out.startswith("1 of 3 comparisons were there\n")
    numbers = compare.numbers()
    assert [clip["prompt"] for clip in numbers["clips"]] == list(prompts)
    assert numbers["clips"][0] == before["clips"][0]
    assert numbers["attention_errors"] == before["attention_errors"]
    assert set(compare.page().links) == compare.names() - {"index.html"}


def test_a_clip_or_a_measurement_that_failed_is_made_again(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = sampler.sample

    def failing(pipeline, settings, prompt, measure_errors=False, **more):
        if settings.preset == "full" and (measure_errors or prompt == FOX):
            raise RuntimeError("no memory")
        return sample(pipeline, settings, prompt, measure_errors=measure_errors, **more)

    prompts = (FOX, "Waves")
    with monkeypatch.context() as patched:
        patched.setattr(sampler, "sample", failing)
        assert compare("--presets", "full", "fine", prompts=prompts) == 1
    ran = sampled(sampler, monkeypatch)
    assert compare("--presets", "full", "fine", prompts=prompts) == 0
    assert ran == [("full", FOX, 0), ("dense", FOX, 0), ("full", FOX, 0), ("fine", FOX, 0)]
    numbers = compare.numbers()
    assert numbers["failures"] == []
    assert set(numbers["attention_errors"]) == {"full", "fine"}
    assert [clip["video"][:2] for clip in numbers["clips"]] == ["01", "02"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"clips": 1}'])
def test_numbers_that_cannot_be_read_are_not_overwritten(text: str, compare: Compare, capsys) -> None:
    compare.output.mkdir(parents=True)
    (compare.output / "compare.json").write_text(text)
    assert compare("--presets", "full") == 2
    assert "--output = " in capsys.readouterr().err
    assert (compare.output / "compare.json").read_text() == text


def test_two_comparisons_do_not_share_a_folder(compare: Compare, capsys) -> None:
    with locked(compare.output):
        assert compare("--presets", "full") == 2
    assert errors(capsys.readouterr().err) == [
        f"psa: {compare.output} cannot be written: another process is writing there"
    ]


def test_times_of_another_machine_are_not_put_beside_these(compare: Compare, capsys, monkeypatch) -> None:
    assert compare("--presets", "full", "--no-errors") == 0
    monkeypatch.setattr(comparing, "gpu_name", lambda: "GPU <1>")
    assert compare("--presets", "full", "--no-errors") == 2
    assert "in compare.json gpu is nothing there and 'GPU <1>' here" in capsys.readouterr().err


@needs_limits
def test_a_comparison_on_a_full_disk_leaves_no_empty_page_and_goes_on(compare: Compare) -> None:
    command = compare.command("--presets", "coarse it", "--no-errors")
    code = f"import sys; from psa_core.apps.cli import main; sys.exit(main({command!r}))"
    full = run_python(code, largest_file=8192)
    assert full.returncode == 2
    picture = compare.output / "density-coarse it.png"
    assert errors(full.stderr)[-1] == f"psa: {picture} cannot be written: File too large"
    assert all((compare.output / name).stat().st_size for name in compare.names())
    assert not list(compare.output.glob(".*.tmp"))
    assert compare("--presets", "coarse it", "--no-errors") == 0
    assert len(compare.numbers()["clips"]) == 1


def test_presets_of_any_name_have_files(compare: Compare, tmp_path: Path) -> None:
    presets = ["a/b", "a_b", "A?B", "..", "CON", "x" * 300, "../../up"]
    ratios = "{1: [0, 0.3], 0: [0.3, 1]}"
    settings = f"{{type: psa, mask_mode: topk, mask_ratios: {ratios}, block_size: {{m: 64, n: 32}}}}"
    bodies = "".join(f"    {json.dumps(name)}: {settings}\n" for name in presets)
    (tmp_path / "odd.yaml").write_text(f"Wan2.1_1.3b:\n  attention_configs:\n{bodies}")
    words = ["--presets-file", str(tmp_path / "odd.yaml"), "--steps", "1"]
    assert compare(*words) == 0
    pictures = compare.numbers()["pictures"]
    for what in ("errors", "density"):
        assert list(pictures[what]) == presets
        names = list(pictures[what].values())
        assert len({name.casefold() for name in names}) == len(presets)
        assert all((compare.output / name).is_file() and "/" not in name for name in names)
    assert set(compare.page().links) == compare.names() - {"index.html"}
    assert compare(*words) == 0


@needs_limits
def test_a_killed_run_goes_on(generate: Generate, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--preset", "baseline", "--prompt", "Waves", "--prompt", "A red fox", "--steps", "1"]
    command = generate.command("Wan2.1_1.3b", *words, prompt="A red fox")
    assert killed_at("psa_core.apps.generate.generating", command, "Waves") == -9
    assert [document["prompt"] for document in generate.documents()] == ["A red fox"]
    before = generate.videos()
    ran = sampled(generating, monkeypatch)
    assert generate("Wan2.1_1.3b", *words, prompt="A red fox") == 0
    # One of the two that are alike was there.
    assert [prompt for _, prompt, _ in ran] == ["Waves", "A red fox"]
    out = capsys.readouterr().out.splitlines()
    assert (out[0], out[-1]) == ("1 of 3 videos were there", f"3 of 3 videos in {generate.output}")
    assert generate.videos()[:1] == before
    assert [document["prompt"] for document in generate.documents()] == ["A red fox", "Waves", "A red fox"]
    monkeypatch.setattr(generating, "load_pipeline", None)
    assert generate("Wan2.1_1.3b", *words, prompt="A red fox") == 0
    assert capsys.readouterr().out.splitlines()[0] == "3 of 3 videos were there"


def test_videos_of_other_settings_are_refused_with_the_first_difference(
    generate: Generate, capsys, monkeypatch
) -> None:
    words = ["--preset", "baseline", "--steps", "1"]
    assert generate("CogVideo_2b", *words) == 0
    capsys.readouterr()
    monkeypatch.setattr(generating, "load_pipeline", None)
    for more, difference in (
        (["--seed", "4"], "seed is 0 there and 4 here"),
        (["--steps", "2"], "steps is 1 there and 2 here"),
        (["--preset", "psa_balanced"], "preset is 'baseline' there and 'psa_balanced' here"),
        (["--min-tokens", "3"], "config.min_tokens is "),
        (["--negative-prompt", "x" * 5000], "negative_prompt is nothing there and 'xxx"),
    ):
        assert generate("CogVideo_2b", *words, *more) == 2
        (err,) = capsys.readouterr().err.splitlines()
        file = "01-a-red-fox-in-the-snow.json"
        assert f"holds what was made with other settings: in {file} {difference}" in err
        assert err.endswith("; give another folder")
        assert len(err) < 1000
    assert len(generate.videos()) == 1


@needs_limits
def test_a_video_on_a_full_disk_is_made_again(generate: Generate) -> None:
    words = ["--preset", "baseline", "--steps", "1"]
    command = generate.command("CogVideo_2b", *words)
    full = run_python(f"import sys; from psa_core.apps.cli import main; sys.exit(main({command!r}))", largest_file=4096)
    assert full.returncode == 1
    file = generate.output / "01-a-red-fox-in-the-snow.mp4"
    assert errors(full.stderr)[0].startswith(
        f"psa: prompt 1 failed: WriteError: {file} cannot be written: ffmpeg failed"
    )
    assert generate.names() == []
    assert not list(generate.output.glob(".*.tmp"))
    assert generate("CogVideo_2b", *words) == 0
    assert iio.imread(file, plugin="FFMPEG").shape[0] > FRAMES
