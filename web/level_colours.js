// A colour for every pyramid level, dark for fine; 0 is skipped. Matplotlib's YlGnBu_r, as in the pictures of reports, so
// that bars and pictures compare.
export const LEVEL_COLOURS = {
    1: [19, 38, 111], 2: [33, 102, 172], 4: [53, 170, 195], 8: [124, 204, 187], 16: [187, 228, 181],
    32: [218, 240, 179], 64: [238, 248, 179], 128: [247, 252, 198], 0: [242, 240, 234],
};
