// On a Preset Loader whose numbers are not all those of its preset: which they are, and a button that takes those back.
import { app } from "../../scripts/app.js";
import { addElement } from "./element.js";
import { fill, isLinked, widget } from "./presets.js";
import { text } from "./texts.js";

const HEIGHT = 24;
const HREF = new URL("preset_changes.css", import.meta.url);

// Graphs of 0.1.0 hold amounts of steps as numbers, widgets as texts.
function isSame(a, b) {
    return typeof a === "number" && typeof b === "number" ? Math.abs(a - b) < 1e-9 : String(a).trim() === String(b);
}

// Those of the numbers that the node's widgets do not have.
export function changedNames(node, numbers) {
    return Object.keys(numbers).filter((name) => !isLinked(node, name) && !isSame(widget(node, name).value, numbers[name]));
}

// presetOf(node): the numbers of the preset that the node names; undefined where there is none of the name.
export function addChanges(node, presetOf) {
    const [element, line, button] = ["div", "span", "button"].map((tag) => document.createElement(tag));
    element.className = "psa-preset-changes";
    element.setAttribute("role", "status");
    element.append(line, button);
    let shown = null;

    function update() {
        const numbers = presetOf(node) ?? {};
        const names = changedNames(node, numbers);
        const state = names.map((name) => `${name} ${numbers[name]}`).join() + text("preset.reset");
        if (state === shown) return;
        shown = state;
        line.textContent = names.length ? text("preset.changed", { names: names.join(", ") }) : "";
        line.title = names.map((name) => text("preset.was", { name, value: numbers[name] })).join("\n");
        button.textContent = text("preset.reset");
        button.title = text("preset.resetHelp", { preset: widget(node, "preset").value });
        element.hidden = !names.length;
        const [, least] = node.computeSize();
        if (!LiteGraph.vueNodesMode && node.size[1] < least) node.setSize([node.size[0], least]);
        node.setDirtyCanvas(true, true);
    }

    button.addEventListener("click", () => {
        fill(node, presetOf(node) ?? {});
        // What the front end's undo listens to.
        app.canvas.emitBeforeChange();
        app.canvas.emitAfterChange();
    });
    const added = addElement(node, "preset_changes", element, {
        height: () => (element.hidden ? 0 : HEIGHT),
        update,
        own: (event) => event.target === button && event.type !== "wheel",
    });
    element.hidden = true;
    const widgets = node.widgets.filter((each) => each !== added);
    widgets.splice(widgets.indexOf(widget(node, "preset")) + 1, 0, added);
    node.widgets.splice(0, node.widgets.length, ...widgets);
}

app.registerExtension({
    name: "psa.presetChanges",

    setup() {
        document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: HREF }));
    },
});
