"""Files that are written whole or not at all, their lock, and their names."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from psa_core.settings import files
from psa_core.settings.files import WriteError, file_name, file_names, locked, write_json, write_text, written_whole

from ..support.limited_disk import ROOT, needs_limits, run_python


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


class TestWhole:
    def test_a_file_is_the_old_one_until_it_is_the_new_one(self, tmp_path: Path) -> None:
        file = tmp_path / "new" / "x.txt"
        write_text(file, "old")
        with written_whole(file) as draft:
            draft.write_text("new")
            assert (file.read_text(), draft.parent) == ("old", file.parent)
        assert file.read_text() == "new"
        assert names(file.parent) == ["x.txt"]

    def test_what_fails_leaves_what_was_there(self, tmp_path: Path) -> None:
        file = tmp_path / "x.txt"

        def interrupted() -> None:
            with written_whole(file) as draft:
                draft.write_text("half")
                raise KeyboardInterrupt

        for before in ([], ["x.txt"]):
            with pytest.raises(KeyboardInterrupt):
                interrupted()
            assert names(tmp_path) == before
            write_text(file, "old")
        assert file.read_text() == "old"

    def test_the_error_says_which_file_and_why(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for file, why in ((tmp_path / "file" / "x.json", "Not a directory|File exists"), (tmp_path, "Is a directory")):
            with pytest.raises(WriteError, match=f"^{re.escape(str(file))} cannot be written: ({why})$"):
                write_json(file, {})
        assert names(tmp_path) == ["file"]

    @pytest.mark.parametrize("name", ["x" * 300, "nul\0", "x" * 9000])
    def test_a_name_that_no_file_can_have_is_said_in_a_line(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(WriteError, match=r"\A[^\n]+ cannot be written: [^\n]+\Z") as caught:
            write_text(tmp_path / name, "")
        assert len(str(caught.value)) < 600
        assert names(tmp_path) == []

    @needs_limits
    @pytest.mark.parametrize("write", ["write_text(file, 'x' * 20000)", "write_json(file, ['x' * 20000])"])
    def test_a_disk_that_is_full_is_said_and_the_old_file_stays(self, tmp_path: Path, write: str) -> None:
        file = tmp_path / "x.json"
        file.write_text("old")
        code = f"from psa_core.settings.files import *; from pathlib import Path; file = Path({str(file)!r}); {write}"
        done = run_python(code, largest_file=8192)
        assert done.stderr.splitlines()[-1].endswith(f"WriteError: {file} cannot be written: File too large")
        assert file.read_text() == "old"
        assert names(tmp_path) == ["x.json"]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device")
    def test_a_device_is_written_itself(self, tmp_path: Path) -> None:
        # A link, so that the device is safe whatever happens to it.
        (tmp_path / "full").symlink_to("/dev/full")
        with pytest.raises(WriteError, match="full cannot be written: No space left on device"):
            write_text(tmp_path / "full", "x")
        (tmp_path / "null").symlink_to("/dev/null")
        write_text(tmp_path / "null", "x")
        assert names(tmp_path) == ["full", "null"]
        assert (tmp_path / "null").is_char_device()

    def test_a_link_stays_one(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        link, file = tmp_path / "x.txt", tmp_path / "there" / "y.txt"
        file.write_text("old")
        try:
            link.symlink_to(file)
        except OSError:
            pytest.skip("links need a right here")
        write_text(link, "new")
        assert link.is_symlink()
        assert file.read_text() == "new"

    @pytest.mark.skipif(sys.platform == "win32", reason="has no such modes")
    def test_modes_are_those_of_other_files(self, tmp_path: Path) -> None:
        for name in ("plain", "new", "shared"):
            (tmp_path / name).touch() if name != "new" else write_text(tmp_path / name, "")
        (tmp_path / "shared").chmod(0o664)
        write_text(tmp_path / "shared", "")
        plain, new, shared = ((tmp_path / name).stat().st_mode & 0o777 for name in ("plain", "new", "shared"))
        assert (new, shared) == (plain, 0o664)

    def test_drafts_of_the_killed_are_removed_and_those_of_the_living_stay(self, tmp_path: Path) -> None:
        file = tmp_path / "x.txt"
        code = (
            "from psa_core.settings.files import *; from pathlib import Path; import time\n"
            f"with written_whole(Path({str(file)!r})) as draft:\n"
            "    draft.write_text('half'); print(flush=True); time.sleep(60)"
        )
        child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        child.kill()
        child.communicate()
        (draft,) = tmp_path.iterdir()
        assert draft.name.startswith(".")
        write_text(file, "new")
        assert names(tmp_path) == sorted([draft.name, "x.txt"])
        os.utime(draft, (0, time.time() - 2 * 3600))
        write_text(file, "newer")
        assert names(tmp_path) == ["x.txt"]

    def test_a_file_that_windows_holds_for_a_moment_is_waited_for(self, tmp_path: Path, monkeypatch) -> None:
        replace, tries = Path.replace, []

        def held(draft: Path, target: Path) -> Path:
            tries.append(draft)
            if len(tries) < 3:
                error = PermissionError(13, "Permission denied")
                error.winerror = 32
                raise error
            return replace(draft, target)

        monkeypatch.setattr(Path, "replace", held)
        write_text(tmp_path / "x.txt", "new")
        assert len(tries) == 3
        assert names(tmp_path) == ["x.txt"]

    def test_letters_that_are_none_are_written_as_json_has_them(self, tmp_path: Path) -> None:
        write_json(tmp_path / "x.json", ["ä\udc80"])
        assert (tmp_path / "x.json").read_bytes() == '[\n "ä\\udc80"\n]\n'.encode()
        assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == ["ä\udc80"]


class TestLock:
    def test_threads_take_turns(self, tmp_path: Path) -> None:
        inside: list[int] = []

        def enter() -> None:
            with locked(tmp_path):
                inside.append(1)
                time.sleep(0.02)
                inside.append(-1)

        threads = [threading.Thread(target=enter) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert inside == [1, -1] * 5

    def test_one_that_stays_is_not_waited_for_without_end(self, tmp_path: Path) -> None:
        said = f"^{re.escape(str(tmp_path))} cannot be written: another process is writing there$"
        with locked(tmp_path), pytest.raises(WriteError, match=said), locked(tmp_path, wait=0.05):
            pass
        with locked(tmp_path, wait=0):
            pass

    def test_a_folder_that_cannot_be_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(WriteError, match=r"file.x cannot be written"), locked(tmp_path / "file" / "x"):
            pass

    @pytest.mark.skipif(sys.platform == "win32", reason="has no such signal")
    def test_a_killed_process_holds_nothing(self, tmp_path: Path) -> None:
        code = (
            "from psa_core.settings.files import *; from pathlib import Path; import time\n"
            f"with locked(Path({str(tmp_path)!r})): print(flush=True); time.sleep(60)"
        )
        child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(WriteError), locked(tmp_path, wait=0.05):
            pass
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        with locked(tmp_path, wait=0.05):
            pass


class TestNames:
    @pytest.mark.parametrize("text", ["psa_balanced", "coarse it", "mine@a+", "1.5-b", "雪", "ü"])
    def test_plain_texts_stay(self, text: str) -> None:
        assert file_name(text) == text

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("a/b", "a_b"),
            ("a\\b:c", "a_b_c"),
            ("..", "_"),
            ("../../x", "_.._x"),
            (" .x. ", "x"),
            ("", "_"),
            ("a\0b\nc", "a_b_c"),
            ('<a>*?|"', "_a_____"),
            ("\udc80", "_"),
            ("CON", "_CON"),
            ("nul.txt", "_nul.txt"),
            ("com1", "_com1"),
            ("console", "console"),
            ("u\u0308", "ü"),
        ],
    )
    def test_what_some_disk_would_not_take_is_replaced(self, text: str, name: str) -> None:
        assert file_name(text) == name

    @pytest.mark.parametrize("letter", ["x", "ä", "雪", "𠀀"])
    def test_long_ones_are_cut(self, letter: str, tmp_path: Path) -> None:
        name = file_name(letter * 5000)
        assert set(name) == {letter}
        assert 96 < len(name.encode()) <= 100
        write_text(tmp_path / f"errors-{name}.png", "")

    def test_no_two_are_alike_in_any_case(self) -> None:
        texts = ["a/b", "a_b", "A?B", "a_b-2", "x" * 200, "x" * 300, "a/b"]
        made = file_names(texts)
        assert list(made) == texts[:-1]
        assert [made[text] for text in texts[:4]] == ["a_b", "a_b-2", "A_B-3", "a_b-2-2"]
        assert len({name.casefold() for name in made.values()}) == 6


def test_only_a_busy_file_is_waited_for(tmp_path: Path, monkeypatch) -> None:
    def refuse(draft: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.time, "sleep", None)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(WriteError, match=r"x\.txt cannot be written: Permission denied$"):
        write_text(tmp_path / "x.txt", "new")
    assert names(tmp_path) == []
