// Load Calibration: what a run has just saved can be chosen at once.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { fetchPresets, nodesOf, setOptions, widget } from "./presets.js";

const NODE = "PSALoadCalibration";
const SAVER = "PSASaveCalibration";

async function refresh() {
    const { calibrations } = await fetchPresets();
    // Without any, the node keeps the name that Save Calibration begins with.
    if (calibrations.length) nodesOf(NODE).forEach((node) => setOptions(widget(node, "calibration"), calibrations));
}

app.registerExtension({
    name: "psa.calibrations",

    setup() {
        api.addEventListener("execution_success", () => {
            if (nodesOf(SAVER).length && nodesOf(NODE).length) refresh();
        });
    },

    nodeCreated(node) {
        if (node.comfyClass !== NODE) return;
        const combo = widget(node, "calibration");
        setOptions(combo, combo.options.values);
    },
});
