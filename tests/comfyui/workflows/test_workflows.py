"""The bundled workflows in ComfyUI's real front end: they load, export and open as a user would see them."""

from __future__ import annotations

import itertools
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from tools.workflows import WORKFLOWS
from tools.workflows.cards import CARDS
from tools.workflows.chinese import NOTE_TITLE
from tools.workflows.layout import put, put_for_both

from .. import pictures
from ..browser import EXPORT, LOAD
from ..conftest import ComfyUI
from ..level_bar import rendered
from ..pack_texts import CHINESE
from ..server import PACK_ROOT
from .conftest import Presets
from .test_stock_templates import nodes_of, subgraphs_of, template

FOLDER = PACK_ROOT / "workflows"
EXPORTS = Path(__file__).parents[1] / "workflow_exports"
PICTURES = PACK_ROOT / "web" / "docs" / "pictures"
NAMES = list(WORKFLOWS)
RUN_HERE = [name for name, workflow in WORKFLOWS.items() if workflow.runs_here]
SHOWN_AFTER_A_RUN = "tiny_video_compare"
"""In the README."""
# In the front end only: it is drawn, and no part of a prompt.
DRAWN_ONLY = {"MarkdownNote"}

PROBLEMS = """() => app.graph.nodes
    .filter((node) => node.has_errors || !LiteGraph.registered_node_types[node.type]).map((node) => node.type)"""
# What every node of the graph, or of one of its subgraphs, covers of the canvas, as [class and id, left, top, right,
# bottom], with all of it that is drawn.
BOXES = """async (subgraph) => {
    app.canvas.setGraph(subgraph ? app.graph.subgraphs.get(subgraph) : app.graph);
    Object.assign(app.canvas.ds, { scale: 0.5, offset: [60, 60] });
    app.canvas.draw(true, true);
    if (LiteGraph.vueNodesMode) await new Promise((done) => setTimeout(done, 300));
    const box = (node) => {
        if (!LiteGraph.vueNodesMode) return node.boundingRect;
        const { x, y, width, height } = document.querySelector(`[data-node-id="${node.id}"]`).getBoundingClientRect();
        return [x, y, width, height];
    };
    const boxes = app.canvas.graph.nodes.map((node) => {
        const [x, y, width, height] = box(node);
        return [`${node.type} ${node.id}`, x, y, x + width, y + height];
    });
    app.canvas.setGraph(app.graph);
    return boxes;
}"""
REMOVE = "(title) => { app.graph.remove(app.graph.nodes.find((node) => node.title === title)); }"
BROWSE = "() => app.extensionManager.command.execute('Comfy.BrowseTemplates')"
QUEUE = "() => app.queuePrompt(0)"
# A clip that shows nothing, for a test that need not wait a minute.
SHORTEN = """() => {
    const set = (type, name, value) => app.graph.nodes.filter((node) => node.type === type).forEach((node) => {
        node.widgets.find((widget) => widget.name === name).value = value;
    });
    for (const [name, value] of [["width", 96], ["height", 96], ["length", 5]]) {
        set("EmptyHunyuanLatentVideo", name, value);
    }
    set("KSampler", "steps", 3);
}"""


@pytest.fixture(scope="module", autouse=True)
def _written(request: pytest.FixtureRequest, presets: Presets) -> None:
    """With ``--write-workflows``: build every workflow anew, and save what is then tested."""
    if not request.config.getoption("--write-workflows"):
        return
    page = request.getfixturevalue("front_end")
    for folder in (FOLDER, EXPORTS):
        folder.mkdir(exist_ok=True)
    for name, workflow in WORKFLOWS.items():
        specification = workflow.specification(presets)
        _write(FOLDER / f"{name}.json", put_for_both(page, specification))
        _write(EXPORTS / f"{name}.json", page.evaluate(EXPORT))
        if not workflow.runs_here:
            _write_card(name, [pictures.drawn_by_node(page)] if CARDS[name].draws_itself else [])


def test_every_workflow_has_its_files() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {f"{name}.{end}" for name in NAMES for end in ("json", "jpg")}
    assert {file.stem for file in EXPORTS.iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_exports(name: str, front_end: Any) -> None:
    front_end.evaluate(LOAD, saved(name))

    assert front_end.evaluate(PROBLEMS) == []
    assert untitled(front_end.evaluate(EXPORT)) == untitled(exported(name))
    check_boxes(name, front_end)
    assert pictures.has_content(pictures.take(front_end, scale=0.6))


def test_no_node_lies_on_another_in_vue_nodes_either(front_end: Any) -> None:
    with rendered(front_end, "vue") as page:
        page.set_viewport_size({"width": 1800, "height": 1300})
        for name in NAMES:
            page.evaluate(LOAD, saved(name))
            check_boxes(name, page)


def test_every_wan_workflow_avoids_what_stock_templates_avoid(comfyui: ComfyUI) -> None:
    stock = template(comfyui, "text_to_video_wan")
    texts = {value for node in stock["nodes"] for value in node.get("widgets_values") or []}
    for name in NAMES:
        own = {node["inputs"].get("text") for node in exported(name).values() if node["class_type"] == "CLIPTextEncode"}
        assert ("wan" in name or name.startswith("compare")) == (len(texts & own) == 1), name


def test_cards_can_be_told_apart_without_their_titles() -> None:
    whole = {name: Image.open(FOLDER / f"{name}.jpg").resize((64, 64)) for name in NAMES}
    cards = {name: np.asarray(card.crop((0, 0, 64, 40)), float) for name, card in whole.items()}
    for (one, first), (other, second) in itertools.combinations(cards.items(), 2):
        assert (np.abs(first - second) > 40).mean() > 0.02, (one, other)
    assert set(CARDS) == set(NAMES)


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", NAMES)
def test_server_takes_it(name: str, comfyui: ComfyUI) -> None:
    answer = comfyui.client.post("/psa_test/validate", exported(name))

    assert (answer["node_errors"], answer["error"], answer["valid"]) == ({}, None, True)
    assert answer["outputs"]


@pytest.mark.parametrize("name", NAMES)
def test_is_what_its_code_builds(name: str, presets: Presets, front_end: Any) -> None:
    """Values set by name are those that a saved graph, which has them by position, brings back."""
    built = put(front_end, WORKFLOWS[name].specification(presets))

    assert untitled(front_end.evaluate(EXPORT)) == untitled(exported(name))
    assert [node["type"] for node in nodes_of(built)] == [node["type"] for node in nodes_of(saved(name))]
    assert notes(built) == notes(saved(name))


@pytest.mark.parametrize("name", NAMES)
def test_uses_core_and_this_pack_alone(name: str, comfyui: ComfyUI) -> None:
    own = {graph["id"] for graph in subgraphs_of(saved(name))}
    for node_type in {node["type"] for node in nodes_of(saved(name))} - DRAWN_ONLY - own:
        info = comfyui.client.object_info(node_type)
        assert info is not None
        module = info["python_module"]
        assert module == "nodes" or module.startswith(("comfy_extras.", "custom_nodes.psa")), module


@pytest.mark.parametrize("name", RUN_HERE)
def test_what_runs_anywhere_runs_sparse_though_its_clip_is_short(name: str) -> None:
    graph = exported(name)
    (latent,) = (node["inputs"] for node in graph.values() if node["class_type"] == "EmptyHunyuanLatentVideo")
    tokens = ((latent["length"] - 1) // 4 + 1) * (latent["height"] // 16) * (latent["width"] // 16)
    (patch,) = (node["inputs"] for node in graph.values() if node["class_type"] == "PSAAttentionPatch")
    assert 0 < patch["min_tokens"] <= tokens


@pytest.mark.parametrize("name", NAMES)
def test_note_names_every_file(name: str, presets: Presets) -> None:
    workflow = WORKFLOWS[name]
    english, chinese = notes(saved(name))

    for file in workflow.files(presets):
        for text in (english, chinese):
            assert f"`{file.folder}/{file.widget}`" in text
            assert file.page in text
    assert not CHINESE.search(english)
    # Sentences have been translated, and settings kept.
    assert all(CHINESE.search(line) for line in re.split(r"\n+", chinese) if not line.startswith("- `"))
    assert {*re.findall(r"`[a-z0-9_]+`", english)} <= {*re.findall(r"`[a-z0-9_]+`", chinese)}
    assert workflow.runs_here == (not workflow.files(presets))


def test_subgraphs_show_what_is_turned_and_hide_nothing_of_the_pack() -> None:
    folded = {name: subgraphs_of(saved(name)) for name in NAMES if subgraphs_of(saved(name))}
    assert {"wan21_vace_14b", "wan22_animate_14b", "ltx23_t2v", "minimax_h3_i2v", "hunyuan_video_15_t2v"} <= set(folded)
    for name, (subgraph,) in folded.items():
        assert not any(node["type"].startswith("PSA") for node in subgraph["nodes"]), name
        shown = {slot["name"] for slot in subgraph["inputs"]}
        files = [model for node in subgraph["nodes"] for model in node["properties"].get("models", [])]
        assert {"prompt", "length", "seed"} <= shown, name
        assert len([slot for slot in shown if "_name" in slot or slot == "text_encoder"]) == len(files) > 0, name


def test_links_of_model_files_serve_the_front_ends_download() -> None:
    """What loaders carry about a missing model: the name in the widget, and the folder to put it into."""
    for name in NAMES:
        for node in nodes_of(saved(name)):
            for model in node["properties"].get("models", []):
                assert model["name"] in node["widgets_values"]
                assert model["url"].endswith("/" + model["name"])


def test_templates_are_listed_with_thumbnails(comfyui: ComfyUI) -> None:
    listed = comfyui.client.get_json("/workflow_templates")
    (module,) = [module for module, names in listed.items() if set(names) == set(NAMES)]

    for name in NAMES:
        address = f"http://{comfyui.server.address}/api/workflow_templates/{module}/{name}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{address}.json", timeout=30) as response:
            assert json.loads(response.read()) == saved(name)
        with opener.open(f"{address}.jpg", timeout=30) as response:
            assert pictures.has_content(Image.open(response).convert("RGB"))


def test_opens_from_the_template_browser(front_end: Any) -> None:
    front_end.evaluate(LOAD, saved(RUN_HERE[1]))
    front_end.evaluate(BROWSE)
    dialog = front_end.get_by_role("dialog")
    # Under "Extensions" by the name of the pack's folder.
    dialog.get_by_text("psa", exact=True).click()

    dialog.locator(f"[data-testid='template-workflow-{RUN_HERE[0]}']").click()

    expected = exported(RUN_HERE[0])
    front_end.wait_for_function("(count) => app.graph.nodes.length === count", arg=len(expected) + 2, timeout=20_000)
    assert untitled(front_end.evaluate(EXPORT)) == untitled(expected)


@pytest.mark.parametrize("name", RUN_HERE)
def test_queued_from_the_front_end_it_finishes(
    name: str, comfyui: ComfyUI, front_end: Any, request: pytest.FixtureRequest
) -> None:
    keep = request.config.getoption("--write-pictures")
    front_end.evaluate(LOAD, saved(name))
    if keep:
        # Its letters may be missing where the picture is taken.
        front_end.evaluate(REMOVE, NOTE_TITLE)
        # A node that is found in the cache says nothing of another workflow's run.
        comfyui.client.forget()
    else:
        front_end.evaluate(SHORTEN)
    before = set(comfyui.client.get_json("/history"))

    front_end.evaluate(QUEUE)

    done = comfyui.client.wait_for_history(before, timeout=580)
    assert done["status"]["status_str"] == "success"
    graph = exported(name)
    for key, node in graph.items():
        if node["class_type"] in ("SaveVideo", "PSAReport", "PSACompare"):
            assert done["outputs"][key]["images"], node["class_type"]
    # Drawn, so that pictures are fetched.
    pictures.take(front_end, scale=0.75)
    pictures.wait_until_drawn(front_end, {node["class_type"] for node in graph.values()} & {"PSAReport", "PSACompare"})
    picture = pictures.take(front_end, scale=0.75)
    assert pictures.has_content(picture)
    if keep:
        if name == SHOWN_AFTER_A_RUN:
            picture.save(PICTURES / f"{name}.jpg", quality=88, optimize=True)
        _write_card(name, _frames(done, comfyui))


def check_boxes(name: str, page: Any) -> None:
    """That no node lies on another, inside subgraphs either."""
    graphs = {"": saved(name), **{graph["id"]: graph for graph in subgraphs_of(saved(name))}}
    for subgraph, graph in graphs.items():
        boxes = page.evaluate(BOXES, subgraph)
        assert len(boxes) == len(graph["nodes"]), name
        assert [pair for pair in itertools.combinations(boxes, 2) if overlap(*pair)] == [], name


def overlap(one: list[Any], other: list[Any]) -> bool:
    (_, left, top, right, bottom), (_, x, y, to_x, to_y) = one, other
    return max(left, x) < min(right, to_x) and max(top, y) < min(bottom, to_y)


def saved(name: str) -> dict[str, Any]:
    """A workflow as it lies in the folder."""
    document: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return document


def exported(name: str) -> dict[str, Any]:
    """The prompt that it stands for, in ComfyUI's API format."""
    document: dict[str, Any] = json.loads((EXPORTS / f"{name}.json").read_text(encoding="utf-8"))
    return document


def untitled(prompt: dict[str, Any]) -> dict[str, Any]:
    """What a prompt does: titles are only shown, and front ends call some nodes by other names."""
    return {key: (node["class_type"], node["inputs"]) for key, node in prompt.items()}


def notes(workflow: dict[str, Any]) -> list[str]:
    """In English and in Chinese."""
    return [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote"]


def _frames(done: dict[str, Any], comfyui: ComfyUI) -> list[Image.Image]:
    """A frame of every video of a run, but of those that show a difference."""
    files = [shown for output in done["outputs"].values() for shown in output.get("images", [])]
    folder = comfyui.server.base_directory / "output"
    videos = [folder / file["subfolder"] / file["filename"] for file in files if file["filename"].endswith(".mp4")]
    kept = sorted(video for video in videos if "difference" not in video.name)
    return [Image.fromarray(iio.imread(video, index=20, plugin="FFMPEG")) for video in kept]


def _write_card(name: str, shown: list[Image.Image]) -> None:
    card = pictures.thumbnail(shown, WORKFLOWS[name].title, CARDS[name].words, CARDS[name].colour)
    card.save(FOLDER / f"{name}.jpg", quality=85, optimize=True)


def _write(file: Path, document: dict[str, Any]) -> None:
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
