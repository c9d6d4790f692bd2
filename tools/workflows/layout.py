"""Puts a workflow's nodes on the canvas of ComfyUI's front end, which then saves it in its own format."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

# Sizes come from the nodes themselves, so columns are laid out once all have been made.
PUT = """async ([spec, heights]) => {
    const GAP = 40, TITLE = 34, HEADING = 50, NOTE_WIDTH = 430, LEAST = 300, FOLDED = [400, 560];
    await app.loadGraphData({ version: 0.4, nodes: [], links: [], groups: [], last_node_id: 0, last_link_id: 0 });
    const graph = app.graph, nodes = {};
    for (const each of spec.nodes) {
        const node = LiteGraph.createNode(each.type);
        if (!node) throw new Error(`no node ${each.type}`);
        node.id = each.id;
        graph.add(node);
        nodes[each.id] = node;
        if (each.title) node.title = each.title;
        if (each.models.length) node.properties.models = each.models;
    }
    // What a node fetches when it is made is there before its values are.
    await new Promise((done) => setTimeout(done, 300));
    for (const each of spec.nodes) {
        for (const [name, value] of Object.entries(each.widgets)) {
            const widget = nodes[each.id].widgets.find((w) => w.name === name);
            if (!widget) throw new Error(`${each.type} has no widget ${name}`);
            widget.value = value;
        }
    }
    for (const link of spec.links) {
        const target = nodes[link.to], slot = target.findInputSlot(link.input);
        if (slot < 0) throw new Error(`${target.type} has no input ${link.input}`);
        if (!nodes[link.from].connect(link.slot, target, slot)) throw new Error(`${target.type}.${link.input} refuses`);
    }
    // Room for a node in both renderers: as high as in the one that needs more.
    const room = (node) => Math.max(node.size[1], heights[node.id] ?? 0) + TITLE + GAP / 2;
    const putColumns = (graph, headings, members, x) => {
        headings.forEach((heading, column) => {
            const own = members.filter((each) => each.column === column + 1).sort((a, b) => a.last - b.last);
            const sizes = own.map(({ node, size }) => node.computeSize().map((least, i) => Math.max(least, size[i])));
            const width = Math.max(LEAST, ...sizes.map((size) => size[0]));
            let y = HEADING + TITLE;
            own.forEach(({ node }, i) => {
                node.pos = [x, y];
                node.setSize([width, sizes[i][1]]);
                y += room(node);
            });
            const group = new LiteGraph.LGraphGroup(heading.title);
            group.color = heading.colour;
            graph.add(group);
            group.pos = [x - GAP / 2, 0];
            group.size = [width + GAP, y - TITLE + GAP / 4];
            x += width + 2 * GAP;
        });
        return x;
    };
    const members = (inside) => spec.nodes.filter((each) => each.inside === inside)
        .map(({ id, ...each }) => ({ node: nodes[id], ...each }));
    const outside = members(false);
    if (spec.subgraph) {
        const { title, column, groups, promoted } = spec.subgraph;
        const { subgraph, node } = graph.convertToSubgraph(new Set(members(true).map((each) => each.node)));
        for (const each of spec.nodes) if (each.inside) nodes[each.id] = subgraph.getNodeById(each.id);
        subgraph.name = node.title = title;
        // Front ends promote what they think best.
        const unasked = node.inputs.flatMap((input, i) => (input.link == null ? [subgraph.inputs[i]] : []));
        for (const input of unasked) subgraph.removeInput(input);
        for (const each of promoted) {
            const slot = nodes[each.id].inputs.find((input) => input.widget?.name === each.widget);
            if (!slot) throw new Error(`${nodes[each.id].type} has no widget ${each.widget}`);
            subgraph.addInput(each.name, slot.type).connect(slot, nodes[each.id]);
        }
        const right = putColumns(subgraph, groups, members(true), 0);
        subgraph.inputNode.pos = [-6 * GAP, HEADING];
        subgraph.outputNode.pos = [right, HEADING];
        outside.push({ node, column, size: FOLDED, last: true });
    }
    let below = HEADING;
    for (const each of spec.notes) {
        const note = LiteGraph.createNode("MarkdownNote");
        graph.add(note);
        note.widgets[0].value = each.text;
        note.title = each.title;
        note.color = "#432";
        note.bgcolor = "#653";
        note.pos = [0, below];
        // A line of the note holds about 60 letters, or 37 of Chinese, which are wider.
        const width = (line) => [...line].reduce((sum, letter) => sum + (letter > "\\u2e80" ? 1.6 : 1), 0);
        const lines = each.text.split("\\n").reduce((sum, line) => sum + 1 + Math.floor(width(line) / 60), 0);
        note.size = [NOTE_WIDTH, 70 + 17 * lines];
        below += room(note);
    }
    putColumns(graph, spec.groups, outside, NOTE_WIDTH + 2 * GAP);
    await new Promise((done) => setTimeout(done, 200));
    // As it would stand in a file: what is undefined goes.
    const saved = JSON.parse(JSON.stringify(graph.serialize()));
    saved.id = spec.id;
    saved.extra = {};
    return saved;
}"""


# Heights of nodes in Vue nodes, by id, each as small as its widgets let it be.
HEIGHTS = """async () => {
    const scale = 0.5;
    Object.assign(app.canvas.ds, { scale, offset: [0, 50] });
    app.canvas.setDirty(true, true);
    await new Promise((done) => setTimeout(done, 1500));
    const titled = (node) => document.querySelector(`.lg-node[data-node-id="${node.id}"]`).offsetHeight;
    return Object.fromEntries(app.graph.nodes.map((node) => [node.id, titled(node) - LiteGraph.NODE_TITLE_HEIGHT]));
}"""
RENDER = "(vue) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)"
_IDENTITY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def put(page: Any, specification: dict[str, Any], heights: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Build a workflow in the browser and return it in the front end's format.

    Args:
        page: the front end in the classic renderer, with an empty canvas or one that may go.
        specification: of :meth:`Workflow.specification`.
        heights: room that nodes need at least, by id.
    """
    saved: dict[str, Any] = page.evaluate(PUT, [specification, heights or {}])
    return _with_lasting_ids(saved)


def put_for_both(page: Any, specification: dict[str, Any]) -> dict[str, Any]:
    """As :func:`put`, with room for every node in Vue nodes too, where most are higher."""
    heights: dict[str, float] = {}
    if specification["subgraph"]:
        # All that lies in it is seen before it is folded.
        unfolded = {
            "subgraph": None,
            "groups": [],
            "nodes": [{**node, "inside": False} for node in specification["nodes"]],
        }
        heights |= _heights(page, {**specification, **unfolded})
    heights |= _heights(page, specification)
    return put(page, specification, heights)


def _heights(page: Any, specification: dict[str, Any]) -> dict[str, float]:
    put(page, specification)
    page.evaluate(RENDER, True)
    heights: dict[str, float] = page.evaluate(HEIGHTS)
    page.evaluate(RENDER, False)
    return heights


def _with_lasting_ids(saved: dict[str, Any]) -> dict[str, Any]:
    """The same with other random ids, of subgraphs and their slots: those that it gets every time."""
    text = json.dumps(saved)
    for number, found in enumerate(dict.fromkeys(_IDENTITY.findall(text))):
        if found != saved["id"]:
            text = text.replace(found, str(uuid.uuid5(uuid.UUID(saved["id"]), str(number))))
    lasting: dict[str, Any] = json.loads(text)
    return lasting
