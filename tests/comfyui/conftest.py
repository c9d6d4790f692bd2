"""The running ComfyUI that the tests of this folder share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .browser import EMPTY, LOAD, find_browser, launched, opened, speak
from .client import ComfyClient
from .level_bar import LISTED, RENDERERS, rendered, show
from .server import ComfyServer, ComfyUINotFoundError, Installation

# Loaded by ComfyUI, not by pytest: it imports ComfyUI's own modules.
collect_ignore = ["test_nodes"]

HERE = Path(__file__).parent
BROWSER = pytest.StashKey[Any]()
PAGE = pytest.StashKey[Any]()
VIEWPORT = {"width": 1280, "height": 720}


@dataclass(frozen=True)
class ComfyUI:
    """A started server and a client connected to it."""

    server: ComfyServer
    client: ComfyClient


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what looks at the front end, which ``-m browser`` runs alone."""
    if "browser" in getattr(item, "fixturenames", ()):
        item.add_marker("browser")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip for want of ComfyUI. From here pytest sums the skips up in one line; from a fixture it lists every test."""
    if "comfyui" not in getattr(item, "fixturenames", ()) or item.config.getoption("--require-comfyui", default=False):
        return
    try:
        Installation.find()
    except ComfyUINotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def front_end_arguments(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What has ComfyUI serve the front end that ``--front-end`` names instead of its own."""
    folder = request.config.option.front_end
    return () if folder is None else ("--front-end-root", str(Path(folder).resolve()))


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory, front_end_arguments: tuple[str, ...]) -> Iterator[ComfyUI]:
    """Start ComfyUI for the first test that asks. Getting here without one means that it was required."""
    try:
        installation = Installation.find()
    except ComfyUINotFoundError as error:
        pytest.fail(str(error), pytrace=False)
    server = ComfyServer(installation, tmp_path_factory.mktemp("comfyui"), arguments=front_end_arguments)
    with _started(server) as started:
        yield started


@pytest.fixture(scope="session")
def odd_comfyui(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    """A second one, without matplotlib, and with odd things where presets are looked for when it starts."""
    base, pack, presets = (tmp_path_factory.mktemp(name) for name in ("odd_comfyui", "no_matplotlib", "presets"))
    (pack / "__init__.py").write_text("import sys\nsys.modules['matplotlib'] = None\nNODE_CLASS_MAPPINGS = {}\n")
    (presets / "broken.yaml").write_text("M: {attention_configs: {oops: {type: psa, warmup_steps: -1}}}")
    own = base / "user" / "psa_presets"
    own.mkdir(parents=True)
    (own / "folder.yaml").mkdir()
    (own / "bool.yaml").write_text("M: {attention_configs: {oops: {type: psa, use_sim_mask: !!bool maybe}}}")
    if os.name != "nt":
        (own / ".#edited.yaml").symlink_to("someone@somewhere")
        (own / "nowhere.yaml").symlink_to("gone")
        os.mkfifo(own / "pipe.yaml")
    packs = {**comfyui.server.custom_nodes, "no_matplotlib": pack}
    environment = {"PSA_PRESETS_DIR": str(presets)}
    with _started(ComfyServer(comfyui.server.installation, base, packs, environment=environment)) as started:
        yield started


@contextmanager
def _started(server: ComfyServer) -> Iterator[ComfyUI]:
    server.start()
    try:
        with closing(ComfyClient(server.address)) as client:
            yield ComfyUI(server, client)
    finally:
        server.stop()


@pytest.fixture
def presets_folder(comfyui: ComfyUI) -> Iterator[Path]:
    """The user's own preset files, none at first: a Save Preset of another test may have left some."""
    folder = comfyui.server.base_directory / "user" / "psa_presets"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Any:
    """Chromium, until the last test of this folder: as long as playwright runs, nothing else may run an event loop."""
    folder = _folder(request)
    if BROWSER not in folder.stash:
        playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
        path = find_browser()
        if path is None:
            pytest.skip("no Chromium on this machine")
        stack = ExitStack()
        folder.addfinalizer(stack.close)
        driver = stack.enter_context(playwright.sync_playwright())
        folder.stash[BROWSER] = stack.enter_context(launched(driver, path))
    return folder.stash[BROWSER]


@pytest.fixture(scope="module")
def page(comfyui: ComfyUI, browser: Any, request: pytest.FixtureRequest) -> Any:
    """ComfyUI's front end in a browser, without a node, in English; all files share it, as each load takes seconds."""
    stash = _folder(request).stash
    if PAGE not in stash:
        stash[PAGE] = opened(browser, comfyui.server.address)
    shared = stash[PAGE]
    # A file that needs it otherwise may leave it so: beginning anew takes seconds, too.
    speak(shared, "en")
    shared.set_viewport_size(VIEWPORT)
    shared.evaluate(LOAD, EMPTY)
    return shared


def _folder(request: pytest.FixtureRequest) -> pytest.Collector:
    """This folder among the tests."""
    return next(node for node in request.node.listchain() if node.path == HERE)


@pytest.fixture(scope="module", params=RENDERERS)
def canvas(page: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page in one of the renderers."""
    with rendered(page, request.param) as shown:
        yield shown


@pytest.fixture
def loader(canvas: Any) -> Any:
    """A Preset Loader whose presets have arrived; its numbers are 0.5, 0.6, 0.7, 0.8."""
    show(canvas, "PSAPresetLoader")
    canvas.wait_for_function(LISTED, timeout=20_000)
    return canvas
