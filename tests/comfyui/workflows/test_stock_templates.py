"""The patch in ComfyUI's own Wan templates: dropped between loader and sampler, they are still what ComfyUI takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..browser import EXPORT, LOAD
from ..conftest import ComfyUI

TEMPLATES = (
    "text_to_video_wan",
    "image_to_video_wan",
    "wan2.1_flf2v_720_f16",
    "wan2.1_fun_inp",
    "wan2.1_fun_control",
    "video_wan_vace_14B_t2v",
    "video_wan2_2_5B_ti2v",
    "video_wan2_2_14B_t2v",
    "video_wan2_2_14B_i2v",
    "video_wan2_2_14B_flf2v",
)
# Puts a patch into every link that ends at the model of a sampler that is switched on, also inside subgraphs; returns
# how many.
INSERT = """() => {
    let count = 0;
    for (const graph of [app.graph, ...(app.graph.subgraphs?.values() ?? [])]) {
        for (const sampler of [...graph.nodes].filter((node) => node.type.startsWith("KSampler") && node.mode === 0)) {
            const slot = sampler.findInputSlot("model");
            const link = sampler.getInputLink(slot);
            const patch = LiteGraph.createNode("PSAAttentionPatch");
            graph.add(patch);
            graph.getNodeById(link.origin_id).connect(link.origin_slot, patch, patch.findInputSlot("model"));
            patch.connect(0, sampler, slot);
            count += 1;
        }
    }
    return count;
}"""
PROBLEMS = "() => app.graph.nodes.filter((node) => node.has_errors).map((node) => node.type)"
# Where a file that a loader names would lie.
FOLDERS = {
    "UNETLoader": "models/diffusion_models",
    "CLIPLoader": "models/text_encoders",
    "VAELoader": "models/vae",
    "CLIPVisionLoader": "models/clip_vision",
    "LoraLoader": "models/loras",
    "LoraLoaderModelOnly": "models/loras",
    "LoadImage": "input",
    "LoadVideo": "input",
}
ENDINGS = (".safetensors", ".png", ".jpg", ".mp4")


@pytest.fixture(scope="module")
def named_files(comfyui: ComfyUI) -> None:
    """A file under every name that a template asks for."""
    for name in TEMPLATES:
        write_named_files(template(comfyui, name), comfyui.server.base_directory)


@pytest.fixture(scope="module")
def front_end(named_files: None, page: Any) -> Any:
    """The front end, opened when the files are there."""
    return page


@pytest.mark.parametrize("name", TEMPLATES)
def test_patched_template_is_valid(name: str, comfyui: ComfyUI, front_end: Any) -> None:
    page = front_end
    page.evaluate(LOAD, template(comfyui, name))
    stock = page.evaluate(EXPORT)

    patches = page.evaluate(INSERT)

    assert page.evaluate(PROBLEMS) == []
    patched = page.evaluate(EXPORT)
    assert validate(comfyui, patched) == ({}, True)
    assert without_patches(patched) == stock
    inserted = [node["inputs"] for node in patched.values() if node["class_type"] == "PSAAttentionPatch"]
    assert len(inserted) == patches > 0
    for inputs in inserted:
        assert (inputs["enabled"], inputs["backend"], inputs["min_tokens"]) == (True, "auto", 0)


def template(comfyui: ComfyUI, name: str) -> dict[str, Any]:
    """A template of the package that ComfyUI's requirements bring."""
    packages = Path(comfyui.server.installation.python).parents[1].glob("lib/python*/site-packages")
    inside = f"comfyui_workflow_templates*/templates/{name}.json"
    (file,) = [file for folder in packages for file in folder.glob(inside)]
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


def write_named_files(workflow: dict[str, Any], base_directory: Path) -> None:
    """An empty file under every name that a loader gives: to be valid it need only be there."""
    subgraphs = workflow.get("definitions", {}).get("subgraphs", [])
    for node in (node for graph in (workflow, *subgraphs) for node in graph["nodes"]):
        folder = FOLDERS.get(node["type"])
        for value in node.get("widgets_values", []) if folder else []:
            if isinstance(value, str) and Path(value).suffix in ENDINGS:
                target = base_directory / folder / value
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()


def validate(comfyui: ComfyUI, graph: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    answer = comfyui.client.post("/psa_test/validate", graph)
    return answer["node_errors"], answer["valid"]


def without_patches(graph: dict[str, Any]) -> dict[str, Any]:
    """The graph as it was: what a patch feeds is fed by what feeds the patch."""
    patches = {key: node["inputs"]["model"] for key, node in graph.items() if node["class_type"] == "PSAAttentionPatch"}
    return {
        key: node | {"inputs": {name: _behind(value, patches) for name, value in node["inputs"].items()}}
        for key, node in graph.items()
        if key not in patches
    }


def _behind(value: Any, patches: dict[str, Any]) -> Any:
    return patches[value[0]] if isinstance(value, list) and value[0] in patches else value
