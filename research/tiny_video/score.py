"""Reads off a clip what it shows, by measuring colours and outlines: no network, nothing learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from skimage.measure import label, regionprops

from psa_core.models.tiny_video.vocabulary import COLOURS

from .clips import COLOUR_VALUES, DARKER, GROUND_VALUES, LIGHTER

# Of a clip, from first to last.
_LOOKS = 5
# Objects are larger than this share of the picture.
_SMALLEST = 0.01
# How far an object goes from first to last look, in heights, if it goes anywhere.
_TRAVEL = 0.25
# A star fills little of its hull; of the circle around them, other shapes fill 1, 0.64 and 0.41.
_STAR, _CIRCLE, _SQUARE = 0.78, 0.8, 0.53


class Reading(NamedTuple):
    """What a clip's largest object looks like; the motion is None when it seems to stay where it is."""

    colour: str
    shape: str
    motion: str | None


def read_clip(frames: np.ndarray) -> Reading | None:
    """The largest object of a clip ``[frames, height, width, 3]``, from 0 to 1; None when there is none."""
    looks = [frames[i] for i in np.linspace(0, len(frames) - 1, _LOOKS).round().astype(int)]
    names = [_colours(look) for look in looks]
    colour = _most([name for name in map(_largest, names) if name is not None])
    if colour is None:
        return None
    regions = [region for name in names if (region := _region(name == COLOURS.index(colour))) is not None]
    # An outline that leaves the picture says little.
    whole = [region for region in regions if not _at_the_edge(region, looks[0].shape)] or regions
    shape = _most([_shape(region) for region in whole])
    assert shape is not None
    return Reading(colour, shape, _motion(regions, looks[0].shape[0]))


def _colours(picture: np.ndarray) -> np.ndarray:
    """The number of each pixel's colour in the vocabulary, ``[height, width]``; -1 for a ground's."""
    objects, grounds = COLOUR_VALUES.numpy(), GROUND_VALUES.numpy()
    values = np.concatenate([objects, objects * DARKER, grounds, grounds + LIGHTER])
    distances = np.stack([np.square(picture - value).sum(-1) for value in values])
    nearest = distances.argmin(0)
    return np.where(nearest < 2 * len(objects), nearest % len(objects), -1)


def _largest(colours: np.ndarray) -> str | None:
    """The colour with the largest region."""
    regions = {name: _region(colours == number) for number, name in enumerate(COLOURS)}
    areas = {name: region.area for name, region in regions.items() if region is not None}
    return max(areas, key=lambda name: areas[name]) if areas else None


def _region(mask: np.ndarray) -> Any:
    """The largest region of a mask, without holes; None when all are small."""
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(mask, iterations=2))
    regions = regionprops(label(mask))
    best = max(regions, key=lambda region: region.area, default=None)
    return best if best is not None and best.area >= _SMALLEST * mask.size else None


def _at_the_edge(region: Any, shape: Sequence[int]) -> bool:
    top, left, bottom, right = region.bbox
    return top == 0 or left == 0 or bottom == shape[0] or right == shape[1]


def _shape(region: Any) -> str:
    if region.solidity < _STAR:
        return "star"
    distances = np.linalg.norm(region.coords - np.asarray(region.centroid), axis=1)
    filled = region.area / (np.pi * np.quantile(distances, 0.995) ** 2)
    return "circle" if filled > _CIRCLE else "square" if filled > _SQUARE else "triangle"


def _motion(regions: list[Any], height: int) -> str | None:
    first, last = np.asarray(regions[0].centroid), np.asarray(regions[-1].centroid)
    down, right = (last - first) / height
    if max(abs(down), abs(right)) < _TRAVEL:
        return None
    if abs(down) > abs(right):
        return "down" if down > 0 else "up"
    return "right" if right > 0 else "left"


def _most(names: list[str]) -> str | None:
    return Counter(names).most_common(1)[0][0] if names else None
