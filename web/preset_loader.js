// Preset Loader: choosing a model narrows the list of presets, choosing a preset fills in its numbers.
// Nothing happens when a graph is loaded: the numbers saved in it are the ones that run.
import { app } from "../../scripts/app.js";
import { fetchPresets, fill, onChange, widget } from "./presets.js";

const NODE = "PSAPresetLoader";

function narrowPresets(node, models) {
    const family = models[widget(node, "model").value];
    const preset = widget(node, "preset");
    // Nodes of one class share their options: a list of this node's own leaves the others' alone.
    if (family) preset.options = { ...preset.options, values: Object.keys(family.presets) };
}

function fillNumbers(node, models) {
    const preset = models[widget(node, "model").value]?.presets[widget(node, "preset").value];
    if (preset) fill(node, preset);
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
        models = (await fetchPresets()).models;
        narrowPresets(node, models);
    },
});
