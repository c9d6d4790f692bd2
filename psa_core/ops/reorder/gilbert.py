"""Generalised Hilbert ("Gilbert") curve through a box of any size.

The construction is Jakub Cerveny's (https://github.com/jakubcerveny/gilbert): a box spanned by three axis-parallel
vectors a, b, c is cut into two to five smaller boxes which one curve visits end to end, entering at the corner
and leaving at the far end of ``a``; cuts prefer even lengths, because those join without diagonal steps.
"""

from __future__ import annotations

import numpy as np

Vector = tuple[int, int, int]
# Its corner and its sides.
Box = tuple[Vector, Vector, Vector, Vector]


def gilbert_order(grid: tuple[int, int, int]) -> np.ndarray:
    """The order in which a Gilbert curve visits the tokens of a grid.

    Consecutive tokens are neighbours in space or time, but for a few diagonal steps where lengths are odd.

    Args:
        grid: (frames, height, width) in tokens, each 1 or more.

    Returns:
        int64 ``[frames * height * width]``: token indices, numbered frame by frame, row by row.
    """
    frames, height, width = grid
    axes: list[Vector] = [(frames, 0, 0), (0, height, 0), (0, 0, width)]
    # The curve runs along the longest side; the stable sort keeps (t, h, w) order among equals.
    a, b, c = sorted(axes, key=lambda axis: -sum(axis))
    return _visit(a, b, c, np.array([height * width, width, 1], np.int64), {})


def _visit(
    a: Vector, b: Vector, c: Vector, strides: np.ndarray, visited: dict[tuple[Vector, ...], np.ndarray]
) -> np.ndarray:
    """The order in a box, its corner being token 0. A curve has many boxes that are alike, and computes each once."""
    sides = a, b, c
    if sides not in visited:
        line = _as_line(*sides)
        if line is not None:
            length, step = line
            visited[sides] = np.dot(step, strides) * np.arange(length)
        else:
            boxes = [np.dot(p, strides) + _visit(u, v, w, strides, visited) for p, u, v, w in _cut(*sides)]
            visited[sides] = np.concatenate(boxes)
    return visited[sides]


def _as_line(a: Vector, b: Vector, c: Vector) -> tuple[int, Vector] | None:
    """Length and direction of a box that is one token wide and high; None for a thicker one."""
    long = [side for side in (a, b, c) if _length(side) > 1]
    if len(long) > 1:
        return None
    side = long[0] if long else a
    return _length(side), _unit(side)


def _cut(a: Vector, b: Vector, c: Vector) -> list[Box]:
    """Cut a box into the boxes that the curve visits, in order, each with its corner."""
    w, h, d = _length(a), _length(b), _length(c)
    half_a, half_b, half_c = _half(a), _half(b), _half(c)
    rest_a, rest_b, rest_c = _sub(a, half_a), _sub(b, half_b), _sub(c, half_c)
    corner = (0, 0, 0)
    if 2 * w > 3 * h and 2 * w > 3 * d:  # long: one box behind the other
        return [(corner, half_a, b, c), (half_a, rest_a, b, c)]
    last_a, last_b = _sub(a, _unit(a)), _sub(half_b, _unit(b))
    if 3 * h > 4 * d:  # flat in c: a U turn in the plane of a and b
        return [
            (corner, half_b, c, half_a),
            (half_b, a, rest_b, c),
            (_add(last_a, last_b), _neg(half_b), c, _neg(rest_a)),
        ]
    last_c = _sub(half_c, _unit(c))
    if 3 * d > 4 * h:  # flat in b: the same in the plane of a and c
        return [
            (corner, half_c, half_a, b),
            (half_c, a, b, rest_c),
            (_add(last_a, last_c), _neg(half_c), _neg(rest_a), b),
        ]
    end_c = _sub(c, _unit(c))
    return [
        (corner, half_b, half_c, half_a),
        (half_b, c, half_a, rest_b),
        (_add(last_b, end_c), a, _neg(half_b), _neg(rest_c)),
        (_add(last_a, half_b, end_c), _neg(c), _neg(rest_a), rest_b),
        (_add(last_a, last_b), _neg(half_b), half_c, _neg(rest_a)),
    ]


def _half(v: Vector) -> Vector:
    """Half of a side, rounded to an even length where the side is long enough."""
    length = _length(v) // 2
    if length % 2 and _length(v) > 2:
        length += 1
    x, y, z = _unit(v)
    return x * length, y * length, z * length


def _length(v: Vector) -> int:
    return abs(v[0] + v[1] + v[2])


def _unit(v: Vector) -> Vector:
    x, y, z = v
    return (x > 0) - (x < 0), (y > 0) - (y < 0), (z > 0) - (z < 0)


def _add(p: Vector, *vectors: Vector) -> Vector:
    x, y, z = p
    for v in vectors:
        x, y, z = x + v[0], y + v[1], z + v[2]
    return x, y, z


def _neg(v: Vector) -> Vector:
    return -v[0], -v[1], -v[2]


def _sub(v: Vector, w: Vector) -> Vector:
    return _add(v, _neg(w))
