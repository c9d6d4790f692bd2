// Advanced inputs of the pack's nodes folded away in the classic canvas too, which by itself shows them all. Vue nodes
// have a control of their own for it; both go by node.showAdvanced, which is saved with the graph.
import { app } from "../../scripts/app.js";
import { isLinked } from "./presets.js";
import { text } from "./texts.js";

function alwaysShown() {
    return app.extensionManager.setting.get("Comfy.Node.AlwaysShowAdvancedWidgets");
}

// A linked one stays where its link ends, as in Vue nodes.
function isFolded(node, widget) {
    if (!widget.options?.advanced || node.showAdvanced || alwaysShown()) return false;
    return !isLinked(node, widget.name);
}

// Let a method of the node leave out what is folded.
function narrow(node, name, without) {
    const original = node[name];
    // Front ends have one or the other.
    if (original) node[name] = (...args) => without(original.apply(node, args), ...args);
}

// A button behind the inputs and before what only shows something.
function addToggle(node) {
    const toggle = node.addWidget("button", "advanced", null, () => {
        const [, before] = node.computeSize();
        node.showAdvanced = !node.showAdvanced;
        node.setSize([node.size[0], node.size[1] + node.computeSize()[1] - before]);
        node.setDirtyCanvas(true, true);
    }, { serialize: false, canvasOnly: true });
    toggle.serialize = false;
    Object.defineProperty(toggle, "label", {
        configurable: true,
        get: () => (node.showAdvanced ? text("advanced.hide") : text("advanced.show")),
    });
    const widgets = node.widgets.filter((widget) => widget !== toggle);
    widgets.splice(1 + widgets.findLastIndex((widget) => widget.serialize !== false), 0, toggle);
    node.widgets.splice(0, Infinity, ...widgets);
    return toggle;
}

app.registerExtension({
    name: "psa.advanced",

    nodeCreated(node) {
        if (!node.comfyClass?.startsWith("PSA") || !node.widgets?.some(({ options }) => options?.advanced)) return;
        const toggle = addToggle(node);
        const hides = (widget) => (widget === toggle ? alwaysShown() : isFolded(node, widget));
        for (const name of ["isWidgetVisible", "isWidgetRowVisible"]) {
            narrow(node, name, (visible, widget) => visible && !hides(widget));
        }
        narrow(node, "getLayoutWidgets", (widgets) => widgets.filter((widget) => !hides(widget)));
        node.setSize([node.size[0], node.computeSize()[1]]);
    },
});
