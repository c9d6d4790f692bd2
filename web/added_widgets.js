// Widgets that PSA Attention Patch got after its first release. New nodes have their defaults; graphs and prompts from
// before there was one go on with what they ran.
import { app } from "../../scripts/app.js";
import { chain } from "./element.js";
import { widget } from "./presets.js";

const NODE = "PSAAttentionPatch";
const BEFORE = {
    quality: "preset",
    unknown_models: "off",
    precision: "preset",
    dense_backend: "preset",
    max_extra_memory: 0,
};

// Whether a widget can hold a value: one of its options, or a number.
function holds({ options }, value) {
    return options.values ? options.values.includes(value) : typeof value === "number";
}

// The value that a graph holds for a widget; undefined where it is from before the widget. Newer front ends save names.
function savedValue(node, name, { widgets_values: values, widgets_values_named: named }) {
    if (named) return named[name];
    const saved = node.widgets.filter((each) => each.serialize !== false);
    return values?.[saved.indexOf(widget(node, name))];
}

// A prompt in which every node of the pack says what it has for all of them.
function withAll(prompt) {
    const told = ([id, node]) => {
        const inputs = node.class_type === NODE ? { ...BEFORE, ...node.inputs } : node.inputs;
        return [id, { ...node, inputs }];
    };
    return Object.fromEntries(Object.entries(prompt).map(told));
}

app.registerExtension({
    name: "psa.addedWidgets",

    setup() {
        // Prompts in API format that are opened as graphs, also those in pictures and videos.
        const load = app.loadApiJson;
        app.loadApiJson = function (prompt, ...args) {
            return load.call(this, withAll(prompt), ...args);
        };
    },

    nodeCreated(node) {
        if (node.comfyClass !== NODE) return;
        chain(node, "onConfigure", (saved) => {
            for (const [name, before] of Object.entries(BEFORE)) {
                const added = widget(node, name);
                // Some front ends have saved what a node says among its values.
                if (!holds(added, savedValue(node, name, saved))) added.value = before;
            }
        });
    },
});
