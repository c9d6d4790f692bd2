// A bar split by pyramid level, with a handle on every border. It knows no node: it asks for the numbers and hands
// back changed ones.
import { moved, roomOf, sharesOf, STEP } from "./level_bounds.js";
import { LEVEL_COLOURS } from "./level_colours.js";
import { text } from "./texts.js";

const PAGE = 10 * STEP;

function style() {
    if (document.getElementById("psa-level-bar-style")) return;
    const link = document.createElement("link");
    const href = new URL("level_bar.css", import.meta.url);
    Object.assign(link, { id: "psa-level-bar-style", rel: "stylesheet", href });
    document.head.append(link);
}

function part(className, parent) {
    const element = document.createElement("div");
    element.className = `psa-level-bar-${className}`;
    parent.append(element);
    return element;
}

function colour(element, level) {
    element.dataset.level = level;
    element.style.setProperty("--psa-colour", LEVEL_COLOURS[level].join(" "));
}

function budgetText(number, densities) {
    const budget = number.toFixed(2);
    if (!densities.length) return text("bar.budget", { budget });
    return text("bar.budgetAndDensity", { budget, density: densities.map((each) => each.toFixed(2)).join(" / ") });
}

export class LevelBar {
    // label: what stands above the bar. read(): {bounds, unused, densities}, bounds as in level_bounds.js, each with
    // `shown` (whether a level that is left out has a handle), unused a reason or null, densities of runs with these
    // numbers. write([[name, bound]]): takes numbers.
    // done(): a change is over, so that undo may take it as one.
    constructor({ label, read, write, done }) {
        style();
        Object.assign(this, { label, read, write, done, seen: null });
        this.element = document.createElement("div");
        this.element.className = "psa-level-bar";
        this.element.setAttribute("role", "group");
        this.element.setAttribute("aria-label", label);
        const caption = part("caption", this.element);
        this.name = part("name", caption);
        this.name.setAttribute("role", "status");
        this.budget = part("budget", caption);
        this.budget.title = text("bar.budgetHelp");
        this.track = part("track", this.element);
        this.track.title = text("bar.help");
        this.segments = part("segments", this.track);
        this.skipped = this.addSegment(0, text("bar.skipped"));
        this.handles = new Map();
        this.update();
    }

    // Show the numbers as they are now. Cheap where none has changed: called once a frame.
    update() {
        const state = this.read();
        const seen = JSON.stringify(state);
        if (seen === this.seen) return;
        this.seen = seen;
        const { shares, end, budget, problem } = sharesOf(state.bounds);
        const linked = shares.filter((share) => share.linked).map((share) => share.name);
        this.name.textContent = problem ?? this.label;
        this.name.title = problem ? `${problem}: ${text("bar.rule")}` : "";
        this.element.classList.toggle("psa-level-bar-wrong", problem !== null);
        this.element.classList.toggle("psa-level-bar-unused", state.unused !== null);
        if (state.unused !== null) this.budget.textContent = state.unused;
        else if (linked.length) this.budget.textContent = text("bar.linked", { names: linked.join(", ") });
        else this.budget.textContent = budgetText(budget, state.densities ?? []);
        let parked = [];
        for (const [index, share] of shares.entries()) {
            const handle = this.handles.get(share.level) ?? this.addHandle(share);
            handle.segment.style.flexGrow = share.hi - share.lo;
            const out = share.hi === share.lo;
            // Handles of levels that are left out hang side by side below the border that they can be pulled from.
            if (!out || parked[0]?.hi !== share.hi) parked = [];
            handle.element.hidden = out && !state.bounds[index].shown;
            if (out && !handle.element.hidden) parked.push(share);
            this.place(handle.element, share, roomOf(shares, share.level), out);
            parked.forEach(({ level }, place) => {
                this.handles.get(level).element.style.setProperty("--psa-aside", place - (parked.length - 1) / 2);
                this.handles.get(level).element.style.setProperty("--psa-group", parked.length);
            });
        }
        this.skipped.style.flexGrow = 1 - end;
    }

    place(handle, { name, hi, linked }, [least, most], out) {
        handle.classList.toggle("psa-level-bar-out", out);
        handle.style.setProperty("--psa-border", hi);
        if (linked) handle.title = text("bar.comesFromLink", { name });
        else handle.title = out ? text("bar.pullOut", { name }) : `${name}: ${hi}`;
        handle.tabIndex = linked ? -1 : 0;
        const described = {
            "aria-valuenow": hi, "aria-valuemin": least, "aria-valuemax": most, "aria-disabled": linked,
            "aria-valuetext": out ? text("bar.leftOut") : String(hi),
        };
        for (const [key, value] of Object.entries(described)) handle.setAttribute(key, value);
    }

    addSegment(level, name) {
        const segment = part("segment", this.segments);
        colour(segment, level);
        part("text", segment).textContent = name;
        return segment;
    }

    addHandle({ level, name }) {
        const element = part("handle", this.track);
        colour(element, level);
        element.setAttribute("role", "slider");
        element.setAttribute("aria-label", `${this.label}: ${name}`);
        element.setAttribute("aria-orientation", "horizontal");
        element.addEventListener("pointerdown", (event) => this.drag(event, element, level));
        element.addEventListener("keydown", (event) => this.key(event, level));
        const segment = this.addSegment(level, `${level}x`);
        this.segments.append(this.skipped);
        this.handles.set(level, { element, segment });
        return this.handles.get(level);
    }

    get bounds() {
        return this.read().bounds;
    }

    // Move a border, from numbers that need not be the present ones.
    move(before, level, place) {
        const wanted = new Map(before.map(({ name, bound }) => [name, bound]));
        for (const [name, bound] of moved(before, level, place)) wanted.set(name, bound);
        this.write(this.bounds.filter(({ name, bound }) => bound !== wanted.get(name))
            .map(({ name }) => [name, wanted.get(name)]));
        this.update();
    }

    drag(down, handle, level) {
        const before = this.bounds;
        if (down.button !== 0 || before.find((bound) => bound.level === level).linked) return;
        handle.setPointerCapture(down.pointerId);
        const { hi } = sharesOf(before).shares.find((share) => share.level === level);
        const track = () => this.track.getBoundingClientRect();
        // Where on the handle it was taken, so that it does not jump.
        const grip = down.clientX - (track().left + hi * track().width);
        const held = new AbortController();
        const listen = (type, action) => handle.addEventListener(type, action, { signal: held.signal });
        let dragged = false;
        listen("pointermove", (event) => {
            // A click is no move: it must not round a number to the step.
            dragged ||= event.clientX !== down.clientX;
            // Always from the numbers at the start: levels squeezed out on the way come back on the way back.
            if (dragged) this.move(before, level, (event.clientX - grip - track().left) / track().width);
        });
        listen("lostpointercapture", () => {
            held.abort();
            if (dragged) this.done();
        });
    }

    key(event, level) {
        const bounds = this.bounds;
        const own = bounds.find((bound) => bound.level === level);
        const { shares } = sharesOf(bounds);
        const { hi } = shares.find((share) => share.level === level);
        const [least, most] = roomOf(shares, level);
        const step = event.shiftKey ? PAGE : STEP;
        const places = {
            ArrowRight: hi + step, ArrowUp: hi + step, ArrowLeft: hi - step, ArrowDown: hi - step,
            PageUp: hi + PAGE, PageDown: hi - PAGE, Home: least, End: most, Delete: least, Backspace: least,
        };
        if (own.linked || event.ctrlKey || event.metaKey || event.altKey || !(event.key in places)) return;
        // The graph's own keys: Delete removes nodes.
        event.preventDefault();
        event.stopPropagation();
        this.move(bounds, level, places[event.key]);
        this.done();
    }
}
