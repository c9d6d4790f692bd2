"""What every test shares: where kernels run, the options of this suite, fresh and repeatable randomness."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch reads it, and for ComfyUI's process too: threads that share a core spend their time waiting for it.
    cores = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))

import random
import sys
import zlib
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

ROOT = Path(__file__).parent.parent
COMFYUI = "tests/comfyui/"
# Folders that share a server; the first ones have no pages.
SERVERS = (f"{COMFYUI}hosts/", COMFYUI)
# Minutes each, so that they start first.
LONGEST = (COMFYUI, "tests/ops/test_compile_targets.py", "tests/benchmarks/test_quality.py")
# The checkout goes before an installed copy.
sys.path.insert(0, str(ROOT))
if not torch.cuda.is_available():
    # Triton reads this when it is imported.
    os.environ["TRITON_INTERPRET"] = "1"

    from .support.interpreter import quicken

    quicken()

# Deadlines measure the machine, and so does the time that drawing takes. Each run draws others, and CI each change.
hypothesis.settings.register_profile(
    "psa", max_examples=50, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("psa")


class RootIsNoPackage:
    """Keeps pytest from importing the ``__init__.py`` in the root, which only ComfyUI can import."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-comfyui", action="store_true", help="fail, not skip, ComfyUI's tests without ComfyUI")
    parser.addoption("--front-end", metavar="DIR", help="static folder of the front end that ComfyUI serves")
    parser.addoption("--write-workflows", action="store_true", help="build and save the bundled workflows first")
    parser.addoption("--write-pictures", action="store_true", help="save the pictures of nodes that help pages show")
    parser.addoption("--seed", type=int, help="seed of the tests' random tensors; drawn anew for each run by default")
    parser.addoption("--every-gpu", action="store_true", help="compile the kernels for all GPUs they are meant for")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")
    parser.addoption("--stress", type=int, default=150, help="random cases of each stress test; 150 by default")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RootIsNoPackage())
    if config.option.seed is None:
        # Before xdist's processes are made, which get it with the other options.
        config.option.seed = random.SystemRandom().randrange(1 << 32)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n``, what tests share is made once: a file's tests stay in one process, and those of a server too."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next(filter(nodeid.startswith, SERVERS), None) or super()._split_scope(nodeid)

    # Else those with the most tests go first, and a long one may be last and alone.
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if terminalreporter.stats.get("failed"):
        terminalreporter.write_line(f"the same random tensors again: pytest --seed={config.option.seed}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A page once opened follows the prompts of every later test, which takes longer than the prompts do.
    items.sort(key=lambda item: (_turn(item), "browser" in item.keywords))
    skipped = {"gpu": "no NVIDIA GPU"} if not torch.cuda.is_available() else {}
    if not config.option.slow:
        skipped["slow"] = "slow; --slow runs them"
    for item in items:
        for marker in skipped.keys() & item.keywords:
            item.add_marker(pytest.mark.skip(reason=skipped[marker]))


def _turn(item: pytest.Item) -> int:
    """The place of its file among those that start first, all others behind them."""
    return next((i for i, path in enumerate(LONGEST) if item.nodeid.startswith(path)), len(LONGEST))


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """Random tensors differ from run to run and from test to test, and ``--seed`` brings them back."""
    torch.manual_seed(zlib.crc32(f"{request.config.option.seed} {request.node.nodeid}".encode()))


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN (or 0x5A in integers), so that an element which nobody writes shows."""

    def poison(allocate):
        def poisoned(*args, **kwargs):
            x = allocate(*args, **kwargs)
            return x.fill_(float("nan") if x.is_floating_point() else 0x5A)

        return poisoned

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poison(getattr(owner, name)))
