"""Widgets that came later in ComfyUI's real front end: what they are on new nodes, and in older graphs and prompts."""

from __future__ import annotations

import json
from typing import Any

from ..browser import ADD, CHOOSE, EXPORT, SAVE, VALUES, reload_graph
from ..server import PACK_ROOT

NODE = "PSAAttentionPatch"
GRAPHS = PACK_ROOT / "tests" / "graphs" / "0.1.0"
OPEN_PROMPT = "async (prompt) => { await app.loadApiJson(prompt, 'old.json'); }"

BEFORE = {
    "quality": "preset", "unknown_models": "off", "precision": "preset", "dense_backend": "preset",
    "max_extra_memory": 0,
}  # fmt: skip
CLONED = "() => window.psaNode.clone().widgets.find((widget) => widget.name === 'quality').value"


def old(kind: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GRAPHS / kind / "wan21_t2v_14b.json").read_text(encoding="utf-8"))
    return document


def added(page: Any) -> tuple[str, str]:
    """What the patch has for them, as it would run."""
    (inputs,) = [node["inputs"] for node in page.evaluate(EXPORT).values() if node["class_type"] == NODE]
    return inputs["quality"], inputs["unknown_models"]


def test_new_nodes_are_balanced_and_what_is_chosen_is_kept(canvas: Any) -> None:
    canvas.evaluate(ADD, NODE)
    values = canvas.evaluate(VALUES)
    last = [("quality", "balanced"), ("unknown_models", "video"), ("precision", "preset"), ("dense_backend", "preset")]
    assert list(values.items())[-5:] == [*last, ("max_extra_memory", 0)]

    canvas.evaluate(CHOOSE, ["quality", "near_dense"])
    reload_graph(canvas, canvas.evaluate(SAVE), NODE)

    assert canvas.evaluate(VALUES) == values | {"quality": "near_dense"}
    assert (
        canvas.evaluate("() => window.psaNode.clone().widgets.find((w) => w.name === 'quality').value") == "near_dense"
    )


def test_graphs_from_before_it_open_as_preset(canvas: Any) -> None:
    graph = old("workflows")
    reload_graph(canvas, graph, NODE)
    assert added(canvas) == ("preset", "off")
    assert canvas.evaluate(VALUES) == {"enabled": True, "backend": "auto", "min_tokens": 8192} | BEFORE

    # What the node had said, where a front end saved that among its values.
    (node,) = [node for node in graph["nodes"] if node["type"] == NODE]
    node["widgets_values"].append("PSA: density 0.213 | 1050 sparse, 1950 dense")
    reload_graph(canvas, graph, NODE)
    assert added(canvas) == ("preset", "off")


def test_prompts_from_before_it_open_as_preset(canvas: Any) -> None:
    prompt = old("prompts")
    canvas.evaluate(OPEN_PROMPT, prompt)
    assert added(canvas) == ("preset", "off")

    (node,) = [node for node in prompt.values() if node["class_type"] == NODE]
    node["inputs"]["quality"] = "fast"
    canvas.evaluate(OPEN_PROMPT, prompt)
    assert added(canvas) == ("fast", "off")
