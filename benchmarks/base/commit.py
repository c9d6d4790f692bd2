"""Another commit of this repository, checked out beside it for a while."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psa_core.apps.bench.checkout import ROOT
from psa_core.settings.errors import ConfigError


@contextmanager
def checked_out(ref: str) -> Iterator[tuple[str, Path]]:
    """The short name of a commit, and a folder that holds it until the end of the ``with``.

    Args:
        ref: what git knows it by: a branch, a tag, a hash, ``HEAD~3``.

    Raises:
        ConfigError: there is no git, no repository, or no such commit.
    """
    name = _commit(ref)
    with tempfile.TemporaryDirectory(prefix="psa-base-") as folder:
        tree = Path(folder) / name
        _git(ref, "worktree", "add", "--quiet", "--detach", str(tree), name)
        try:
            yield name, tree
        finally:
            _git(ref, "worktree", "remove", "--force", str(tree))


def _commit(ref: str) -> str:
    _git(ref, "rev-parse", "--git-dir", fails="needs a clone of the repository, which this folder is not")
    words = "rev-parse", "--verify", "--quiet", "--short", "--end-of-options", f"{ref}^{{commit}}"
    return _git(ref, *words, fails="must be a commit of this repository: a branch, a tag, a hash, or such as HEAD~3")


def _git(ref: str, *words: str, fails: str = "") -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    except FileNotFoundError:
        raise ConfigError("--base", ref, "needs git, which is not installed") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ConfigError("--base", ref, fails or f"git cannot check it out ({said[-1] if said else done.returncode})")
    return done.stdout.strip()
