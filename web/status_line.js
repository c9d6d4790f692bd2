// What a node of the pack says of its last run, as lines below its widgets. The server's `say` in nodes/shared.py sends
// them to the browser that queued the prompt; they stay when the job has ended.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { addElement } from "./element.js";

const NODES = ["PSAAttentionPatch", "PSASavePreset", "PSACogVideoXLoRA"];
const HREF = new URL("status_line.css", import.meta.url);
// LiteGraph's: such a node is not part of prompts.
const LEFT_OUT = [2, 4];

// Lines by graph and node: undo and another tab's graph make new nodes, and a run may end while its graph is not shown.
const lines = new Map();

// The node that a prompt calls "12:3" is node 3 in the subgraph of node 12.
function nodeOf(id) {
    let [node, graph] = [null, app.rootGraph ?? app.graph];
    for (const part of String(id).split(":")) {
        node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
        graph = node?.subgraph;
    }
    return node;
}

// The pack's nodes in the graph that is open, as [id in prompts, node].
function* nodesWithin(graph = app.rootGraph ?? app.graph, within = "") {
    for (const node of graph?.nodes ?? []) {
        if (node.psaShowLine) yield [`${within}${node.id}`, node];
        if (node.subgraph) yield* nodesWithin(node.subgraph, `${within}${node.id}:`);
    }
}

function keyOf(id, graph = (app.rootGraph ?? app.graph).id) {
    return `${graph}/${id}`;
}

function say({ node: id, line, graph }) {
    const key = keyOf(id, graph ?? undefined);
    lines.set(key, line);
    if (key === keyOf(id)) nodeOf(id)?.psaShowLine?.(line);
}

function addLine(node) {
    const element = document.createElement("div");
    element.className = "psa-status-line";
    element.setAttribute("role", "status");
    const text = document.createElement("div");
    element.append(text);
    let [height, measured] = [0, ""];

    // How high the text is depends on how wide the node is, which the classic canvas does not tell of.
    function update() {
        const state = `${node.size[0]} ${text.textContent}`;
        if (state === measured || (text.textContent && !text.offsetHeight)) return;
        measured = state;
        height = text.offsetHeight;
        const [, least] = node.computeSize();
        if (!LiteGraph.vueNodesMode && node.size[1] < least) node.setSize([node.size[0], least]);
        node.setDirtyCanvas(true, true);
    }

    addElement(node, "status_line", element, { height: () => height, update, own: () => false });
    node.psaShowLine = (line) => {
        text.textContent = line;
        element.classList.toggle("psa-status-line-empty", !line);
    };
    node.psaShowLine("");
}

app.registerExtension({
    name: "psa.statusLine",

    setup() {
        document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: HREF }));
        api.addEventListener("psa.line", ({ detail }) => say(detail));
        // A node that the run leaves out has nothing to say of it.
        api.addEventListener("execution_start", () => {
            for (const [id, node] of nodesWithin()) if (LEFT_OUT.includes(node.mode)) say({ node: id, line: "" });
        });
    },

    nodeCreated(node) {
        if (NODES.includes(node.comfyClass)) addLine(node);
    },

    afterConfigureGraph() {
        for (const [id, node] of nodesWithin()) node.psaShowLine(lines.get(keyOf(id)) ?? "");
    },
});
