// The mask of a Radial Mask and the steps of a Sparsity Schedule, drawn on the nodes while their widgets change. The
// numbers come from the server, which computes them as a run does.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { addElement } from "./element.js";
import { HEIGHT as MASK_HEIGHT, maskPicture } from "./mask_picture.js";
import { isLinked, widget } from "./presets.js";
import { HEIGHT as SCHEDULE_HEIGHT, schedulePicture } from "./schedule_picture.js";
import { text } from "./texts.js";

const HREF = new URL("live_pictures.css", import.meta.url);
// Milliseconds without a change before the server is asked.
const QUIET = 150;
const BOUNDS = ["start", "end"].flatMap((side) => [1, 2, 4, 8].map((level) => `${side}_${level}`));
// The widgets that a picture depends on, `unless` the others make them count for nothing.
const PICTURES = {
    PSARadialMask: {
        route: "/psa/preview/radial_mask",
        draw: maskPicture,
        height: MASK_HEIGHT,
        widgets: [
            "mode", "model_type", "decay_factor", "block_size", "sparsity_type", "dense_layers", "dense_timesteps",
            "last_dense_timesteps", "scene_boundaries", "scene_adjacency", "preview_width", "preview_height",
            "preview_frames",
        ],
        idle: () => ["dense_layers", "dense_timesteps", "last_dense_timesteps"],
    },
    PSASparsitySchedule: {
        route: "/psa/preview/schedule",
        draw: schedulePicture,
        height: SCHEDULE_HEIGHT,
        widgets: [
            "warmup", "last_dense", "dense_layers", "curve", ...BOUNDS, "preview_steps", "steps", "start_step",
            "start_percent", "end_percent",
        ],
        idle: ({ curve }) => ["dense_layers", ...(curve === "preset" ? BOUNDS : [])],
    },
};

class LivePicture {
    constructor(node, picture) {
        Object.assign(this, { node, picture, seen: null, timer: 0 });
        this.element = document.createElement("div");
        this.element.className = "psa-picture";
        this.element.style.height = `${picture.height}px`;
    }

    // Ask for a new picture where the widgets have changed. Cheap where none has: called once a frame.
    update() {
        const { node, picture } = this;
        const values = Object.fromEntries(picture.widgets.map((name) => [name, widget(node, name)?.value]));
        const idle = picture.idle(values);
        const linked = picture.widgets.filter((name) => !idle.includes(name) && isLinked(node, name));
        const state = JSON.stringify([values, linked]);
        if (state === this.seen) return;
        this.seen = state;
        clearTimeout(this.timer);
        if (linked.length) {
            this.say(text("picture.linked", { names: linked.join(", ") }));
            return;
        }
        this.element.classList.add("psa-picture-old");
        this.timer = setTimeout(() => this.ask(values, state), QUIET);
    }

    async ask(values, state) {
        const answer = await post(this.picture.route, values);
        // Of numbers that have changed meanwhile.
        if (state !== this.seen) return;
        if (answer.error !== undefined) this.say(answer.error, "psa-picture-error");
        else this.show(this.picture.draw(values, answer));
    }

    say(line, kind = "") {
        const note = document.createElement("div");
        note.className = `psa-picture-note ${kind}`;
        note.textContent = line;
        note.setAttribute("role", "status");
        this.show(note);
    }

    show(content) {
        this.element.classList.remove("psa-picture-old");
        this.element.replaceChildren(content);
    }
}

async function post(route, values) {
    try {
        const response = await api.fetchApi(route, { method: "POST", body: JSON.stringify(values) });
        if (response.ok) return await response.json();
        return { error: `${route}: ${response.status} ${await response.text()}` };
    } catch (error) {
        return { error: `${route}: ${error.message}` };
    }
}

app.registerExtension({
    name: "psa.livePictures",

    setup() {
        document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: HREF }));
    },

    nodeCreated(node) {
        const picture = PICTURES[node.comfyClass];
        if (!picture) return;
        const live = new LivePicture(node, picture);
        addElement(node, "picture", live.element, {
            height: () => picture.height,
            update: () => live.update(),
            own: () => false,
        });
        const [width, height] = node.computeSize();
        node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
    },
});
