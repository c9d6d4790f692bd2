// A schedule: the budget of every denoising step as bars.
import { LEVEL_COLOURS } from "./level_colours.js";
import { add, below, beside, colour, legend, numbers, picture, PLOT } from "./picture.js";
import { text } from "./texts.js";

export const HEIGHT = 142;
const { left, top, width } = PLOT;
const TALL = 66;
// A step of which only the preset knows is as high as this.
const MIDDLE = 0.5;
const SPARSE = { fill: colour(LEVEL_COLOURS[2]) };
const LOOKS = { dense: { fill: "#b8b8b8" }, sparse: SPARSE, preset: { ...SPARSE, "fill-opacity": 0.35 } };

// widgets: what was asked; answer: of POST /psa/preview/schedule.
export function schedulePicture(widgets, { densities }) {
    const title = text("schedule.title", { steps: densities.length, curve: widgets.curve });
    const svg = picture(HEIGHT, title, notDrawn(widgets));
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
        const y = top + TALL * (1 - share);
        add(svg, "line", { x1: left, x2: left + width, y1: y, y2: y, class: "edge" });
        if (share * 2 === Math.round(share * 2)) beside(svg, y, share);
    }
    const slot = width / densities.length;
    const bar = Math.min(slot > 3 ? 0.84 * slot : slot, 32);
    densities.forEach((share, step) => {
        const height = TALL * (share ?? MIDDLE);
        const place = { x: left + (step + 0.5) * slot - bar / 2, y: top + TALL - height, width: bar, height };
        add(svg, "rect", { ...place, ...LOOKS[kind(share)] });
    });
    for (const step of numbers(densities.length, slot, 24)) below(svg, left + (step + 0.5) * slot, top + TALL, step);
    const middle = { x: left + width / 2, y: top + TALL + 24, "text-anchor": "middle", class: "quiet" };
    add(svg, "text", middle, text("schedule.step"));
    const found = Object.keys(LOOKS).filter((look) => densities.some((share) => kind(share) === look));
    legend(svg, HEIGHT - 5, found.map((look) => [LEGEND[look](), LOOKS[look]]));
    return svg;
}

const LEGEND = {
    dense: () => text("schedule.dense"),
    sparse: () => text("schedule.sparse"),
    preset: () => text("schedule.preset"),
};

function kind(share) {
    if (share === null) return "preset";
    return share === 1 ? "dense" : "sparse";
}

// What the picture's steps cannot say: the preset is another node's, and where a window of noise lies among the steps
// depends on the sampler.
function notDrawn({ warmup, start_percent: start, end_percent: end }) {
    const notes = [];
    if (String(warmup).trim() === "preset") notes.push(text("schedule.warmup"));
    if (start > 0 || end < 1) notes.push(text("schedule.window", { start, end }));
    return notes.join("; ");
}
