"""The wheel: what it installs, and that it works away from the checkout."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import psa_core
from tools.repository_address import repository_address

ROOT = Path(__file__).parents[2]

# Runs where only the unpacked wheel can be found.
USE = """
import importlib.metadata
from pathlib import Path
import torch
import psa_core

assert Path(psa_core.__file__).is_relative_to(Path.cwd()), psa_core.__file__
(script,) = importlib.metadata.distribution("pyramid-sparse-attention").entry_points.select(name="psa")
assert script.load()(["bench", "--study"]) == 2, "the study needs a checkout"
x = torch.randn(1, 1, 300, 64)
assert psa_core.pyramid_sparse_attention(x, x, x, psa_core.load_preset("Wan2.1_14b")).isfinite().all()
for model, presets in psa_core.load_presets().items():
    print(model, *presets)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("build") is None:
        pytest.skip("build is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    # Without Hatchling here, build fetches it from the package index.
    isolation = [] if importlib.util.find_spec("hatchling") is None else ["--no-isolation"]
    command = [sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_installs_one_package_with_its_presets(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    metadata = f"pyramid_sparse_attention-{psa_core.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"psa_core", metadata}
    presets = {name.removeprefix("psa_core/_presets/") for name in names if name.startswith("psa_core/_presets/")}
    assert presets == {path.name for path in (ROOT / "presets").iterdir()}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "psa_core").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    kinds = (".safetensors", ".json", ".jinja", ".css")
    data = {path.relative_to(ROOT).as_posix() for path in (ROOT / "psa_core").rglob("*") if path.suffix in kinds}
    assert {Path(name).suffix for name in data} == set(kinds)
    assert data <= set(names)
    assert f"{metadata}/licenses/LICENSE" in names


def test_says_where_the_repository_is_and_where_to_report(wheel: Path) -> None:
    name = f"pyramid_sparse_attention-{psa_core.__version__}.dist-info/METADATA"
    metadata = zipfile.ZipFile(wheel).read(name).decode()
    urls = dict(re.findall("^Project-URL: (.+), (.+)$", metadata, re.MULTILINE))
    assert list(urls) == ["Homepage", "Repository", "Issues", "Documentation", "Changelog"]
    assert urls["Repository"] == repository_address()
    assert all(url.startswith(repository_address()) for url in urls.values())


def test_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PSA_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    here = [" ".join([model, *presets]) for model, presets in psa_core.load_presets(ROOT / "presets").items()]
    assert done.stdout.splitlines() == here
