"""The Preset Loader in ComfyUI's real front end: choosing fills in the numbers, loading a graph leaves them alone."""

from __future__ import annotations

from typing import Any

import pytest

from psa_core.settings.dial import DIAL_PRESETS

from ..browser import ADD, CHOOSE, EXPORT, SAVE, VALUES, reload_graph
from ..psa import PRESET_NUMBERS

PRESET_NAMES = "window.psaNode.widgets.find((w) => w.name === 'preset').options.values"


@pytest.fixture
def loader(page: Any) -> Any:
    page.evaluate(ADD, "PSAPresetLoader")
    # The list of names narrows to the model's when the presets have arrived.
    page.wait_for_function(f"{PRESET_NAMES}.length === 7", timeout=20_000)
    return page


def test_fresh_node_shows_the_default_preset(loader: Any) -> None:
    values = loader.evaluate(VALUES)

    assert list(values) == list(PRESET_NUMBERS)
    assert values["preset"] == "psa_balanced"
    assert (values["level_1"], values["level_8"], values["warmup_steps"]) == (0.5, 0.8, "15")


def test_choosing_a_preset_fills_in_its_numbers(loader: Any) -> None:
    loader.evaluate(CHOOSE, ["preset", "psa_topk"])

    values = loader.evaluate(VALUES)
    assert (values["mask_mode"], values["block_n"], values["level_1"], values["level_8"]) == ("topk", "32", 0.05, 0.25)


def test_choosing_a_model_narrows_the_presets_and_takes_its_default(loader: Any) -> None:
    loader.evaluate(CHOOSE, ["model", "CogVideo_5b"])

    values = loader.evaluate(VALUES)
    assert loader.evaluate(PRESET_NAMES) == ["baseline", "psa_balanced", "psa_4steps", *DIAL_PRESETS]
    assert (values["preset"], values["reorder"], values["level_1"]) == ("psa_balanced", "off", 0.1)


def test_loading_a_graph_keeps_its_numbers(loader: Any) -> None:
    loader.evaluate(CHOOSE, ["preset", "psa_topk"])
    loader.evaluate(CHOOSE, ["level_1", 0.07])

    reload_graph(loader, loader.evaluate(SAVE), "PSAPresetLoader")

    values = loader.evaluate(VALUES)
    exported = loader.evaluate(EXPORT)
    assert (values["preset"], values["level_1"], values["level_2"]) == ("psa_topk", 0.07, 0.1)
    (node,) = exported.values()
    assert node["inputs"] == values
