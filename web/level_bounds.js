// The upper bounds of pyramid levels, as the widgets hold them: [{level, name, bound, linked}], finest level first.
// 0 leaves a level out; what lies above the last bound is skipped. psa_core/mask_ratios.py says what is valid.
import { text } from "./texts.js";

export const STEP = 0.005;
const DIGITS = 3;

// What a bar can show of the bounds, also of those that are not valid: every level's share from lo to hi, the budget
// that they are (the most of dense attention's work), null where a link decides, and in words what is wrong with them, or null.
export function sharesOf(bounds) {
    const shares = [];
    let [end, finer, problem] = [0, null, null];
    for (const { level, name, bound, linked } of bounds) {
        let hi = end;
        if (typeof bound !== "number" || !(bound >= 0 && bound <= 1)) {
            problem ??= text("bar.notFrom0To1", { name });
        } else if (bound !== 0 && bound < end) {
            problem ??= text("bar.falls", { name, finer });
        } else if (bound !== 0) {
            [hi, finer] = [bound, name];
        }
        shares.push({ level, name, lo: end, hi, linked });
        end = hi;
    }
    const linked = shares.some((share) => share.linked);
    const budget = shares.reduce((sum, { level, lo, hi }) => sum + (hi - lo) / level, 0);
    return { shares, end, budget: linked ? null : budget, problem };
}

// How far the border of a level can go: to the borders of its neighbours, as [least, most].
export function roomOf(shares, level) {
    const own = shares.findIndex((share) => share.level === level);
    const coarser = shares.slice(own + 1).find(({ lo, hi }) => hi > lo);
    return [shares[own].lo, coarser ? coarser.hi : 1];
}

// The numbers that change when the border of a level goes to a place, as [name, bound]. A level that is left without
// width gets 0: neighbours can then pass it, and its number says that it is left out.
export function moved(bounds, level, place) {
    const [least, most] = roomOf(sharesOf(bounds).shares, level);
    const stepped = Number((Math.round(place / STEP) * STEP).toFixed(DIGITS));
    const border = Math.min(Math.max(stepped, least), most);
    const own = bounds.find((each) => each.level === level);
    const coarser = bounds.filter((each) => each.level > level && !each.linked);
    const squeezed = coarser.filter((each) => each.bound > 0 && each.bound <= border);
    const bound = border > least ? border : 0;
    return [[own.name, bound], ...(bound ? squeezed.map((each) => [each.name, 0]) : [])];
}
