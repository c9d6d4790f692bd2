// Radial Mask: choosing a length of video fills in its numbers, and changing one of them makes the choice "custom".
// Nothing happens when a graph is loaded: the numbers saved in it are the ones that run.
import { app } from "../../scripts/app.js";
import { fetchPresets, fill, onChange, widget } from "./presets.js";

const NODE = "PSARadialMask";
const CHOICE = "video_length";
const CUSTOM = "custom";

app.registerExtension({
    name: "psa.radialMask",

    async nodeCreated(node) {
        if (node.comfyClass !== NODE) return;
        let numbers = {};
        onChange(node, CHOICE, () => fill(node, numbers[widget(node, CHOICE).value] ?? {}));
        for (const name of ["decay_factor", "dense_layers", "dense_timesteps"]) {
            onChange(node, name, () => fill(node, { [CHOICE]: CUSTOM }));
        }
        numbers = (await fetchPresets()).radial;
    },
});
