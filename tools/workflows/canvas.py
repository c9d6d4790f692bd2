"""A workflow in the making: nodes in columns, connected as in API JSON, with a note, titled groups and a subgraph."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .chinese import CHINESE, FILES, FROM, NO_FILES, NOTE_TITLE, PARTS, TO_TRY
from .model_files import ModelFile

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "pyramid-sparse-attention/workflows")
Presets = Mapping[str, Mapping[str, Any]]
PSA_COLOUR, OTHER_COLOUR = "#2a6f8f", "#3f789e"


@dataclass(frozen=True)
class Output:
    """A node's output; the front end finds the input by name and the output by place."""

    node: int
    slot: int = 0

    def other(self, slot: int) -> Output:
        """Another output of the same node."""
        return Output(self.node, slot)


@dataclass
class Subgraph:
    """Nodes that are one node from outside.

    Attributes:
        title: of that node.
        column: that it stands in.
        groups: titles of the columns inside, from left to right.
        promoted: widgets of nodes inside that it shows, each with the node, its widget, and the name shown.
        files: the same, of model files, which come last and are all shown.
    """

    title: str
    column: int
    groups: list[str] = field(default_factory=list)
    promoted: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)

    def add_file(self, node: int, widget: str) -> None:
        """Show a model file, under a name that the front end itself would give where its widget's is taken."""
        taken = sum(each["widget"] == widget for each in self.files)
        self.files.append({"id": node, "widget": widget, "name": f"{widget}_{taken}" if taken else widget})

    def specification(self) -> dict[str, Any]:
        """It, for the script that folds it."""
        promoted = [*self.promoted, *self.files]
        return {"title": self.title, "column": self.column, "groups": _headings(self.groups), "promoted": promoted}


@dataclass
class Canvas:
    """What a workflow's builder fills. Column 0 holds the note, the others are groups from left to right.

    Attributes:
        presets: numbers of every preset by model and name, as the server tells them.
        subgraph: the one of the workflow, if it has one.
        inside: whether that is being filled.
    """

    presets: Presets
    nodes: list[dict[str, Any]] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    files: list[ModelFile] = field(default_factory=list)
    subgraph: Subgraph | None = None
    inside: bool = False

    def group(self, title: str) -> None:
        """Begin a column; nodes added from here on stand in it."""
        if self.inside:
            self._columns.append(title)
        else:
            self.groups.append(f"{len(self.groups) + 1} {title}")

    @contextmanager
    def within(self, title: str) -> Iterator[None]:
        """Put what is added in its ``with`` into a subgraph, which stands in the column begun last."""
        self.subgraph, self.inside = Subgraph(title, len(self.groups)), True
        yield
        self.inside = False

    def promote(self, output: Output, **widgets: str) -> None:
        """Show widgets of a node inside the subgraph on it; ``widgets``: each with its name there."""
        assert self.subgraph is not None
        self.subgraph.promoted += [
            {"id": output.node, "widget": widget, "name": name} for widget, name in widgets.items()
        ]

    @property
    def _columns(self) -> list[str]:
        """Those that are being filled."""
        return self.subgraph.groups if self.subgraph is not None and self.inside else self.groups

    def add(
        self,
        node_type: str,
        title: str | None = None,
        size: tuple[int, int] = (0, 0),
        last: bool = False,
        **inputs: Any,
    ) -> Output:
        """Add a node. Inputs that are outputs of other nodes become links, model files and plain values widgets.

        Args:
            size: least width and height.
            last: stands below the others of its column, because it is tall.
        """
        number = len(self.nodes) + 1
        widgets: dict[str, Any] = {}
        files: list[ModelFile] = []
        for name, value in inputs.items():
            if isinstance(value, Output):
                self.links.append({"from": value.node, "slot": value.slot, "to": number, "input": name})
            elif isinstance(value, ModelFile):
                files.append(value)
                widgets[name] = value.widget
                if self.subgraph is not None and self.inside:
                    self.subgraph.add_file(number, name)
            else:
                widgets[name] = value
        self.files += [file for file in files if file not in self.files]
        # What the front end offers to download, which knows no subfolders.
        plain = [file for file in files if not file.subfolder]
        self.nodes.append(
            {
                "id": number,
                "type": node_type,
                "title": title,
                "column": len(self._columns),
                "inside": self.inside,
                "size": size,
                "last": last,
                "widgets": widgets,
                "models": [{"name": file.widget, "url": file.url, "directory": file.folder} for file in plain],
            }
        )
        return Output(number)

    def preset(self, model: str, name: str) -> Output:
        """A Preset Loader that shows a preset's numbers."""
        numbers = self.presets[model]["presets"][name]
        return self.add("PSAPresetLoader", last=True, model=model, preset=name, **numbers)

    def sampler(self, node_type: str, title: str | None = None, **inputs: Any) -> Output:
        """A sampler whose seed stays, so that settings can be compared."""
        return self.add(node_type, title, control_after_generate="fixed", **inputs)


Build = Callable[[Canvas], None]


@dataclass(frozen=True)
class Workflow:
    """One bundled workflow.

    Attributes:
        name: file name without its ending.
        title: heading of its note.
        summary: what it makes, in a sentence or two of Markdown.
        advice: settings to try, a line of Markdown each.
        build: adds the nodes.
        runs_here: it needs no file beyond the pack, and runs on a CPU.
    """

    name: str
    title: str
    summary: str
    advice: Sequence[str]
    build: Build
    runs_here: bool = False

    def files(self, presets: Presets) -> list[ModelFile]:
        """The model files that its nodes name."""
        return self._canvas(presets).files

    def specification(self, presets: Presets) -> dict[str, Any]:
        """Nodes, links, groups and notes, for the script that puts them on the front end's canvas."""
        canvas = self._canvas(presets)
        return {
            "id": str(uuid.uuid5(_NAMESPACE, self.name)),
            "nodes": canvas.nodes,
            "links": canvas.links,
            "groups": _headings(canvas.groups),
            "subgraph": None if canvas.subgraph is None else canvas.subgraph.specification(),
            "notes": [
                {"title": "Read me", "text": self._note(canvas.files)},
                {"title": NOTE_TITLE, "text": self._chinese_note(canvas.files)},
            ],
        }

    def _canvas(self, presets: Presets) -> Canvas:
        canvas = Canvas(presets)
        self.build(canvas)
        return canvas

    def _note(self, files: Sequence[ModelFile]) -> str:
        listed = "**Files**: none. Model and autoencoder come with the pack."
        if files:
            listed = _files("**Files**, in `ComfyUI/models`:", ", with all {parts} parts,", "from", files)
        return _text(self.title, self.summary, listed, "**To try**", self.advice)

    def _chinese_note(self, files: Sequence[ModelFile]) -> str:
        listed = _files(FILES, PARTS, FROM, files) if files else NO_FILES
        title, summary, *advice = (CHINESE.get(text, text) for text in (self.title, self.summary, *self.advice))
        return _text(title, summary, listed, TO_TRY, advice)


def _files(heading: str, parts: str, source: str, files: Sequence[ModelFile]) -> str:
    rows = []
    for file in files:
        others = parts.format(parts=file.parts) if file.parts > 1 else ""
        rows.append(f"- `{file.folder}/{file.widget}`{others} {source} [{file.repository}]({file.page})")
    return "\n".join([heading, "", *rows])


def _text(title: str, summary: str, files: str, to_try: str, advice: Sequence[str]) -> str:
    return "\n\n".join([f"## {title}", summary, files, f"{to_try}\n\n" + "\n".join(f"- {line}" for line in advice)])


def _headings(titles: Sequence[str]) -> list[dict[str, str]]:
    return [{"title": title, "colour": _colour(title)} for title in titles]


def _colour(title: str) -> str:
    return PSA_COLOUR if "PSA" in title else OTHER_COLOUR
