"""``psa compare``, from the command line to the page on disk, with a tiny random model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("skimage")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
iio = pytest.importorskip("imageio.v3")
pytest.importorskip("imageio_ffmpeg")

from ..support.compare_command import (  # noqa: E402
    FOX,
    FRAMES,
    HEIGHT,
    STEPS,
    WIDTH,
    Compare,
)
from ..support.tiny_pipelines import LAYERS  # noqa: E402

SPARSE = ["full", "fine", "coarse it"]
# Wan runs each step twice, with and without the prompt.
PASSES = 2


@pytest.fixture(name="done", scope="module")
def make_done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Compare:
    """A comparison of all presets, two prompts and two seeds."""
    compare = Compare(folder, tmp_path_factory.mktemp("done"))
    assert compare("--seeds", "0", "3", prompts=(FOX, "Waves")) == 0
    return compare


def test_every_file_is_there_and_every_link_finds_one(done: Compare) -> None:
    videos = {f"{i:02d}-{x}.mp4" for i, x in enumerate(("a-b-fox-b-friends-seed-0", "a-b-fox-b-friends-seed-3"), 1)}
    videos |= {"03-waves-seed-0.mp4", "04-waves-seed-3.mp4"}
    pictures = {f"{what}-{preset}.png" for what in ("errors", "density") for preset in SPARSE}
    assert done.names() == videos | pictures | {"compare.json", "index.html"}
    links = done.page().links
    assert set(links) == videos | pictures | {"compare.json"}


def test_the_page_needs_nothing_from_the_net_and_escapes_prompts(done: Compare) -> None:
    text = (done.output / "index.html").read_text(encoding="utf-8")
    assert "http" not in text
    page = done.page()
    assert not {"script", "link", "b"} & page.tags
    assert page.texts.count(FOX) == 2
    for shown in ("Seed 3", "coarse it", "128 x 96, 5 frames", "3 steps, guidance 5", "identical"):
        assert shown in page.texts
    assert any("first prompt and seed only" in text for text in page.texts)
    assert any("times on a CPU" in text for text in page.texts)
    assert any("under 20 dB it is another video" in text for text in page.texts)


def test_every_number_of_json_that_a_row_shows_is_on_the_page(done: Compare) -> None:
    texts = done.page().texts
    for row in done.summary().values():
        if row["density"] is not None:
            assert f"{row['density']:.3f}" in texts
        if row["error"] is not None:
            assert f"{row['error']:.3g}" in texts
        if isinstance(row["psnr"], float):
            assert f"{row['psnr']:.2f} dB" in texts
            assert f"{row['flicker']:.3f}" in texts


def test_a_video_shows_every_attention_and_that_of_the_seed(done: Compare) -> None:
    shown = [iio.imread(file, plugin="FFMPEG") for file in sorted(done.output.glob("*.mp4"))]
    for frames in shown:
        assert frames.shape == (FRAMES, 2 * (HEIGHT + 32) + 16, 3 * WIDTH + 32, 3)
    # The dense columns of both seeds, and of both prompts.
    first, second, third, _ = (frames[:, 32 : 32 + HEIGHT, :WIDTH].astype(int) for frames in shown)
    assert np.abs(first - second).mean() > 1
    assert np.abs(first - third).any()


def test_presets_that_see_less_are_further_away(done: Compare) -> None:
    rows = done.summary()
    assert list(rows) == ["dense", *SPARSE, "late"]
    full, fine, coarse = (rows[preset] for preset in SPARSE)
    assert full["psnr"] == "identical" or full["psnr"] > 90
    assert full["error"] < 1e-5
    assert full["density"] == 1 > fine["density"] > coarse["density"] > 0.2
    assert coarse["psnr"] < fine["psnr"] - 3
    assert coarse["ssim"] < fine["ssim"] < 1
    assert coarse["flicker"] > fine["flicker"] > 0
    assert coarse["error"] > fine["error"] > 100 * full["error"]
    assert (full["sparse_share"], fine["sparse_share"]) == pytest.approx((2 / 3, 1))
    assert {(row["speed_up"], row["lpips"]) for row in rows.values()} == {(None, None)}
    assert all(row["seconds"] > 0 for row in rows.values())
    assert (rows["dense"]["psnr"], rows["dense"]["error"], rows["dense"]["density"]) == (None, None, 1)


def test_means_are_those_of_the_clips(done: Compare) -> None:
    clips = done.numbers()["clips"]
    assert [(clip["prompt"], clip["seed"]) for clip in clips] == [(FOX, 0), (FOX, 3), ("Waves", 0), ("Waves", 3)]
    for preset, row in done.summary().items():
        takes = [take for clip in clips for take in clip["takes"] if take["preset"] == preset]
        assert len(takes) == 4
        assert row["seconds"] == pytest.approx(sum(take["seconds"] for take in takes) / 4)
        if preset in ("fine", "coarse it"):
            for key in ("psnr", "ssim", "flicker"):
                assert row[key] == pytest.approx(sum(take["quality"][key] for take in takes) / 4)
            for key in ("psnr", "ssim"):
                assert len(takes[0]["quality"]["frames"][key]) == FRAMES


def test_errors_are_there_for_every_sparse_call(done: Compare) -> None:
    errors = done.numbers()["attention_errors"]
    assert list(errors) == [*SPARSE, "late"]
    assert errors["late"] == {"mean": None, "by_step": {}, "by_layer": {}, "calls": []}
    # "full" has a step of warm-up.
    for preset, steps in (("full", (1, 2)), ("fine", (0, 1, 2)), ("coarse it", (0, 1, 2))):
        found = errors[preset]
        calls = [(call["step"], call["layer"]) for call in found["calls"]]
        assert sorted(calls) == sorted((s, n) for s in steps for n in range(LAYERS) for _ in range(PASSES))
        assert (set(found["by_step"]), set(found["by_layer"])) == ({str(s) for s in steps}, {"0", "1"})
        last = [call["error"] for call in found["calls"] if call["step"] == 2]
        assert found["by_step"]["2"] == pytest.approx(sum(last) / len(last))
        second = [call["error"] for call in found["calls"] if call["layer"] == 1]
        assert found["by_layer"]["1"] == pytest.approx(sum(second) / len(second))
        assert found["mean"] == pytest.approx(sum(found["by_step"].values()) / len(steps))


def test_what_runs_nothing_sparse_says_why(done: Compare) -> None:
    row = done.summary()["late"]
    assert (row["density"], row["sparse_share"], row["psnr"]) == (None, 0, "identical")
    assert row["why_dense"] == f"PSA: no call ran sparse | 0 sparse, 12 dense (warm-up {STEPS * LAYERS * PASSES})"
    assert f"late: {row['why_dense']}" in done.page().texts


def test_settings_are_kept(done: Compare) -> None:
    numbers = done.numbers()
    settings = numbers["settings"]
    assert (settings["prompts"], settings["seeds"]) == ([FOX, "Waves"], [0, 3])
    assert (settings["steps"], settings["guidance"], settings["flow_shift"]) == (STEPS, 5.0, 3.0)
    assert list(settings["presets"]) == [*SPARSE, "late"]
    assert settings["presets"]["fine"]["block_size"]["n"] == 32
    assert (numbers["gpu"], numbers["dense_attention"]) == (None, "torch's scaled_dot_product_attention")
    assert set(numbers["versions"]) == {"psa", "torch", "diffusers"}


@pytest.mark.parametrize(
    ("words", "prompts", "difference"),
    [
        ([], (FOX, "Waves"), "settings.seeds.1 is 3 there and nothing here"),
        (["--seeds", "0", "3"], (FOX, "Hills"), "settings.prompts.1 is 'Waves' there and 'Hills' here"),
        (["--seeds", "0", "3", "--steps", "2"], (FOX, "Waves"), "settings.steps is 3 there and 2 here"),
        (["--seeds", "0", "3", "--presets", "full", "fine"], (FOX, "Waves"), "settings.presets.coarse it is {"),
        (["--seeds", "0", "3", "--no-errors"], (FOX, "Waves"), "settings.measure_errors is True there and False here"),
        (["--seeds", "0", "3", "--min-tokens", "1"], (FOX, "Waves"), "settings.presets.full.min_tokens is 0 there and"),
    ],
)
def test_another_comparison_is_refused_with_the_first_difference(
    words: list[str], prompts: tuple[str, ...], difference: str, done: Compare, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("psa_core.apps.compare.comparing.load_pipeline", None)
    before = (done.output / "compare.json").read_bytes()
    assert done(*words, prompts=prompts) == 2
    err = capsys.readouterr().err
    assert f"holds what was made with other settings: in compare.json {difference}" in err
    assert err.count("\n") == 1
    assert (done.output / "compare.json").read_bytes() == before


def test_a_comparison_that_is_there_is_not_made_again(done: Compare, capsys, monkeypatch) -> None:
    monkeypatch.setattr("psa_core.apps.compare.comparing.load_pipeline", None)
    before = {name: (done.output / name).read_bytes() for name in done.names()}
    (done.output / "index.html").unlink()
    assert done("--seeds", "0", "3", prompts=(FOX, "Waves")) == 0
    assert capsys.readouterr().out.startswith("4 of 4 comparisons were there\nattention ")
    assert {name: (done.output / name).read_bytes() for name in done.names()} == before


def test_the_shell_shows_the_table(compare: Compare, capsys) -> None:
    assert compare("--presets", "coarse it", "plain", "--no-errors") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["attention", "density", "calls", "sparse", "speed-up", "PSNR", "SSIM", "flicker"]
    row = compare.summary()["coarse it"]
    numbers = [f"{row['density']:.3f}", "100%", "-", f"{row['psnr']:.2f}", "dB", f"{row['ssim']:.4f}"]
    numbers.append(f"{row['flicker']:.3f}")
    assert lines[2].split() == ["coarse", "it", *numbers]
    # A dense preset shows that a seed gives the same video again.
    assert lines[3].split() == ["plain", "-", "0%", "-", "identical", "1.0000", "0.000"]
    assert "plain: attention as it is" in lines
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[-1] == f"1 of 1 comparison in {compare.output}; open {compare.output / 'index.html'}"
    assert "3/3 plain: 100%" in err
    assert not [name for name in compare.names() if name.startswith("errors")]
    assert compare.numbers()["attention_errors"] == {}
    assert "attention error" not in compare.page().texts


def test_without_the_kernels_every_row_says_so(compare: Compare) -> None:
    assert compare("--presets", "fine", backend="auto") == 0
    row = compare.summary()["fine"]
    assert (row["psnr"], row["error"]) == ("identical", None)
    assert row["why_dense"].startswith("PSA: no call ran sparse | 0 sparse, 12 dense (")
    assert compare.names() == {"01-a-b-fox-b-friends-seed-0.mp4", "compare.json", "index.html"}


def test_options_of_the_attention_change_every_preset(compare: Compare) -> None:
    assert compare("--presets", "full", "coarse it", "--schedule", "last_dense=1", "dense_layers=1", "warmup=0") == 0
    for errors in compare.numbers()["attention_errors"].values():
        assert {(call["step"], call["layer"]) for call in errors["calls"]} == {(0, 0), (1, 0)}


def test_lpips_has_a_column_where_it_is_installed(compare: Compare, monkeypatch, capsys) -> None:
    monkeypatch.setattr("psa_core.apps.compare.comparing.load_lpips", lambda: lambda x, y: float(np.abs(x - y).mean()))
    assert compare("--presets", "coarse it", "--no-errors") == 0
    row = compare.summary()["coarse it"]
    assert row["lpips"] > 0
    assert "LPIPS" in capsys.readouterr().out.splitlines()[0]
    page = compare.page()
    assert page.texts.count("LPIPS") == 2
    assert page.texts.count(f"{row['lpips']:.4f}") == 2
    assert not any("LPIPS is left out" in text for text in page.texts)


def strict(name: str):
    raise AssertionError(f"{name} in JSON")


def test_json_holds_numbers_only(done: Compare) -> None:
    json.loads((done.output / "compare.json").read_text(encoding="utf-8"), parse_constant=strict)
    assert math.isfinite(done.summary()["fine"]["psnr"])
