"""``psa generate`` and ``psa compare`` with presets of calibrated attention and of kept level maps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("skimage")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("imageio_ffmpeg")


from ..support.compare_command import MODEL, Compare
from ..support.generate_command import SPARSE, STEPS, Generate
from ..support.tiny_pipelines import LAYERS

PRESETS = f"""
{MODEL}:
  attention_configs:
    exact: {{mask_mode: calibrated, target_error: 0.3, block_size: {{m: 64, n: 32}}, map_steps: 2}}
    fast: {{mask_mode: calibrated, target_density: 0.2, block_size: {{m: 64, n: 32}}}}
    kept: {{mask_mode: topk, block_size: {{m: 64, n: 32}}, map_steps: 2}}
"""


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    file = tmp_path / "aims.yaml"
    file.write_text(PRESETS, encoding="utf-8")
    return file


def test_generate(generate: Generate, presets: Path) -> None:
    for name in ("exact", "exact", "fast", "kept"):
        assert generate.apart(MODEL, "--presets-file", str(presets), "--preset", name, *SPARSE) == 0
    first, second, *others = generate.videos()
    assert first == second
    assert len({first, *others}) == 3
    exact, _, fast, kept = generate.documents()
    assert (exact["config"]["target_error"], exact["config"]["map_steps"]) == (0.3, 2)
    # With and without the prompt, which share what the two heads have chosen.
    calls = 2 * LAYERS
    assert exact["report"]["map_ages"] == kept["report"]["map_ages"] == {"0": calls, "1": calls}
    assert "map_ages" not in fast["report"]
    for document in (exact, fast):
        calibrated = document["report"]["calibrated"]
        assert [sum(recipes.values()) for recipes in calibrated["recipes"].values()] == [2] * LAYERS
        assert {x["step"] for x in calibrated["measured_errors"]} == {STEPS - 1}
        assert document["report_line"].startswith("PSA: error ")
    assert all(name.endswith(" 0.2") for name in fast["report"]["calibrated"]["recipes"]["0"])
    assert "calibrated" not in kept["report"]


def test_compare(compare: Compare, presets: Path) -> None:
    words = ["--presets-file", str(presets), "--presets", "exact", "fast", "kept"]
    assert compare(*words) == 0
    assert all(0 < compare.summary()[name]["density"] < 1 for name in ("exact", "fast", "kept"))
    numbers = json.dumps(compare.numbers())
    assert numbers.count("PSA: error ") == 2
    for setting in ('"target_error": 0.3', '"target_density": 0.2', '"map_steps": 2'):
        assert setting in numbers
