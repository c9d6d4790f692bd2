"""The patch in ComfyUI's own video templates: dropped before their samplers, they are still what ComfyUI takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..browser import EXPORT, LOAD, reload_page
from ..conftest import ComfyUI

# Of models that make video, by name; those of other companies' services have a prefix.
VIDEO = re.compile(r"(?!api_).*(video|wan|ltx|minimax_h3)")
SAMPLERS = re.compile(r"KSampler|SamplerCustom")
SAMPLING = re.compile(r"^KSampler(Advanced)?$|^SamplerCustom|Guider$")
WIDGETS = {
    "enabled": True,
    "backend": "auto",
    "min_tokens": 0,
    "quality": "balanced",
    "unknown_models": "video",
    "precision": "preset",
    "dense_backend": "preset",
    "max_extra_memory": 0.0,
}
# Drawn by the front end, or resolved by it before a prompt is sent.
FRONT_END_ONLY = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}
# Templates with nodes that ComfyUI has not as it is started here: they ask paid services.
MISSING = {
    "template_image_speech_to_video": {
        *("ElevenLabsInstantVoiceClone", "ElevenLabsTextToSpeech", "ElevenLabsVoiceSelector", "GeminiNode")
    }
}
# Puts a patch into every link that ends at the model of a sampler or guider that is switched on, also inside subgraphs.
INSERT = """() => {
    for (const graph of [app.graph, ...(app.graph.subgraphs?.values() ?? [])]) {
        const samples = ({ type, outputs }) =>
            /^(KSampler|SamplerCustom)/.test(type) || outputs?.some((output) => output.type === "GUIDER");
        for (const sampler of [...graph.nodes].filter((node) => samples(node) && node.mode === 0)) {
            const slot = sampler.findInputSlot("model");
            const link = slot < 0 ? null : sampler.getInputLink(slot);
            if (!link) continue;
            const patch = LiteGraph.createNode("PSAAttentionPatch");
            graph.add(patch);
            const origin = graph.getNodeById(link.origin_id), to = patch.findInputSlot("model");
            if (origin) origin.connect(link.origin_slot, patch, to);
            else graph.inputNode.slots[link.origin_slot].connect(patch.inputs[to], patch);
            patch.connect(0, sampler, slot);
        }
    }
}"""
PROBLEMS = "() => app.graph.nodes.filter((node) => node.has_errors).map((node) => node.type)"
# Where a file that a loader names would lie; models are told of in the properties of their loaders too.
FOLDERS = {
    "UNETLoader": "models/diffusion_models",
    "CLIPLoader": "models/text_encoders",
    "VAELoader": "models/vae",
    "CLIPVisionLoader": "models/clip_vision",
    "LoraLoader": "models/loras",
    "LoraLoaderModelOnly": "models/loras",
    "LoadImage": "input",
    "LoadVideo": "input",
    "LoadAudio": "input",
}
FILE = re.compile(r".+\.[A-Za-z0-9]{3,11}")


@pytest.fixture(scope="module")
def templates(comfyui: ComfyUI, request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """Every stock template of a video model whose nodes are all there, by name.

    In another front end than ComfyUI's own, one for each kind of place that a patch has in them.
    """
    known = comfyui.client.get_json("/object_info")
    found, missing = {}, {}
    for name, document in stock_templates(comfyui):
        types = {node["type"] for node in nodes_of(document)}
        own = {graph["id"] for graph in subgraphs_of(document)}
        if not (VIDEO.match(name) and any(map(SAMPLERS.match, types))):
            continue
        lacking = types - known.keys() - own - FRONT_END_ONLY
        if lacking:
            missing[name] = lacking
        else:
            found[name] = document
    assert missing == MISSING
    assert len(found) > 40
    if request.config.option.front_end is None:
        return found
    one_of_each = {places(document): name for name, document in found.items()}
    assert len(one_of_each) > 20
    return {name: found[name] for name in one_of_each.values()}


@pytest.fixture(scope="module")
def front_end(templates: dict[str, dict[str, Any]], comfyui: ComfyUI, page: Any) -> Any:
    """The front end, opened when there is a file under every name that a template asks for."""
    for document in templates.values():
        write_named_files(document, comfyui.server.base_directory)
    reload_page(page)
    return page


def test_the_patch_fits_into_every_video_template(
    templates: dict[str, dict[str, Any]], comfyui: ComfyUI, front_end: Any
) -> None:
    for name, document in templates.items():
        front_end.evaluate(LOAD, document)
        stock = front_end.evaluate(EXPORT)
        refused = validate(comfyui, stock)

        front_end.evaluate(INSERT)

        assert front_end.evaluate(PROBLEMS) == [], name
        patched = front_end.evaluate(EXPORT)
        assert validate(comfyui, patched) == refused, name
        assert without_patches(patched) == stock, name
        sampling = [node for node in patched.values() if SAMPLING.search(node["class_type"])]
        models = [node["inputs"]["model"] for node in sampling if "model" in node["inputs"]]
        assert models, name
        for key, _ in models:
            patch = patched[key]
            assert patch["class_type"] == "PSAAttentionPatch", name
            assert patch["inputs"].keys() == {*WIDGETS, "model"}, name
            assert {key: patch["inputs"][key] for key in WIDGETS} == WIDGETS


def places(document: dict[str, Any]) -> frozenset[tuple[str, str, bool]]:
    """What a patch is put before and behind: samplers and guiders, what feeds them, and whether within a subgraph."""
    found = set()
    for graph in (document, *subgraphs_of(document)):
        types = {node["id"]: node["type"] for node in graph["nodes"]}
        links = [x[:2] if isinstance(x, list) else (x["id"], x["origin_id"]) for x in graph["links"]]
        origins = {link: types.get(origin, "its input") for link, origin in links}
        for node in graph["nodes"]:
            fed = [origins[x["link"]] for x in node.get("inputs", []) if x["name"] == "model" and x.get("link")]
            if SAMPLING.search(node["type"]) and not node["mode"]:
                found |= {(node["type"], origin, graph is not document) for origin in fed}
    return frozenset(found)


def stock_templates(comfyui: ComfyUI) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and contents of those that the packages hold which ComfyUI's requirements bring."""
    packages = Path(comfyui.server.installation.python).parents[1].glob("lib/python*/site-packages")
    files = {
        file.stem: file
        for folder in packages
        for file in folder.glob("comfyui_workflow_templates*/templates/*.json")
        if not file.name.startswith("index")
    }
    for name, file in sorted(files.items()):
        document = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(document, dict) and "nodes" in document:
            yield name, document


def nodes_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of a workflow, with those of its subgraphs."""
    return [node for graph in (document, *subgraphs_of(document)) for node in graph["nodes"]]


def subgraphs_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document.get("definitions", {}).get("subgraphs", [])
    return found


def template(comfyui: ComfyUI, name: str) -> dict[str, Any]:
    return dict(stock_templates(comfyui))[name]


def write_named_files(workflow: dict[str, Any], base_directory: Path) -> None:
    """An empty file under every name that a loader gives: to be valid it need only be there."""
    for node in nodes_of(workflow):
        models = node.get("properties", {}).get("models") or []
        named = {f"models/{model['directory']}/{model['name']}" for model in models}
        folder = FOLDERS.get(node["type"])
        for value in node.get("widgets_values") or [] if folder else []:
            if isinstance(value, str) and FILE.fullmatch(value):
                named.add(f"{folder}/{value}")
        for path in named:
            target = base_directory / path
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
