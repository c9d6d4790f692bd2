"""Files that are written: whole or not at all, by one at a time, and under names that every disk takes."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import stat
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .words import cut

_DRAFTS = ".psa-{}.tmp"
# A draft that nobody has written to for so many seconds is of a process that was killed.
_ABANDONED = 3600
_LOCK = ".psa.lock"
_PATIENCE = 60.0
# Windows' "access denied" and "sharing violation": a virus scanner or a reader has the file for a moment.
_BUSY = (5, 32)
_MOMENTS = (0.01, 0.03, 0.1, 0.3, 1.0)
_LONGEST_NAME = 100
# In messages.
_LONGEST_PATH = 400
_NO_LETTERS = re.compile(r"[^\w .+@-]")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³]) *(\..*)?", re.IGNORECASE)


class WriteError(OSError):
    """A file cannot be written; the message says which, and why."""


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """A path beside ``file`` to write to, which takes the file's place at the end, or is gone when the block fails.

    The folder is made. Of a link, what it points to is written. Drafts that killed processes have left are removed. A
    device or a pipe is written itself.

    Raises:
        WriteError: the file cannot be written.
    """
    if _is_device(file):
        try:
            yield file
        except OSError as error:
            raise _write_error(file, error) from error
        return
    target = file.resolve()
    draft = target.with_name(_DRAFTS.format(secrets.token_hex(8)))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target.parent)
        yield draft
        if target.exists():
            shutil.copymode(target, draft)
        _take_place(draft, target)
    except OSError as error:
        raise _write_error(file, error) from error
    finally:
        with suppress(OSError):
            draft.unlink()


def write_text(file: Path, text: str) -> None:
    """Write a text whole, in UTF-8.

    Raises:
        WriteError: the file cannot be written.
    """
    with written_whole(file) as draft:
        # A lone surrogate, such as a command line's byte that is no letter, is written the way that JSON has it.
        draft.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(file: Path, document: Any, *, allow_nan: bool = True) -> None:
    """Write plain data whole, as JSON.

    Raises:
        WriteError: the file cannot be written.
        ValueError: not-a-number or an infinity, where ``allow_nan`` is off.
    """
    write_text(file, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=allow_nan) + "\n")


@contextmanager
def locked(folder: Path, wait: float = _PATIENCE) -> Iterator[None]:
    """Keep all other processes and threads that ask for it out of a folder, which is made.

    The lock is a hidden file, which stays; the system lets go of it when the process ends, however it ends.

    Args:
        wait: seconds to wait for others to leave.

    Raises:
        WriteError: another is still there, or the folder cannot be written.
    """
    lock = FileLock(folder / _LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait)
    except Timeout:
        raise WriteError(f"{folder} cannot be written: another process is writing there") from None
    except OSError as error:
        raise _write_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def file_name(text: str) -> str:
    """A text as a name, or as part of one, that every file system takes: plain texts stay as they are."""
    plain = _NO_LETTERS.sub("_", unicodedata.normalize("NFC", text))
    plain = plain.encode()[:_LONGEST_NAME].decode(errors="ignore").strip(" .") or "_"
    return f"_{plain}" if _RESERVED.fullmatch(plain) else plain


def file_names(texts: Iterable[str]) -> dict[str, str]:
    """A :func:`file_name` for each text, no two of them alike, nor alike but for upper and lower case."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for text in dict.fromkeys(texts):
        plain = name = file_name(text)
        number = 2
        while name.casefold() in taken:
            name = f"{plain}-{number}"
            number += 1
        names[text] = name
        taken.add(name.casefold())
    return names


def _is_device(file: Path) -> bool:
    """Whether a path is that of a device or a pipe.

    Raises:
        WriteError: no file can have it, such as one with a name that is too long.
    """
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise _write_error(file, error) from error
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _write_error(file: Path, error: OSError | ValueError) -> WriteError:
    if isinstance(error, WriteError):
        return error
    why = (isinstance(error, OSError) and error.strerror) or error
    return WriteError(f"{cut(str(file), _LONGEST_PATH)} cannot be written: {why}")


def _take_place(draft: Path, target: Path) -> None:
    for moment in _MOMENTS:
        try:
            draft.replace(target)
        except OSError as error:
            if getattr(error, "winerror", None) not in _BUSY:
                raise
            time.sleep(moment)
        else:
            return
    draft.replace(target)


def _remove_abandoned(folder: Path) -> None:
    before = time.time() - _ABANDONED
    for draft in folder.glob(_DRAFTS.format("*")):
        # Another process may remove it as well.
        with suppress(OSError):
            if draft.stat().st_mtime < before:
                draft.unlink()
