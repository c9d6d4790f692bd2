// Small plots as SVG: they grow with the canvas and take the colours of the front end's theme.
const WIDTH = 270, LEFT = 34, LETTER = 5.6, SWATCH = 9;

export const PLOT = { left: LEFT, top: 32, width: 226 };

export function add(parent, name, attributes = {}, content = "") {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = content;
    parent.append(element);
    return element;
}

export function colour([red, green, blue]) {
    return `rgb(${red} ${green} ${blue})`;
}

// An empty picture under two lines of text. A title that is too long is squeezed.
export function picture(height, title, note) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${title}; ${note}`);
    for (const [line, y, kind] of [[title, 11, "ink"], [note, 25, "quiet"]]) {
        const written = add(svg, "text", { x: 4, y, class: kind }, line);
        if (lengthOf(line) > WIDTH - 8) {
            written.setAttribute("textLength", WIDTH - 8);
            written.setAttribute("lengthAdjust", "spacingAndGlyphs");
        }
    }
    return svg;
}

// About how wide a text is; letters outside Latin are twice as wide.
function lengthOf(text) {
    return [...text].reduce((sum, letter) => sum + (letter > "\u2e80" ? 2 : 1), 0) * LETTER;
}

export function below(svg, x, y, label, anchor = "middle") {
    add(svg, "text", { x, y: y + 11, "text-anchor": anchor, class: "ink" }, label);
}

export function beside(svg, y, label) {
    add(svg, "text", { x: LEFT - 5, y: y + 3.5, "text-anchor": "end", class: "ink" }, label);
}

// Numbers from 0 below a count, in round strides that leave room between them.
export function numbers(count, slot, room) {
    let stride = 1;
    for (const factor of [2, 2.5, 2, 2, 2.5, 2, 2, 2.5, 2]) if (stride * slot < room) stride *= factor;
    return Array.from({ length: Math.ceil(count / stride) }, (_, i) => i * stride);
}

export function legend(svg, y, entries) {
    const widths = entries.map(([label]) => SWATCH + 4 + lengthOf(label) + 8);
    let x = (WIDTH - widths.reduce((sum, width) => sum + width, -8)) / 2;
    entries.forEach(([label, look], i) => {
        add(svg, "rect", { x, y: y - SWATCH + 1, width: SWATCH, height: SWATCH, class: "edge", ...look });
        add(svg, "text", { x: x + SWATCH + 4, y, class: "ink" }, label);
        x += widths[i];
    });
}
