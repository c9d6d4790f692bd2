// A radial mask: query frames downwards, key frames to the right, square in tokens.
import { LEVEL_COLOURS } from "./level_colours.js";
import { add, below, beside, colour, legend, numbers, picture, PLOT } from "./picture.js";
import { text } from "./texts.js";

export const HEIGHT = 300;
const BLOCK = 128;
const RULES = { wan: "Wan", auto: "Wan", cogvideox: "CogVideoX" };
const { left, top, width: SIDE } = PLOT;

// widgets: what was asked; answer: of POST /psa/preview/radial_mask.
export function maskPicture(widgets, { frames, grid, text_length, blocks, density, shares }) {
    const [rule, size] = [RULES[widgets.model_type], `${widgets.preview_width} x ${widgets.preview_height}`];
    const title = text("mask.title", { mode: widgets.mode, rule, size, frames });
    const svg = picture(HEIGHT, title, text("mask.density", { density: density.toFixed(2) }));
    const unit = SIDE / (text_length + grid[0] * grid[1] * grid[2]);
    const plot = add(svg, "svg", { x: left, y: top, width: SIDE, height: SIDE });
    // The last block may be ragged.
    const edge = blocks * BLOCK * unit;
    add(plot, "image", { width: edge, height: edge, preserveAspectRatio: "none", href: pixels(shares) });
    add(svg, "rect", { x: left, y: top, width: SIDE, height: SIDE, class: "frame" });
    ticks(svg, grid, text_length * unit, grid[1] * grid[2] * unit);
    add(svg, "text", { x: left + SIDE / 2, y: top + SIDE + 24, "text-anchor": "middle", class: "quiet" }, text("mask.keys"));
    const upright = `rotate(-90) translate(${-top - SIDE / 2} 9)`;
    add(svg, "text", { transform: upright, "text-anchor": "middle", class: "quiet" }, text("mask.queries"));
    const found = Object.keys(LEVEL_COLOURS).map(Number).filter((level) => level in shares);
    found.sort((a, b) => (a || Infinity) - (b || Infinity));
    legend(svg, HEIGHT - 5, found.map((level) => [name(level), { fill: colour(LEVEL_COLOURS[level]) }]));
    return svg;
}

function name(level) {
    if (level === 0) return text("mask.skipped");
    return level === 1 ? text("mask.full") : `${level}x`;
}

// Numbers at the middles of frames, behind the text where there is one.
function ticks(svg, grid, start, frame) {
    const [least, word] = [start ? 24 : 0, start ? text("mask.text") : ""];
    if (word) below(svg, left, top + SIDE, word, "start");
    if (word) beside(svg, top + 4, word);
    for (const number of numbers(grid[0], frame, 24)) {
        const middle = start + (number + 0.5) * frame;
        if (middle >= least + 6 || !word) below(svg, left + middle, top + SIDE, number);
        if (middle >= 16 || !word) beside(svg, top + middle, number);
    }
}

// Every pixel the mean of the colours under it.
function pixels(shares) {
    const levels = Object.entries(shares).map(([level, share]) => [LEVEL_COLOURS[level], atob(share)]);
    const side = Math.sqrt(levels[0][1].length);
    const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
    const image = new ImageData(side, side);
    for (let pixel = 0; pixel < side * side; pixel++) {
        const mixed = [0, 0, 0, 255];
        for (const [shade, share] of levels) {
            for (let i = 0; i < 3; i++) mixed[i] += (shade[i] * share.charCodeAt(pixel)) / 255;
        }
        image.data.set(mixed, 4 * pixel);
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas.toDataURL();
}
