"""The address of the repository, which a release sets: ``python -m tools.repository_address URL``.

It stands in pyproject.toml, the READMEs and the issue templates, as a placeholder until the repository is public.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from psa_core.settings.files import write_text

ROOT = Path(__file__).parents[1]
# Tests hold that it stands nowhere else.
FILES = ("pyproject.toml", "README.md", "README_zh.md", ".github/ISSUE_TEMPLATE/config.yml")
_REPOSITORY = re.compile(r'^Repository = "(.+)"$', re.MULTILINE)
_ADDRESS = re.compile(r"https://[\w.-]+(?:/[\w.-]+)+")


def repository_address(root: Path = ROOT) -> str:
    """The address that is set now."""
    found = _REPOSITORY.search((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert found, "pyproject.toml has a Repository among its project.urls"
    return found[1]


def set_repository_address(address: str, root: Path = ROOT) -> None:
    """Write another address in its place, everywhere.

    Raises:
        ValueError: it is no address of a repository.
    """
    if not _ADDRESS.fullmatch(address) or address.endswith(".git"):
        raise ValueError(f"{address!r} must be an address such as https://github.com/owner/name")
    before = repository_address(root)
    for name in FILES:
        file = root / name
        write_text(file, file.read_text(encoding="utf-8").replace(before, address))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.repository_address", description=__doc__)
    parser.add_argument("url", help="such as https://github.com/owner/name")
    try:
        set_repository_address(parser.parse_args().url)
    except ValueError as error:
        parser.error(str(error))
