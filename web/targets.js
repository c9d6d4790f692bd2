// What calibrated attention aims at, on a Preset Loader: two numbers in place of the bar and the bounds, of which one holds.
import { app } from "../../scripts/app.js";
import { chain, everyFrame } from "./element.js";
import { isLinked, onChange, widget } from "./presets.js";

const NODE = "PSAPresetLoader";
const TARGETS = ["target_density", "target_error"];

// What a mode does not use is hidden, unless a link ends there, or the mode itself comes by a link.
function isUnused(node, { name }) {
    if (isLinked(node, "mask_mode") || isLinked(node, name)) return false;
    const calibrated = widget(node, "mask_mode").value === "calibrated";
    return TARGETS.includes(name) ? !calibrated : name.startsWith("level_") && calibrated;
}

// The classic canvas looks at the property. Vue nodes look at the option, and the front ends before 1.50 at the copy of
// it that they watch.
function hide(each, hidden) {
    each.hidden = hidden;
    if (!each.visibility) (each._state?.options ?? each.options).hidden = hidden;
}

// Whether anything has changed.
function update(node) {
    const changed = node.widgets.filter((each) => isUnused(node, each) !== Boolean(each.hidden));
    for (const each of changed) hide(each, !each.hidden);
    return changed.length > 0;
}

app.registerExtension({
    name: "psa.targets",

    nodeCreated(node) {
        if (node.comfyClass !== NODE) return;
        for (const [name, other] of [TARGETS, [...TARGETS].reverse()]) {
            onChange(node, name, () => {
                if (widget(node, name).value > 0 && !isLinked(node, other)) widget(node, other).value = 0;
            });
        }
        update(node);
        node.setSize([node.size[0], node.computeSize()[1]]);
        // The size that a graph holds is that of a node which hides what it hid then.
        chain(node, "onConfigure", () => update(node));
        everyFrame(node, () => {
            const [, before] = node.computeSize();
            if (!update(node)) return;
            node.setSize([node.size[0], node.size[1] + node.computeSize()[1] - before]);
            node.setDirtyCanvas(true, true);
        });
    },
});
