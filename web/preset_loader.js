// Preset Loader: choosing a model narrows the list of presets, choosing a preset fills in its numbers.
// Nothing happens when a graph is loaded: the numbers saved in it are the ones that run.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const NODE = "PSAPresetLoader";

async function fetchPresets() {
    const response = await api.fetchApi("/psa/presets");
    if (!response.ok) throw new Error(`GET /psa/presets answered ${response.status}`);
    const { models, errors } = await response.json();
    for (const detail of errors) {
        app.extensionManager.toast.add({ severity: "warn", summary: "PSA preset file", detail, life: 10000 });
    }
    return models;
}

function widget(node, name) {
    return node.widgets.find((w) => w.name === name);
}

function narrowPresets(node, models) {
    const family = models[widget(node, "model").value];
    const preset = widget(node, "preset");
    // Nodes of one class share their options: a list of this node's own leaves the others' alone.
    if (family) preset.options = { ...preset.options, values: Object.keys(family.presets) };
}

function fillNumbers(node, models) {
    const preset = models[widget(node, "model").value]?.presets[widget(node, "preset").value];
    if (!preset) return;
    for (const [name, value] of Object.entries(preset)) widget(node, name).value = value;
    node.setDirtyCanvas(true, true);
}

function onChange(node, name, action) {
    const target = widget(node, name);
    const original = target.callback;
    target.callback = function (...args) {
        original?.apply(this, args);
        action();
    };
}

app.registerExtension({
    name: "psa.presetLoader",

    async nodeCreated(node) {
        if (node.comfyClass !== NODE) return;
        let models = {};
        onChange(node, "model", () => {
            const family = models[widget(node, "model").value];
            if (!family) return;
            narrowPresets(node, models);
            widget(node, "preset").value = family.default;
            fillNumbers(node, models);
        });
        onChange(node, "preset", () => fillNumbers(node, models));
        models = await fetchPresets();
        narrowPresets(node, models);
    },
});
