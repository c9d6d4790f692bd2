// mask_ratios as bars on Preset Loader and Sparsity Schedule. The number widgets hold the values and are what is saved
// and runs; a bar shows them and writes into them.
import { app } from "../../scripts/app.js";
import { addElement } from "./element.js";
import { LevelBar } from "./level_bar.js";
import { changedNames } from "./preset_changes.js";
import { isLinked, widget } from "./presets.js";
import { text } from "./texts.js";

const HEIGHT = 48;
// Widgets are called <prefix><level>.
const BARS = {
    PSAPresetLoader: [{ prefix: "level_", label: "mask_ratios" }],
    PSASparsitySchedule: [{ prefix: "start_", label: "start" }, { prefix: "end_", label: "end" }],
};
// Widget -> its value -> the bars that it leaves without a use.
const IGNORED = {
    curve: { preset: ["start_", "end_"], constant: ["end_"], timestep: ["end_"] },
};

function levelWidgets(node, prefix) {
    return node.widgets.filter(({ name }) => name.startsWith(prefix) && /^\d+$/.test(name.slice(prefix.length)));
}

function readBounds(node, prefix) {
    const setting = app.extensionManager.setting.get("Comfy.Node.AlwaysShowAdvancedWidgets");
    const showsAdvanced = Boolean(node.showAdvanced || setting);
    return levelWidgets(node, prefix).map((each) => ({
        level: Number(each.name.slice(prefix.length)),
        name: each.name,
        bound: each.value,
        linked: isLinked(node, each.name),
        shown: showsAdvanced || !(each.options?.advanced ?? each.advanced),
    }));
}

function unused(node, prefix) {
    for (const [name, ignored] of Object.entries(IGNORED)) {
        const value = widget(node, name)?.value;
        if (!isLinked(node, name) && ignored[value]?.includes(prefix)) return text("bar.notUsed", { name, value });
    }
    return null;
}

// What patches came to with the numbers that a Preset Loader has now, one after the other.
function densities(node) {
    if (node.comfyClass !== "PSAPresetLoader") return [];
    const runs = patchesBehind(node).map((patch) => patch.psaSaid ?? {});
    return runs.filter((run) => run.numbers && !changedNames(node, run.numbers).length).map((run) => run.density);
}

function patchesBehind(node) {
    const next = node.getOutputNodes(0) ?? [];
    return next.flatMap((each) => (each.type === "Reroute" ? patchesBehind(each) : [each]));
}

function addBar(node, { prefix, label }) {
    const bar = new LevelBar({
        label,
        read: () => ({
            bounds: readBounds(node, prefix), unused: unused(node, prefix), densities: densities(node),
        }),
        write(numbers) {
            for (const [name, bound] of numbers) {
                const number = widget(node, name);
                number.value = bound;
                number.callback?.(bound, app.canvas, node);
            }
            node.setDirtyCanvas(true, true);
        },
        done() {
            // What the front end's undo listens to.
            app.canvas.emitBeforeChange();
            app.canvas.emitAfterChange();
        },
    });
    const added = addElement(node, `${prefix}bar`, bar.element, {
        height: () => HEIGHT,
        update: () => bar.update(),
        // All but the wheel and the other mouse buttons.
        own: (event) => event.type !== "wheel" && event.button <= 0 && !(event.buttons & 6),
    });
    const widgets = node.widgets.filter((each) => each !== added);
    widgets.splice(widgets.indexOf(levelWidgets(node, prefix)[0]), 0, added);
    node.widgets.splice(0, node.widgets.length, ...widgets);
}

app.registerExtension({
    name: "psa.levelBar",

    nodeCreated(node) {
        const bars = BARS[node.comfyClass];
        if (!bars) return;
        for (const bar of bars) addBar(node, bar);
        const [width, height] = node.computeSize();
        node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
    },
});
