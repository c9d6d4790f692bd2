"""Several GPUs by diffusers' context parallelism: two processes on the CPU make what one makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

diffusers = pytest.importorskip("diffusers", minversion="0.35")

from psa_core import ConfigError  # noqa: E402
from psa_core.hosts import reasons  # noqa: E402
from psa_core.hosts.diffusers import share_heads  # noqa: E402
from psa_core.hosts.diffusers.families import FAMILIES  # noqa: E402
from psa_core.hosts.diffusers.parallel import parallel_refusal  # noqa: E402
from psa_core.hosts.diffusers.sharing import sharing_refusal  # noqa: E402

from ...support import diffusers_families, shared_models  # noqa: E402
from ...support.diffusers_models import cogvideox  # noqa: E402
from ...support.shared_models import Made, share  # noqa: E402
from ...support.tensors import relative_error  # noqa: E402

ROOT = Path(__file__).parents[3]
# Of diffusers' classes, those that can be shared.
MODELS = {
    "wan": "Wan",
    "calibrated": "Wan",
    "skyreels_v2": "SkyReelsV2",
    "chronoedit": "ChronoEdit",
    "wan_vace": "WanVACE",
    "ltx": "LTXVideo",
    "ltx_by_token": "LTXVideo",
    "skyreels_v2_by_frame": "SkyReelsV2",
    "ltx2": "LTX2Video",
    "kandinsky5": "Kandinsky5",
    "minimax_h3": "MiniMaxH3",
}
has_context_parallelism = pytest.mark.skipif(
    not hasattr(diffusers, "ContextParallelConfig"), reason="this diffusers has no context parallelism"
)


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Made]]:
    """Every model made alone and as one of two, which share all of them one after the other."""
    meeting, seed = tmp_path_factory.mktemp("meeting") / "file", request.config.option.seed
    second = subprocess.Popen(
        [sys.executable, "-m", "tests.support.shared_models", str(meeting), str(seed), *MODELS],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        with shared_models.joined(0, meeting):
            found = {name: list(share(name, seed)) for name in MODELS}
        err = second.communicate(timeout=300)[1]
        assert second.returncode == 0, err
    finally:
        second.kill()
        second.wait()
    return found


@has_context_parallelism
@pytest.mark.parametrize("name", MODELS)
def test_two_make_what_one_makes(name: str, made: dict[str, list[Made]]) -> None:
    alone, together, _ = made[name]
    for x, y in zip(together.outputs, alone.outputs, strict=True):
        assert torch.isfinite(y).all()
        assert relative_error(x, y) < 1e-4
    one, two = alone.report.as_dict(), together.report.as_dict()
    assert 0 < one["density"] < 1
    # Each has the calls of its head, and keeps its level maps.
    assert len(two["sparse_calls"]) == 2 * len(one["sparse_calls"])
    assert two["density"] == pytest.approx(one["density"])
    assert not two["dense_calls"]
    if name != "kandinsky5":
        assert two["map_ages"] == {age: 2 * count for age, count in one["map_ages"].items()}


@has_context_parallelism
@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_make_what_one_makes(request: pytest.FixtureRequest) -> None:
    program = "-m", "tests.support.two_gpus", str(request.config.option.seed)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *program]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    error, alone, of_both = json.loads(found.stdout)
    # Rounding in bfloat16 decides between blocks that are as good.
    assert error < 0.03
    assert of_both == 2 * alone > 0


@has_context_parallelism
def test_recipes_of_two_are_those_of_one(made: dict[str, list[Made]]) -> None:
    alone, together, chosen = made["calibrated"]
    assert alone.calibration is not None
    assert together.calibration == alone.calibration
    # Two that choose for themselves choose what one has chosen.
    assert chosen.calibration is not None
    assert chosen.calibration.recipes == alone.calibration.recipes
    one, two = (each.report.as_dict()["calibrated"] for each in (alone, together))
    assert two["recipes"] == one["recipes"]
    for x, y in zip(two["measured_errors"], one["measured_errors"], strict=True):
        assert x == {**y, "error": pytest.approx(y["error"], rel=1e-4)}


@has_context_parallelism
def test_what_cannot_be_shared_is_said() -> None:
    can = {kind for kind in FAMILIES if sharing_refusal(getattr(diffusers, kind, object), 2, 2) is None}
    assert can == {kind for name in MODELS.values() if hasattr(diffusers, kind := f"{name}Transformer3DModel")}
    with pytest.raises(ConfigError, match="gpus = 2: a CogVideoXTransformer3DModel cannot be shared among GPUs"):
        share_heads(cogvideox(), 2)
    with pytest.raises(ConfigError, match="gpus = 3: must divide the 2 heads of a WanVACETransformer3DModel"):
        share_heads(diffusers_families.wan_vace().transformer, 3)
    with_nabla = diffusers_families.kandinsky5().transformer
    with_nabla.register_to_config(attention_type="nabla")
    with pytest.raises(ConfigError, match="gpus = 2: a Kandinsky5Transformer3DModel with attention of its own cannot"):
        share_heads(with_nabla, 2)


def test_an_older_diffusers_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusers, "ContextParallelConfig", None, raising=False)
    with pytest.raises(ConfigError, match=r"gpus = 2: diffusers .* shares no model among GPUs: install 0\.36"):
        share_heads(diffusers_families.wan_vace().transformer, 2)


def test_a_ring_stays_dense() -> None:
    def refusal(**degrees: int) -> str | None:
        context = SimpleNamespace(**{"ring_degree": 1, "ulysses_degree": 1, **degrees})
        processor = SimpleNamespace(_parallel_config=SimpleNamespace(context_parallel_config=context))
        return parallel_refusal(processor)

    with torch.no_grad():
        assert parallel_refusal(SimpleNamespace(_parallel_config=None)) is None
        assert refusal(ulysses_degree=2) is None
        assert refusal(ring_degree=2) == refusal(ring_degree=2, ulysses_degree=2) == reasons.RING
    with torch.enable_grad():
        assert refusal(ulysses_degree=2) == reasons.GRADIENTS
