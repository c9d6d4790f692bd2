"""What users read of the nodes in ComfyUI: English is what schemas say, pages are in the language set, help opens."""

from __future__ import annotations

import re
import urllib.request
from typing import Any

import pytest

from ..browser import ADD, speak
from ..conftest import ComfyUI
from ..level_bar import RENDERERS, caption, rendered, show
from ..pack_texts import CHINESE, LANGUAGES, code, help_page, locale, node_ids, tables
from .test_live_pictures import TEXTS, WIDGETS
from .test_live_pictures import show as show_picture

ALIASES = {"sparse", "speed", "radial", "attention"}
EACH_NODE = pytest.mark.parametrize("node", node_ids())
# How a bar that counts for nothing says so: ComfyUI's languages that the pack lacks get English.
UNUSED = {"zh": ("未使用", "curve 为 preset"), "fr": ("not used", "curve is preset")}
OF_THE_PACK = pytest.mark.parametrize("speaking", LANGUAGES, indirect=True)
OF_ITS_PAGES = pytest.mark.parametrize("speaking", UNUSED, indirect=True)
# The node well below the menu, selected; where a widget of it is in the window, once the node has been laid out.
SHOW = """async (name) => {
    const node = window.psaNode;
    node.pos = [0, 0];
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [400, 200];
    app.canvas.selectNode(node);
    app.canvas.draw(true, true);
    await new Promise((done) => setTimeout(done, 300));
    const widget = node.widgets?.find((w) => w.name === name);
    return [400 + node.size[0] / 3, 200 + (widget?.last_y ?? 0) + 10];
}"""


def schema(comfyui: ComfyUI, node: str) -> dict[str, Any]:
    info = comfyui.client.object_info(node)
    assert info is not None
    return info


def inputs_of(info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of every input that a user sees, by name."""
    return {
        name: options for kind in ("required", "optional") for name, (_, options) in info["input"].get(kind, {}).items()
    }


def test_every_node_of_the_pack_is_among_those_tested(comfyui: ComfyUI) -> None:
    served = comfyui.client.get_json("/object_info")

    assert sorted(node_ids()) == sorted(name for name, info in served.items() if info["category"] == "PSA")


@EACH_NODE
def test_english_is_what_the_schema_says(comfyui: ComfyUI, node: str) -> None:
    info = schema(comfyui, node)
    said: dict[str, Any] = {"display_name": info["display_name"], "description": info["description"]}
    inputs = {name: {"tooltip": options.get("tooltip")} for name, options in inputs_of(info).items()}
    outputs = {str(i): {"tooltip": tooltip} for i, tooltip in enumerate(info["output_tooltips"])}

    assert locale("en")[node] == said | ({"inputs": inputs} if inputs else {}) | (
        {"outputs": outputs} if outputs else {}
    )


@EACH_NODE
def test_chinese_names_the_outputs_that_have_names(comfyui: ComfyUI, node: str) -> None:
    info = schema(comfyui, node)
    outputs = locale("zh")[node].get("outputs", {})

    # An output without a name of its own is shown as its type, which ComfyUI translates.
    for i, (kind, name) in enumerate(zip(info["output"], info["output_name"], strict=True)):
        label = outputs[str(i)].get("name")
        assert (label is None) == (name == kind)
        assert label is None or (label.startswith(f"{name} ") and CHINESE.search(label))


@EACH_NODE
def test_everything_is_described(comfyui: ComfyUI, node: str) -> None:
    info = schema(comfyui, node)
    texts = [info["description"], *info["output_tooltips"]]
    texts += [options.get("tooltip") for options in inputs_of(info).values()]

    assert all(texts)
    assert all(info["search_aliases"])
    assert any("sparse" in alias for alias in info["search_aliases"])


def test_nodes_are_found_by_what_they_are_about(comfyui: ComfyUI) -> None:
    aliases = [alias for node in node_ids() for alias in schema(comfyui, node)["search_aliases"]]

    assert {word for alias in aliases for word in alias.lower().split()} >= ALIASES


@pytest.mark.parametrize("language", LANGUAGES)
def test_comfyui_takes_up_the_locale_files(comfyui: ComfyUI, language: str) -> None:
    taken = comfyui.client.get_json("/i18n")[language]["nodeDefs"]

    assert {node: taken[node] for node in node_ids()} == locale(language)


@pytest.mark.parametrize("language", LANGUAGES)
@EACH_NODE
def test_help_pages_are_served(comfyui: ComfyUI, node: str, language: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    address = f"http://{comfyui.server.address}/extensions/psa/docs/{node}/{language}.md"
    with opener.open(address, timeout=30) as response:
        # The front end takes HTML for a page that is not there.
        assert "text/html" not in response.headers["Content-Type"]
        assert response.read().decode() == help_page(node, language)


@EACH_NODE
def test_help_pages_name_outputs_and_mark_inputs_as_the_schema_does(comfyui: ComfyUI, node: str) -> None:
    info = schema(comfyui, node)
    inputs, optional = inputs_of(info), info["input"].get("optional", {})
    for language, wanted in (("en", ("optional", "advanced")), ("zh", ("可选", "高级"))):
        sections = [("Inputs", "Outputs"), ("输入", "输出")][language == "zh"]
        found = {table.section: table.rows for table in tables(help_page(node, language))}
        for cell, *_ in found.get(sections[0], []):
            for name in code(cell):
                marks = (name in optional, bool(inputs[name].get("advanced")))
                assert tuple(mark in cell for mark in wanted) == marks, name
        assert [code(cell) for cell, *_ in found.get(sections[1], [])] == [[name] for name in info["output_name"]]


@pytest.fixture(scope="module")
def speaking(request: pytest.FixtureRequest, page: Any) -> tuple[Any, str]:
    """The front end in a language, and the language."""
    speak(page, request.param)
    return page, request.param


@OF_THE_PACK
def test_titles_and_labels_are_in_the_language(speaking: tuple[Any, str]) -> None:
    page, language = speaking
    for node in node_ids():
        texts = locale(language)[node]
        page.evaluate(ADD, node)

        assert page.evaluate("window.psaNode.title") == texts["display_name"]
        labels = dict(page.evaluate("(window.psaNode.widgets ?? []).map((w) => [w.name, w.label])"))
        slots = dict(page.evaluate("(window.psaNode.inputs ?? []).map((i) => [i.name, i.localized_name])"))
        for key, text in texts.get("inputs", {}).items():
            wanted = text.get("name", key)
            assert slots[key] == wanted
            assert labels.get(key, wanted) == wanted
        outputs = page.evaluate("(window.psaNode.outputs ?? []).map((o) => o.localized_name)")
        for i, text in texts.get("outputs", {}).items():
            assert text.get("name", outputs[int(i)]) == outputs[int(i)]


@OF_THE_PACK
@pytest.mark.parametrize(
    ("node", "widget"), [("PSASparsitySchedule", "curve"), ("PSASavePreset", "name"), ("PSARadialMask", "mode")]
)
def test_tooltips_are_in_the_language(speaking: tuple[Any, str], node: str, widget: str) -> None:
    page, language = speaking
    page.evaluate(ADD, node)
    page.mouse.move(5, 400)

    page.mouse.move(*page.evaluate(SHOW, widget))

    tooltip = page.locator(".node-tooltip")
    tooltip.wait_for(timeout=10_000)
    assert tooltip.inner_text() == locale(language)[node]["inputs"][widget]["tooltip"]


@OF_THE_PACK
@EACH_NODE
def test_help_opens_in_the_language(speaking: tuple[Any, str], node: str) -> None:
    page, language = speaking
    text = help_page(node, language)
    title = text.splitlines()[0].removeprefix("# ")
    page.evaluate(ADD, node)
    page.evaluate(SHOW, "")

    page.get_by_test_id("info-button").click()

    heading = page.locator(".node-help-content h1", has_text=re.compile(f"^{re.escape(title)}$"))
    heading.wait_for(timeout=10_000)
    shown = page.locator(".node-help-content")
    assert shown.locator("img").get_attribute("src") == f"/extensions/psa/docs/pictures/{node}.jpg"
    assert not re.search(r"[*`]", shown.inner_text())
    assert shown.locator("tbody tr").count() == sum(len(table.rows) for table in tables(text))


@OF_ITS_PAGES
@pytest.mark.parametrize("renderer", RENDERERS)
def test_texts_are_in_the_language_that_comfyui_is_set_to(speaking: tuple[Any, str], renderer: str) -> None:
    page, language = speaking
    with rendered(page, renderer):
        show(page, "PSASparsitySchedule")
        _, shown = caption(page)
    name, value = UNUSED[language]
    assert shown.startswith(name)
    assert shown.endswith(value)


@OF_ITS_PAGES
@pytest.mark.parametrize("renderer", RENDERERS)
def test_pictures_speak_chinese_to_those_who_do(speaking: tuple[Any, str], renderer: str) -> None:
    page, language = speaking
    with rendered(page, renderer):
        drawn = [text for node_type in WIDGETS for text in show_picture(page, node_type).evaluate(TEXTS)]
    words = [text for text in drawn if not text.replace(".", "").removesuffix("x").isdigit()]
    assert len(words) > 5
    assert all((language == "zh") == bool(CHINESE.search(text)) for text in words), words
