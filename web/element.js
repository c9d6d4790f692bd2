// Elements of the pack's own on nodes, among the widgets: not saved, not in prompts, in both of the front end's renderers.
import { app } from "../../scripts/app.js";

// What is shown changes by typing, by presets, undo, links, runs and other extensions, and classic canvas and Vue nodes
// tell of it in different ways: looking at it once a frame sees it all.
const followed = new Set();
let frame = 0;

function follow() {
    frame = followed.size ? requestAnimationFrame(follow) : 0;
    for (const look of followed) look();
}

// Look at something once a frame, for as long as a node is in a graph; look() is cheap where nothing has changed.
export function everyFrame(node, look) {
    chain(node, "onAdded", () => {
        followed.add(look);
        frame ||= requestAnimationFrame(follow);
    });
    chain(node, "onRemoved", () => followed.delete(look));
}

// Undo and loading a graph make new nodes with old ids. Vue nodes go on showing the element of the node that is gone.
function takePlace({ element, name }, node) {
    if (!LiteGraph.vueNodesMode || node.graph !== app.canvas.graph) return;
    document.querySelector(`[data-psa="${name}"][data-node="${node.id}"]`)?.replaceWith(element);
}

export function chain(target, name, action) {
    const original = target[name];
    target[name] = function (...args) {
        const result = original?.apply(this, args);
        action(...args);
        return result;
    };
}

// Add an element as the node's last widget. height(): in units of the canvas. update(): called once a frame while the
// element is in the page, and cheap where nothing has changed. own(event): whether the element takes a pointer event of
// the classic canvas itself; the others go on to the canvas below.
export function addElement(node, name, element, { height, update, own }) {
    element.dataset.psa = name;
    const added = node.addDOMWidget(name, `psa_${name}`, element, {
        serialize: false, hideInPanel: true, hideOnZoom: false, margin: 0,
    });
    // The option keeps it out of prompts, the property out of saved graphs.
    added.serialize = false;
    // Of its own height in both renderers, however high the node. One of none leaves no hole: the classic canvas puts 4
    // units between widgets.
    added.computeSize = (width) => [width, height() || -4];
    added.computeLayoutSize = undefined;
    forwardToCanvas(element, own);
    everyFrame(node, () => {
        element.dataset.node = node.id;
        if (!element.isConnected) takePlace(added, node);
        if (element.isConnected) update();
    });
    // The front end leaves a hole where a widget is not saved, but does not skip one when it reads: without this every
    // value behind an element would get to the widget before its own.
    chain(node, "onSerialize", (saved) => {
        if (saved.widgets_values) saved.widgets_values = Object.values(saved.widgets_values);
    });
    return added;
}

// In the classic canvas an element lies above it. Vue nodes see to it themselves.
function forwardToCanvas(element, own) {
    const methods = {
        wheel: "processMouseWheel", pointerdown: "processMouseDown", pointermove: "processMouseMove",
        pointerup: "processMouseUp",
    };
    for (const [type, method] of Object.entries(methods)) {
        element.addEventListener(type, (event) => {
            if (LiteGraph.vueNodesMode || own(event)) return;
            if (type === "wheel") event.preventDefault();
            app.canvas[method](event);
        });
    }
    element.addEventListener("contextmenu", (event) => event.preventDefault());
}
