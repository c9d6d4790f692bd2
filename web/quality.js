// The dial of PSA Attention Patch. New nodes have it at balanced; graphs and prompts from before there was one go on with
// what they ran, the model's preset.
import { app } from "../../scripts/app.js";
import { chain } from "./element.js";
import { widget } from "./presets.js";

const NODE = "PSAAttentionPatch";
const BEFORE = "preset";

// The value that a graph holds for a widget; undefined where it is from before the widget. Newer front ends save names.
function savedValue(node, name, { widgets_values: values, widgets_values_named: named }) {
    if (named) return named[name];
    const saved = node.widgets.filter((each) => each.serialize !== false);
    return values?.[saved.indexOf(widget(node, name))];
}

// A prompt in which every node of the pack says its quality.
function withQuality(prompt) {
    const told = ([id, node]) => {
        const isOld = node.class_type === NODE && !("quality" in (node.inputs ?? {}));
        return [id, isOld ? { ...node, inputs: { ...node.inputs, quality: BEFORE } } : node];
    };
    return Object.fromEntries(Object.entries(prompt).map(told));
}

app.registerExtension({
    name: "psa.quality",

    setup() {
        // Prompts in API format that are opened as graphs, also those in pictures and videos.
        const load = app.loadApiJson;
        app.loadApiJson = function (prompt, ...args) {
            return load.call(this, withQuality(prompt), ...args);
        };
    },

    nodeCreated(node) {
        if (node.comfyClass !== NODE) return;
        chain(node, "onConfigure", (saved) => {
            const quality = widget(node, "quality");
            // Some front ends have saved what a node says among its values.
            if (!quality.options.values.includes(savedValue(node, "quality", saved))) quality.value = BEFORE;
        });
    },
});
