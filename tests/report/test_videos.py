"""Video files, and several videos in one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

iio = pytest.importorskip("imageio.v3")
pytest.importorskip("imageio_ffmpeg")

from psa_core.report import videos  # noqa: E402
from psa_core.report.videos import as_bytes, side_by_side, write_video  # noqa: E402
from psa_core.settings.files import WriteError  # noqa: E402

from ..support.limited_disk import ROOT, needs_limits, run_python  # noqa: E402

SIZE = 64


def flat(value: float) -> np.ndarray:
    return np.full((2, SIZE, SIZE, 3), value, dtype=np.float32)


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 2, 2), (5, 2, 3), (7, 3, 3)]
)
def test_every_video_stands_under_its_title(count: int, rows: int, columns: int) -> None:
    videos = [flat(0.1 * (index + 1)) for index in range(count)]
    frames = list(side_by_side(videos, ["a title"] * count))
    assert len(frames) == 2
    assert frames[0].shape == (rows * 96 + (rows - 1) * 16, columns * 64 + (columns - 1) * 16, 3)
    assert not any(side % 16 for side in frames[0].shape[:2])
    for index, video in enumerate(videos):
        top, left = (index // columns) * 112, (index % columns) * 80
        assert (frames[1][top + 32 : top + 96, left : left + 64] == as_bytes(video)[1]).all()
        title = frames[1][top : top + 32, left : left + 64]
        assert title.min() < 80
        assert (title[:, 0] == 255).all()


def test_frames_differ_over_time_and_do_not_share_memory() -> None:
    video = flat(0.0)
    video[1] = 1
    first, second = side_by_side([video], ["t"])
    assert (first[-1, -1, 0], second[-1, -1, 0]) == (0, 255)


def test_titles_shrink_to_their_column() -> None:
    large, small = (next(side_by_side([flat(0.5)], [title]))[:32] for title in ("0.21", "density 0.21"))
    assert (small[:, [0, -1]] == 255).all()

    def height(header: np.ndarray) -> int:
        return int((header.min(axis=(1, 2)) < 128).sum())

    assert height(large) > height(small) > 4


def test_a_large_video_has_a_larger_header() -> None:
    frame = next(side_by_side([np.zeros((1, 720, 1280, 3), dtype=np.uint8)], ["t"]))
    assert frame.shape == (768, 1280, 3)


def test_pixels_are_rounded_and_kept_in_range() -> None:
    assert as_bytes(np.array([-0.1, 0, 0.5019, 0.999, 1.2])).tolist() == [0, 0, 128, 255, 255]
    assert as_bytes(np.array([7], dtype=np.uint8)).tolist() == [7]


def test_a_file_has_every_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "x.mp4", side_by_side([flat(0.2), flat(0.8)], ["a", "b"]), 12)
    frames = iio.imread(tmp_path / "x.mp4", plugin="FFMPEG")
    assert frames.shape == (2, 96, 144, 3)
    assert np.abs(frames[1, 50, [20, 100]].mean(-1) - [51, 204]).max() < 8
    assert iio.immeta(tmp_path / "x.mp4", plugin="FFMPEG")["fps"] == 12


def test_a_file_that_cannot_be_finished_is_not_left_behind(tmp_path: Path) -> None:
    def frames():
        yield flat(0.5)[0]
        raise RuntimeError("out of frames")

    with pytest.raises(RuntimeError, match="out of frames"):
        write_video(tmp_path / "x.mp4", frames(), 12)
    with pytest.raises(ValueError, match="needs a frame"):
        write_video(tmp_path / "x.mp4", [], 12)
    assert not list(tmp_path.iterdir())


@needs_limits
@pytest.mark.parametrize("frames", [1, 40])
def test_a_full_disk_is_an_error_and_leaves_nothing(frames: int, tmp_path: Path) -> None:
    file = tmp_path / "x.mp4"
    code = (
        "import numpy as np; from pathlib import Path; from psa_core.report.videos import write_video\n"
        f"write_video(Path({str(file)!r}), np.random.default_rng(0).random(({frames}, 128, 128, 3)), 8)"
    )
    assert run_python(code, largest_file=1 << 22).returncode == 0
    assert iio.imread(file, plugin="FFMPEG").shape[0] == frames
    before = file.read_bytes()
    done = run_python(code, largest_file=8192)
    assert done.stderr.splitlines()[-1] == (
        f"psa_core.settings.files.WriteError: {file} cannot be written: ffmpeg failed: killed by SIGXFSZ"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]
    assert file.read_bytes() == before


def test_what_ffmpeg_cannot_do_it_says_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "_CODEC", ("-c:v", "nonesuch"))
    with pytest.raises(WriteError, match=r"x\.mp4 cannot be written: ffmpeg failed: .*Unknown encoder 'nonesuch'"):
        write_video(tmp_path / "x.mp4", flat(0.5), 12)
    monkeypatch.undo()
    odd = np.zeros((2, 33, 64, 3))
    with pytest.raises(WriteError, match=r"ffmpeg failed: .*height not divisible by 2 \(64x33\)"):
        write_video(tmp_path / "x.mp4", odd, 12)
    assert not list(tmp_path.iterdir())


def test_a_video_that_lacks_frames_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "_CODEC", (*videos._CODEC, "-frames:v", "3"))
    with pytest.raises(WriteError, match="ffmpeg has written 3 of 9 frames"):
        write_video(tmp_path / "x.mp4", np.zeros((9, 64, 64, 3)), 12)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signal")
def test_a_killed_process_leaves_no_broken_video(tmp_path: Path) -> None:
    file = tmp_path / "x.mp4"
    code = (
        "import numpy as np, time; from pathlib import Path; from psa_core.report.videos import write_video\n"
        "def frames():\n"
        "    for _ in range(1000): time.sleep(0.02); yield np.random.rand(128, 128, 3)\n"
        f"write_video(Path({str(file)!r}), frames(), 8)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while not any(tmp_path.iterdir()) and child.poll() is None:
        time.sleep(0.05)
    time.sleep(0.2)
    child.kill()
    assert child.wait() == -9
    (draft,) = tmp_path.iterdir()
    assert draft.name.startswith(".")
    end = time.monotonic() + 30
    # ffmpeg may go on for a moment with what it has.
    while draft.exists() and time.monotonic() < end:
        os.utime(draft, (0, 0))
        write_video(file, flat(0.5), 12)
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]
    assert len(iio.imread(file, plugin="FFMPEG")) == 2
