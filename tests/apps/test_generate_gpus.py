"""``psa generate --gpus``: two processes on the CPU make the video that one makes."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

diffusers = pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")
pytest.importorskip("peft")
iio = pytest.importorskip("imageio.v3")
pytest.importorskip("imageio_ffmpeg")

from psa_core.apps.generate import gpus  # noqa: E402
from psa_core.apps.generate.models import MODELS  # noqa: E402
from psa_core.hosts.diffusers.sharing import sharing_refusal  # noqa: E402

from ..support.generate_command import SPARSE, Generate, errors  # noqa: E402
from ..support.one_of_two import run_as  # noqa: E402
from ..support.tiny_pipelines import LAYERS  # noqa: E402

ROOT = Path(__file__).parents[2]
SIZE = ["--width", "64", "--height", "64", "--frames", "5"]


has_context_parallelism = pytest.mark.skipif(
    not hasattr(diffusers, "ContextParallelConfig"), reason="this diffusers has no context parallelism"
)


@has_context_parallelism
def test_two_processes_make_the_same_video(generate: Generate, tmp_path: Path, capsys) -> None:
    words, meeting = [*SPARSE, *SIZE], tmp_path / "meeting"
    together = generate.command("Wan2.1_1.3b", *words, "--gpus", "2", "--output", str(generate.output / "two"))
    second = subprocess.Popen(
        [sys.executable, "-m", "tests.support.one_of_two", str(meeting), *together],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert generate.apart("Wan2.1_1.3b", *words) == 0
    capsys.readouterr()
    assert run_as(0, meeting, together) == 0
    out, err = second.communicate(timeout=300)
    # The first says what was made, the second nothing.
    assert (second.returncode, out) == (0, ""), err
    assert len(capsys.readouterr().out.splitlines()) == 2
    alone, shared = (iio.imread(file, plugin="FFMPEG").astype(float) for file in sorted(generate.output.rglob("*.mp4")))
    assert np.abs(alone - shared).max() <= 2
    one, two = generate.documents()
    # Each has the calls of its head.
    assert len(two["report"]["sparse_calls"]) == 2 * len(one["report"]["sparse_calls"]) == 2 * 2 * 2 * LAYERS
    assert two["report"]["dense_calls"] == {"warm-up": 2 * 2 * LAYERS}
    assert two["report"]["density"] == pytest.approx(one["report"]["density"])


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_make_the_same_video(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = [*SPARSE, *SIZE, "--output"]
    for gpus_ in (1, 2):
        assert generate("Wan2.1_1.3b", *words, str(generate.output / str(gpus_)), "--gpus", str(gpus_)) == 0
    alone, shared = (iio.imread(file, plugin="FFMPEG").astype(float) for file in sorted(generate.output.rglob("*.mp4")))
    assert np.abs(alone - shared).mean() < 2


def test_what_cannot_be_shared_is_said(generate: Generate, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(gpus.subprocess, "run", None)
    assert generate("Wan2.1_1.3b", "--gpus", "0") == 2
    assert generate("Wan2.1_1.3b", "--gpus", "4") == 2
    assert generate("CogVideo_2b", "--gpus", "2") == 2
    monkeypatch.setattr(diffusers, "ContextParallelConfig", None, raising=False)
    assert generate("Wan2.1_1.3b", "--gpus", "2") == 2
    count, cards, model, version = errors(capsys.readouterr().err)
    assert count == "psa: --gpus = 0: must be 1 or more"
    assert cards == "psa: --gpus = 4: torch sees 3 here"
    assert model.startswith("psa: --gpus = 2: GPUs cannot share the heads of CogVideo_2b; those of these they can: Wan")
    assert re.search(r"--gpus = 2: diffusers \S+ shares no model among GPUs: install 0\.36 or a newer one$", version)


@has_context_parallelism
def test_processes_are_started_where_the_heads_can_be_shared(
    generate: Generate, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(
        gpus.subprocess, "run", lambda command, check: started.append(command) or SimpleNamespace(returncode=3)
    )
    assert generate("Wan2.1_1.3b", "--gpus", "3") == 2
    file = tmp_path / "file"
    file.touch()
    assert generate("Wan2.1_1.3b", "--gpus", "2", "--output", str(file)) == 2
    assert not started
    assert errors(capsys.readouterr().err) == [
        "psa: --gpus = 3: must divide the 2 heads of a WanTransformer3DModel",
        f"psa: --output = '{file}': cannot be written: File exists",
    ]
    with pytest.raises(SystemExit) as exit_:
        generate("Wan2.1_1.3b", "--gpus", "2")
    assert exit_.value.code == 3
    assert errors(capsys.readouterr().err) == ["psa: what went wrong is said above the report of torchrun"]
    ((_, *command),) = started
    assert command[:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert command[5:] == ["-m", "psa_core", *generate.command("Wan2.1_1.3b", "--gpus", "2")]


@has_context_parallelism
def test_models_by_name_say_whether_gpus_can_share_them() -> None:
    there = 0
    for name, facts in MODELS.items():
        pipeline = getattr(diffusers, facts.pipeline or facts.image_pipeline, None)
        if pipeline is None:
            continue
        if facts.workflows:
            parts = getattr(diffusers, pipeline.default_blocks_name)().expected_components
            kinds = [part.type_hint for part in parts if part.name == "transformer"]
        else:
            wanted = str(inspect.signature(pipeline.__init__).parameters["transformer"])
            kinds = [getattr(diffusers, word) for word in re.findall(r"\w+Transformer3DModel", wanted)]
        there += len(kinds)
        assert kinds, name
        assert all((sharing_refusal(kind, 2, 2) is None) == facts.shared for kind in kinds), name
    assert there
