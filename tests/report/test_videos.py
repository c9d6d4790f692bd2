"""Video files, and several videos in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

iio = pytest.importorskip("imageio.v3")
pytest.importorskip("imageio_ffmpeg")

from psa_core.report.videos import as_bytes, side_by_side, write_video  # noqa: E402

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
    assert not list(tmp_path.iterdir())
