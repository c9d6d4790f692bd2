// What a node of the pack says of its last run, as lines below its widgets. The server's `say` in nodes/shared.py sends
// them to the browser that queued the prompt; they stay when the job has ended.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { addElement } from "./element.js";

const NODES = ["PSAAttentionPatch", "PSASavePreset", "PSASaveCalibration", "PSACogVideoXLoRA"];
const HREF = new URL("status_line.css", import.meta.url);
const NOTHING = { line: "" };
// LiteGraph's modes of nodes that no prompt has: muted and bypassed.
const LEFT_OUT = [2, 4];

// What nodes have said, by graph and node: undo and another tab's graph make new nodes, and a run may end while its
// graph is not shown. And what they said with the same settings before, for runs that find them in ComfyUI's cache.
const said = new Map();
const saidBefore = new Map();

// The graph that is open, subgraphs within.
function root() {
    return app.rootGraph ?? app.graph;
}

// The node that a prompt calls "12:3" is node 3 in the subgraph of node 12.
function nodeOf(id) {
    let [node, graph] = [null, root()];
    for (const part of String(id).split(":")) {
        node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
        graph = node?.subgraph;
    }
    return node;
}

// The nodes with a line, as [id in prompts, node].
function* nodesWithin(graph = root(), within = "") {
    for (const node of graph?.nodes ?? []) {
        if (node.psaSay) yield [`${within}${node.id}`, node];
        if (node.subgraph) yield* nodesWithin(node.subgraph, `${within}${node.id}:`);
    }
}

function keyOf(id, graph = root().id) {
    return `${graph}/${id}`;
}

// All that decides what a node does in a run.
function settingsOf(node) {
    if (!node) return null;
    const values = node.widgets?.filter((each) => each.serialize !== false).map((each) => each.value);
    return [node.type, values, node.inputs?.map((_, slot) => settingsOf(node.getInputNode(slot)))];
}

function say({ node: id, graph, ...what }) {
    const key = keyOf(id, graph ?? undefined);
    said.set(key, what);
    if (key !== keyOf(id)) return;
    const node = nodeOf(id);
    node?.psaSay?.(what);
    if (node?.psaSettings) saidBefore.set(`${key} ${node.psaSettings}`, what);
}

// A run begins. A node that it leaves out has nothing to say of it, and one that is found in the cache what it said then.
function begin({ nodes: cached }) {
    for (const [id, node] of nodesWithin()) {
        node.psaSettings = JSON.stringify(settingsOf(node));
        const before = saidBefore.get(`${keyOf(id)} ${node.psaSettings}`) ?? NOTHING;
        if (LEFT_OUT.includes(node.mode)) say({ node: id, ...NOTHING });
        else if (cached.includes(id)) say({ node: id, ...before });
    }
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
    node.psaSay = (what) => {
        node.psaSaid = what;
        text.textContent = what.line;
        element.classList.toggle("psa-status-line-empty", !what.line);
    };
    node.psaSay(NOTHING);
}

app.registerExtension({
    name: "psa.statusLine",

    setup() {
        document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: HREF }));
        api.addEventListener("psa.line", ({ detail }) => say(detail));
        api.addEventListener("execution_cached", ({ detail }) => begin(detail));
    },

    nodeCreated(node) {
        if (NODES.includes(node.comfyClass)) addLine(node);
    },

    afterConfigureGraph() {
        for (const [id, node] of nodesWithin()) node.psaSay(said.get(keyOf(id)) ?? NOTHING);
    },
});
