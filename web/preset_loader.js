// Preset Loader: choosing a model narrows the list of presets, choosing a preset fills in its numbers.
// Nothing happens when a graph is loaded: the numbers saved in it are the ones that run.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { addChanges } from "./preset_changes.js";
import { fetchPresets, fill, nodesOf, onChange, setOptions, widget } from "./presets.js";

const NODE = "PSAPresetLoader";
const SAVER = "PSASavePreset";

let models = {};

function listNames(node) {
    setOptions(widget(node, "model"), Object.keys(models));
    const family = models[widget(node, "model").value];
    if (family) setOptions(widget(node, "preset"), Object.keys(family.presets));
}

function presetOf(node) {
    return models[widget(node, "model").value]?.presets[widget(node, "preset").value];
}

function fillNumbers(node) {
    const preset = presetOf(node);
    if (preset) fill(node, preset);
}

async function refresh() {
    models = (await fetchPresets()).models;
    nodesOf(NODE).forEach(listNames);
}

app.registerExtension({
    name: "psa.presetLoader",

    setup() {
        // A preset that a run has just saved can be chosen at once.
        api.addEventListener("execution_success", () => {
            if (nodesOf(SAVER).length) refresh();
        });
    },

    async nodeCreated(node) {
        if (node.comfyClass !== NODE) return;
        for (const name of ["model", "preset"]) setOptions(widget(node, name), widget(node, name).options.values);
        onChange(node, "model", () => {
            const family = models[widget(node, "model").value];
            if (!family) return;
            listNames(node);
            widget(node, "preset").value = family.default;
            fillNumbers(node);
        });
        onChange(node, "preset", () => fillNumbers(node));
        addChanges(node, presetOf);
        await refresh();
        listNames(node);
    },

    // ComfyUI has just put the server's whole lists into the nodes.
    async refreshComboInNodes() {
        await refresh();
    },
});
