"""Where the repository is and where to report: one address, set in one place, and issue templates that ask enough."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.repository_address import FILES, ROOT, repository_address, set_repository_address

TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FORMS = [file for file in TEMPLATES if file.name != "config.yml"]
EACH_FORM = pytest.mark.parametrize("file", FORMS, ids=lambda file: file.stem)
KINDS = {"textarea", "input", "dropdown"}
OTHER = "https://git.example.org/somebody/psa"

# Apart from what others own: data, pictures, and addresses of papers and weights.
TEXTS = {".md", ".toml", ".yml", ".yaml", ".py", ".json", ".js", ".txt", ".jinja", ""}
FOLDERS = {".git", ".venv", "__pycache__", "build", "dist"}


def text_files(root: Path) -> list[Path]:
    return [
        file
        for file in root.rglob("*")
        if file.is_file() and file.suffix in TEXTS and not FOLDERS & set(file.relative_to(root).parts)
    ]


def holders(address: str, root: Path) -> set[str]:
    """The files that say an address."""
    found = set()
    for file in text_files(root):
        try:
            if address in file.read_text(encoding="utf-8"):
                found.add(file.relative_to(root).as_posix())
        except UnicodeDecodeError:
            continue
    return found


def test_the_address_stands_where_the_tool_sets_it_and_nowhere_else() -> None:
    assert holders(repository_address(), ROOT) == set(FILES)


def test_no_place_has_another_address_of_this_project() -> None:
    name = repository_address().rsplit("/", 1)[1]
    for file in FILES:
        text = (ROOT / file).read_text(encoding="utf-8")
        said = re.findall(rf"https://[^\s\"'`)|]*{re.escape(name)}[^\s\"'`)|]*", text)
        assert said, file
        assert all(address.startswith(repository_address()) for address in said), file


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files with the address, in a folder of their own."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_release_sets_it_everywhere_at_once_and_can_set_it_anew(copy: Path) -> None:
    before = repository_address()
    for address in (OTHER, "https://git.example.org/psa"):
        set_repository_address(address, copy)
        assert repository_address(copy) == address
        assert holders(before, copy) == set()
        assert holders(address, copy) == set(FILES)
        before = address
    set_repository_address(repository_address(), copy)
    assert all((copy / name).read_text("utf-8") == (ROOT / name).read_text("utf-8") for name in FILES)


@pytest.mark.parametrize(
    "address", ["", "OWNER", "https://github.com", "git@github.com:a/b", f"{OTHER}.git", f"{OTHER}/"]
)
def test_what_is_no_address_is_refused(copy: Path, address: str) -> None:
    with pytest.raises(ValueError, match="must be an address"):
        set_repository_address(address, copy)
    assert repository_address(copy) == repository_address()


def form(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


def test_there_is_a_form_for_faults_and_one_for_speed_and_quality() -> None:
    assert [file.stem for file in FORMS] == ["bug", "speed_or_quality"]


@EACH_FORM
def test_a_form_is_one_that_github_takes(file: Path) -> None:
    content = form(file)

    assert set(content) == {"name", "description", "labels", "body"}
    ids = [part["id"] for part in content["body"]]
    assert len(set(ids)) == len(ids)
    for part in content["body"]:
        assert set(part) <= {"type", "id", "attributes", "validations"}
        assert part["type"] in KINDS
        assert part["attributes"]["label"]
        assert ("options" in part["attributes"]) == (part["type"] == "dropdown")


@EACH_FORM
def test_a_form_asks_for_the_doctor_s_text(file: Path) -> None:
    (doctor,) = (part for part in form(file)["body"] if part["id"] == "doctor")

    assert doctor["validations"]["required"]
    for way in ("PSA Doctor", "`psa doctor`", "`python -m psa_core doctor`"):
        assert way in doctor["attributes"]["description"]
