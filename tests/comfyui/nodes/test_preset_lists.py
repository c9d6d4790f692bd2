"""The lists of models and presets in ComfyUI's real front end, in its classic canvas and in Vue nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from psa_core.settings.dial import DIAL_PRESETS

from ..browser import CHOOSE
from ..conftest import ComfyUI
from ..level_bar import bounds

NAMES = "(name) => [...window.psaNode.widgets.find((w) => w.name === name).options.values]"
REFRESH = "async () => { await app.refreshComboInNodes(); }"
SAVED = """() => {
    class PSASavePreset extends LiteGraph.LGraphNode {}
    const node = new PSASavePreset("Save");
    node.comfyClass = "PSASavePreset";
    node.pos = [-600, 0];
    app.graph.add(node);
    app.api.dispatchCustomEvent("execution_success", { prompt_id: "1" });
}"""
USER_PRESET = """
Wan2.1_1.3b:
  attention_configs:
    {name}:
      mask_ratios: {{1: [0.0, 0.25], 0: [0.25, 1.0]}}
"""


def listed(page: Any) -> list[str]:
    """The presets that a Vue node lists when it is asked; in the classic canvas what it would list."""
    if not page.locator(".lg-node").count():
        return page.evaluate(NAMES, "preset")  # type: ignore[no-any-return]
    page.locator("[role=combobox][aria-label=preset]").click()
    page.locator("[role=option]").first.wait_for(timeout=5000)
    names = [name.strip() for name in page.locator("[role=option]").all_inner_texts()]
    page.keyboard.press("Escape")
    return names


def test_presets_are_those_of_the_model(loader: Any) -> None:
    assert listed(loader) == loader.evaluate(NAMES, "preset")
    loader.evaluate(CHOOSE, ["model", "CogVideo_5b"])
    assert listed(loader) == ["baseline", "psa_balanced", "psa_4steps", *DIAL_PRESETS]


@contextmanager
def user_preset(server: Any, name: str) -> Iterator[None]:
    """A preset file of the user's, for as long as the test runs."""
    file = Path(server.base_directory) / "user" / "psa_presets" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(USER_PRESET.format(name=name), encoding="utf-8")
    try:
        yield
    finally:
        file.unlink()


@pytest.mark.parametrize("refresh", [REFRESH, SAVED], ids=["refreshed", "saved"])
def test_new_presets_are_listed_without_a_reload(loader: Any, comfyui: ComfyUI, refresh: str) -> None:
    before = loader.evaluate(NAMES, "preset")
    models = loader.evaluate(NAMES, "model")
    with user_preset(comfyui.server, "mine"):
        loader.evaluate(refresh)
        loader.wait_for_function(f"({NAMES})('preset').includes('mine')", timeout=10_000)

        with_mine = [name for name in before if name not in DIAL_PRESETS] + ["mine", *DIAL_PRESETS]
        assert loader.evaluate(NAMES, "preset") == with_mine
        assert loader.evaluate(NAMES, "model") == models
        assert listed(loader) == with_mine
        loader.evaluate(CHOOSE, ["preset", "mine"])
        assert bounds(loader) == [0.25, 0.0, 0.0, 0.0]
