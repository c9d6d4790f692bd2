// Every word that the pack's own parts of the front end show, in the languages that locales/ has. Labels and tooltips
// of nodes stand in locales/<language>/nodeDefs.json, which ComfyUI reads by itself.
import { app } from "../../scripts/app.js";

// {words} stand for what text() is given.
export const TEXTS = {
    en: {
        "advanced.show": "Show advanced inputs",
        "advanced.hide": "Hide advanced inputs",
        "bar.help": "Drag a border, or focus it and use the arrow keys.",
        "bar.budget": "budget {budget}",
        "bar.budgetAndDensity": "budget {budget} · ran at {density}",
        "bar.budgetHelp":
            "budget: the most of dense attention's work that these bounds allow. topk spends it, in whole blocks; " +
            "thresholdbound only what the content needs. ran at: the density of the last run with these numbers.",
        "bar.skipped": "skip",
        "bar.linked": "{names} linked",
        "bar.comesFromLink": "{name} comes from its link",
        "bar.leftOut": "left out",
        "bar.pullOut": "{name} is left out: pull it to the right",
        "bar.notUsed": "not used: {name} is {value}",
        "bar.notFrom0To1": "{name} is not from 0 to 1",
        "bar.falls": "{name} is below {finer}",
        "bar.rule": "bounds rise from level to level, and 0 leaves a level out",
        "mask.title": "{mode}, {rule}, {size}, {frames} frames",
        "mask.density": "density {density}",
        "mask.keys": "key frame",
        "mask.queries": "query frame",
        "mask.text": "text",
        "mask.full": "1 full",
        "mask.skipped": "skipped",
        "picture.linked": "Known when it runs: {names} linked.",
        "preset.changed": "changed: {names}",
        "preset.was": "{name}: {value} in the preset",
        "preset.reset": "reset",
        "preset.resetHelp": "Take the numbers of {preset} again",
        "presets.file": "PSA preset file",
        "schedule.title": "Budget over {steps} steps, mask_ratios: {curve}",
        "schedule.step": "denoising step",
        "schedule.dense": "dense",
        "schedule.sparse": "sparse",
        "schedule.preset": "sparse, as the preset says",
        "schedule.warmup": "without the preset's warm-up",
        "schedule.window": "dense outside {start} to {end} of the noise (not drawn)",
    },
    zh: {
        "advanced.show": "显示高级输入",
        "advanced.hide": "隐藏高级输入",
        "bar.help": "拖动边界；或选中边界后使用方向键。",
        "bar.budget": "预算 {budget}",
        "bar.budgetAndDensity": "预算 {budget} · 实际 {density}",
        "bar.budgetHelp":
            "预算：这些上界最多允许的计算量，以稠密注意力为 1。topk 按整块用满预算，thresholdbound 只用内容所需的部分。" +
            "实际：以这些数值最近一次运行的密度。",
        "bar.skipped": "跳过",
        "bar.linked": "{names} 由连线决定",
        "bar.comesFromLink": "{name} 由连线决定",
        "bar.leftOut": "不使用",
        "bar.pullOut": "{name} 未使用：向右拖出",
        "bar.notUsed": "未使用：{name} 为 {value}",
        "bar.notFrom0To1": "{name} 不在 0 到 1 之间",
        "bar.falls": "{name} 小于 {finer}",
        "bar.rule": "上界须逐级升高，0 表示不用该层级",
        "mask.title": "{mode}，{rule}，{size}，{frames} 帧",
        "mask.density": "密度 {density}",
        "mask.keys": "键所在帧",
        "mask.queries": "查询所在帧",
        "mask.text": "文本",
        "mask.full": "1 全分辨率",
        "mask.skipped": "跳过",
        "picture.linked": "运行时才知道：{names} 由连线决定。",
        "preset.changed": "已修改：{names}",
        "preset.was": "{name}：预设为 {value}",
        "preset.reset": "还原",
        "preset.resetHelp": "恢复 {preset} 的数值",
        "presets.file": "PSA 预设文件",
        "schedule.title": "{steps} 步的预算，mask_ratios：{curve}",
        "schedule.step": "去噪步",
        "schedule.dense": "稠密",
        "schedule.sparse": "稀疏",
        "schedule.preset": "稀疏，由预设决定",
        "schedule.warmup": "未含预设的预热",
        "schedule.window": "噪声的 {start} 到 {end} 之外为稠密（未画出）",
    },
};

// The language that ComfyUI is set to, English where the pack does not have it. It may change while a page is open: ask
// for a text when it is shown.
function language() {
    const chosen = app.extensionManager.setting.get("Comfy.Locale");
    return chosen in TEXTS ? chosen : "en";
}

export function text(name, values = {}) {
    return TEXTS[language()][name].replace(/\{(\w+)\}/g, (_, word) => values[word]);
}
