// What nodes have in common whose lists or numbers come from the user's files.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { text } from "./texts.js";

// What was wrong with preset files the last time: it is said once, not by every node that asks.
let told = [];

// The answer of GET /psa/presets; a broken file is shown to the user.
export async function fetchPresets() {
    const response = await api.fetchApi("/psa/presets");
    if (!response.ok) throw new Error(`GET /psa/presets answered ${response.status}`);
    const presets = await response.json();
    for (const detail of presets.errors.filter((error) => !told.includes(error))) {
        app.extensionManager.toast.add({ severity: "warn", summary: text("presets.file"), detail, life: 10000 });
    }
    told = presets.errors;
    return presets;
}

// All nodes of a class in the open graph, subgraphs within.
export function nodesOf(type) {
    const root = app.rootGraph ?? app.graph;
    const graphs = [root, ...(root?.subgraphs?.values() ?? [])];
    return graphs.flatMap((graph) => graph?.nodes ?? []).filter((node) => node.comfyClass === type);
}

// Every node has lists of its own, changed in place: nodes of one class share what the server sent, and Vue nodes keep
// the list that they saw first.
export function setOptions(combo, values) {
    combo.psaValues ??= [];
    combo.psaValues.splice(0, Infinity, ...values);
    combo.options.values = combo.psaValues;
}

export function widget(node, name) {
    return node.widgets.find((w) => w.name === name);
}

// Whether a widget's value comes from another node.
export function isLinked(node, name) {
    const slot = node.inputs?.findIndex((input) => input.widget?.name === name) ?? -1;
    return slot >= 0 && node.isInputConnected(slot);
}

export function fill(node, numbers) {
    for (const [name, value] of Object.entries(numbers)) widget(node, name).value = value;
    node.setDirtyCanvas(true, true);
}

export function onChange(node, name, action) {
    const target = widget(node, name);
    const original = target.callback;
    target.callback = function (...args) {
        original?.apply(this, args);
        action();
    };
}
