// mask_ratios as bars on Preset Loader and Sparsity Schedule. The number widgets hold the values and are what is saved
// and runs; a bar shows them and writes into them.
import { app } from "../../scripts/app.js";
import { LevelBar } from "./level_bar.js";
import { widget } from "./presets.js";
import { text } from "./texts.js";

const HEIGHT = 48;
// Widgets are called <prefix><level>.
const BARS = {
    PSAPresetLoader: [{ prefix: "level_", label: "mask_ratios" }],
    PSASparsitySchedule: [{ prefix: "start_", label: "start" }, { prefix: "end_", label: "end" }],
};
const IGNORED = { preset: ["start_", "end_"], constant: ["end_"], timestep: ["end_"] };

// Numbers change by typing, by presets, undo, links and other extensions, and classic canvas and Vue nodes tell of it
// in different ways: looking at them once a frame sees it all.
const shown = new Map();
let frame = 0;

function follow() {
    frame = shown.size ? requestAnimationFrame(follow) : 0;
    for (const [bar, node] of shown) {
        bar.element.dataset.node = node.id;
        if (!bar.element.isConnected) takePlace(bar, node);
        if (bar.element.isConnected) bar.update();
    }
}

// Undo and loading a graph make new nodes with old ids. Vue nodes go on showing the element of the node that is gone.
function takePlace({ element, label }, node) {
    if (!LiteGraph.vueNodesMode || node.graph !== app.canvas.graph) return;
    const bars = document.querySelectorAll(`.psa-level-bar[data-node="${node.id}"]`);
    [...bars].find((each) => each.getAttribute("aria-label") === label)?.replaceWith(element);
}

function show(bar, node) {
    shown.set(bar, node);
    frame ||= requestAnimationFrame(follow);
}

function chain(target, name, action) {
    const original = target[name];
    target[name] = function (...args) {
        const result = original?.apply(this, args);
        action(...args);
        return result;
    };
}

function levelWidgets(node, prefix) {
    return node.widgets.filter(({ name }) => name.startsWith(prefix) && /^\d+$/.test(name.slice(prefix.length)));
}

function isLinked(node, name) {
    const slot = node.inputs?.findIndex((input) => input.widget?.name === name) ?? -1;
    return slot >= 0 && node.isInputConnected(slot);
}

function readBounds(node, prefix) {
    const setting = app.extensionManager.setting.get("Comfy.Node.AlwaysShowAdvancedWidgets");
    const showsAdvanced = Boolean(node.showAdvanced || setting);
    return levelWidgets(node, prefix).map((each) => ({
        level: Number(each.name.slice(prefix.length)),
        name: each.name,
        bound: each.value,
        linked: isLinked(node, each.name),
        shown: showsAdvanced || !(each.options?.advanced ?? each.advanced),
    }));
}

function unused(node, prefix) {
    const curve = widget(node, "curve");
    if (!curve || isLinked(node, "curve") || !IGNORED[curve.value]?.includes(prefix)) return null;
    return text("bar.notUsed", { curve: curve.value });
}

function addBar(node, { prefix, label }) {
    const bar = new LevelBar({
        label,
        read: () => ({ bounds: readBounds(node, prefix), unused: unused(node, prefix) }),
        write(numbers) {
            for (const [name, bound] of numbers) {
                const number = widget(node, name);
                number.value = bound;
                number.callback?.(bound, app.canvas, node);
            }
            node.setDirtyCanvas(true, true);
        },
        done() {
            // What the front end's undo listens to.
            app.canvas.emitBeforeChange();
            app.canvas.emitAfterChange();
        },
    });
    const added = node.addDOMWidget(`${prefix}bar`, "psa_level_bar", bar.element, {
        serialize: false, hideInPanel: true, hideOnZoom: false, margin: 0,
    });
    // The option keeps it out of prompts, the property out of saved graphs.
    added.serialize = false;
    // Of a fixed height in both renderers, however high the node.
    added.computeSize = (width) => [width, HEIGHT];
    added.computeLayoutSize = undefined;
    forwardToCanvas(bar.element);
    const widgets = node.widgets.filter((each) => each !== added);
    widgets.splice(widgets.indexOf(levelWidgets(node, prefix)[0]), 0, added);
    node.widgets.splice(0, node.widgets.length, ...widgets);
    chain(node, "onAdded", () => show(bar, node));
    chain(node, "onRemoved", () => shown.delete(bar));
}

// In the classic canvas the bar lies above it: wheel and the other mouse buttons go on to it. Vue nodes see to it
// themselves.
function forwardToCanvas(element) {
    const methods = {
        wheel: "processMouseWheel", pointerdown: "processMouseDown", pointermove: "processMouseMove",
        pointerup: "processMouseUp",
    };
    for (const [type, method] of Object.entries(methods)) {
        element.addEventListener(type, (event) => {
            if (LiteGraph.vueNodesMode) return;
            if (type === "wheel") event.preventDefault();
            else if (event.button <= 0 && !(event.buttons & 6)) return;
            app.canvas[method](event);
        });
    }
    element.addEventListener("contextmenu", (event) => event.preventDefault());
}

app.registerExtension({
    name: "psa.levelBar",

    nodeCreated(node) {
        const bars = BARS[node.comfyClass];
        if (!bars) return;
        for (const bar of bars) addBar(node, bar);
        // The front end leaves a hole where a widget is not saved, but does not skip one when it reads: without this
        // every number behind a bar would get the value of the one before it.
        chain(node, "onSerialize", (saved) => {
            if (saved.widgets_values) saved.widgets_values = Object.values(saved.widgets_values);
        });
        const [width, height] = node.computeSize();
        node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
    },
});
