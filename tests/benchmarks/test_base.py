"""``psa bench --base``: another commit beside this checkout."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.base import commit
from benchmarks.base.commit import checked_out
from benchmarks.base.compare import at, base_table, compare
from psa_core import ConfigError
from psa_core.apps.bench.cases import Case
from psa_core.apps.bench.ours import Setting
from psa_core.apps.bench.results import PSA

ROOT = Path(__file__).parents[2]
in_a_clone = pytest.mark.skipif(
    shutil.which("git") is None
    or subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True).returncode != 0,
    reason="no clone of the repository",
)


@in_a_clone
def test_both_are_measured_in_turns_and_nothing_stays() -> None:
    def worktrees() -> str:
        return subprocess.run(["git", "-C", str(ROOT), "worktree", "list"], capture_output=True, text=True).stdout

    before = worktrees()
    name, rows = compare("HEAD", [Case("tiny", 1, 32, (2, 8, 8), 3)], "cpu", quick=True, settings=[Setting("mean", 32)])
    assert worktrees() == before
    assert [row.attention for row in rows] == [at(name), PSA]
    base, here = rows
    assert base.ms is not None
    assert here.ms is not None
    assert here.ratio == base.ms / here.ms
    assert here.reached_density == base.reached_density
    (line,) = (line for line in base_table(rows, name).splitlines() if "n = 32, mean" in line)
    assert f"{base.ms:.2f} -> {here.ms:.2f} ms, {here.ratio:.3f}x" in line
    refused = [base.replace(ms=None, refusal="ConfigError: precision"), here]
    assert f"- {at(name)}, n = 32, mean: ConfigError: precision" in base_table(refused, name)


@in_a_clone
@pytest.mark.parametrize("ref", ["no-such-branch", "--version", ""])
def test_what_is_no_commit_is_an_error(ref: str) -> None:
    with pytest.raises(ConfigError, match=r"--base.*must be a commit of this repository"), checked_out(ref):
        pass


def test_without_a_repository_or_git_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commit, "ROOT", tmp_path)
    if shutil.which("git"):
        with pytest.raises(ConfigError, match="needs a clone of the repository"), checked_out("HEAD"):
            pass
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="needs git, which is not installed"), checked_out("HEAD"):
        pass
