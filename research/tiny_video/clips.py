"""Clips to learn from: coloured shapes that move, turn and cover each other over a panning, patterned background.

A clip is drawn from numbers alone, by signed distances, many clips at a time, on a GPU where there is one. Lengths are
in heights of the picture, with (0, 0) in its middle; times go from -1/2 to 1/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from psa_core.models.tiny_video.vocabulary import COLOURS, GROUNDS, MOTIONS, PATTERNS, SHAPES, STARTS

FRAMES, HEIGHT, WIDTH = 33, 320, 384
_ASPECT = WIDTH / HEIGHT

# Red, green, blue from 0 to 1, in the vocabulary's order.
COLOUR_VALUES = torch.tensor(
    [
        (0.90, 0.10, 0.10),
        (0.98, 0.55, 0.05),
        (0.97, 0.92, 0.15),
        (0.10, 0.75, 0.15),
        (0.15, 0.90, 0.92),
        (0.12, 0.25, 0.95),
        (0.58, 0.15, 0.80),
        (0.98, 0.55, 0.80),
    ]
)
GROUND_VALUES = torch.tensor([(0.52, 0.52, 0.52), (0.40, 0.26, 0.15), (0.36, 0.38, 0.18), (0.12, 0.15, 0.32)])
# What a pattern adds to its ground, and how dark the lower half of an object is, which shows how it turns.
LIGHTER, DARKER = 0.16, 0.72
_CLEAR = -1  # the number of a shape that is not there
_TRAVEL = (0.5, 0.8)
_TURNS = (0.35, 0.6)


class Objects(NamedTuple):
    """One object of each of ``n`` clips; every field is ``[n]`` or, for places, ``[n, 2]`` (right, down)."""

    colour: torch.Tensor
    shape: torch.Tensor
    motion: torch.Tensor
    radius: torch.Tensor
    middle: torch.Tensor
    travel: torch.Tensor
    angle: torch.Tensor
    turn: torch.Tensor


class Scenes(NamedTuple):
    """What ``n`` clips show; ``objects`` from back to front."""

    objects: tuple[Objects, Objects]
    pattern: torch.Tensor
    ground: torch.Tensor
    pan: torch.Tensor
    phase: torch.Tensor
    angle: torch.Tensor
    scale: torch.Tensor

    def word_numbers(self) -> torch.Tensor:
        """What describes the clips: numbers of words, ``[n, 8]``."""
        choices = []
        for x in self.objects:
            there = x.shape != _CLEAR
            choices += [torch.where(there, 1 + choice, 0) for choice in (x.colour, x.shape, x.motion)]
        choices += [1 + self.pattern, 1 + self.ground]
        return torch.stack(choices, 1) + torch.tensor(STARTS, device=self.pattern.device)


def random_scenes(count: int, generator: torch.Generator) -> Scenes:
    """Scenes with one or two objects, all choices alike likely; tensors are on the generator's device."""
    device = generator.device

    def uniform(low: float, high: float, *size: int) -> torch.Tensor:
        return torch.rand(count, *size, generator=generator, device=device) * (high - low) + low

    def choice(number: int) -> torch.Tensor:
        return torch.randint(number, (count,), generator=generator, device=device)

    first = _random_objects(uniform, choice)
    second = _random_objects(uniform, choice)
    alone = uniform(0, 1) < 0.5
    second = second._replace(shape=second.shape.masked_fill(alone, _CLEAR))
    pan = uniform(0.1, 0.35)[:, None] * _direction(uniform(0, 2 * math.pi))
    return Scenes(
        objects=(first, second),
        pattern=choice(len(PATTERNS)),
        ground=choice(len(GROUNDS)),
        pan=pan,
        phase=uniform(0, 1, 2),
        angle=uniform(0, math.pi),
        scale=uniform(0.14, 0.22),
    )


def draw(scenes: Scenes, times: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Draw a window of every clip.

    Args:
        times: ``[n, frames]``, numbers of frames.
        rows, columns: ``[n, height]`` and ``[n, width]``, numbers of pixels.

    Returns:
        ``[n, 3, frames, height, width]``, from -1 to 1.
    """
    t = (times / (FRAMES - 1) - 0.5)[:, :, None, None]
    x = ((columns + 0.5) / HEIGHT - _ASPECT / 2)[:, None, None, :]
    y = ((rows + 0.5) / HEIGHT - 0.5)[:, None, :, None]
    picture = _background(scenes, t, x, y)
    for objects in scenes.objects:
        picture = _put(objects, picture, t, x, y)
    return picture * 2 - 1


def draw_whole(scenes: Scenes) -> torch.Tensor:
    """Draw every clip, ``[n, 3, 33, 320, 384]`` from -1 to 1."""
    count, device = len(scenes.pattern), scenes.pattern.device
    sizes = (torch.arange(size, device=device).expand(count, -1) for size in (FRAMES, HEIGHT, WIDTH))
    return draw(scenes, *sizes)


def _random_objects(uniform: Callable[..., torch.Tensor], choice: Callable[[int], torch.Tensor]) -> Objects:
    motion = choice(len(MOTIONS))
    device = motion.device
    # Right and down, by motion: still, left, right, up, down, turning.
    directions = torch.tensor([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)], device=device)
    turning = motion == MOTIONS.index("turning")
    middle = torch.stack([uniform(-0.33 * _ASPECT, 0.33 * _ASPECT), uniform(-0.28, 0.28)], 1)
    travel = directions[motion] * uniform(*_TRAVEL)[:, None]
    # What travels far begins and ends in the picture.
    middle = torch.where(travel != 0, middle * 0.4, middle)
    return Objects(
        colour=choice(len(COLOURS)),
        shape=choice(len(SHAPES)),
        motion=motion,
        radius=uniform(0.17, 0.26),
        middle=middle,
        travel=travel,
        angle=uniform(-0.3, 0.3),
        turn=torch.where(turning, uniform(*_TURNS) * 2 * math.pi, 0.0),
    )


def _background(scenes: Scenes, t: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x, y = x + _each(scenes.pan[:, 0]) * t, y + _each(scenes.pan[:, 1]) * t
    x, y = _turned(x, y, _each(scenes.angle))
    # In periods of the pattern.
    u = x / _each(scenes.scale) + _each(scenes.phase[:, 0])
    v = y / _each(scenes.scale) + _each(scenes.phase[:, 1])
    edge = 1 / (HEIGHT * _each(scenes.scale))
    stripes = _inside((u - u.floor() - 0.5).abs() - 0.25, edge).expand_as(u + v)
    checks = _inside(torch.sin(2 * math.pi * u) * torch.sin(2 * math.pi * v) / 4, edge)
    dots = _inside(torch.hypot(u - u.floor() - 0.5, v - v.floor() - 0.5) - 0.28, edge)
    patterns = torch.stack([torch.zeros_like(dots), stripes, checks, dots])
    light = patterns[scenes.pattern, torch.arange(len(scenes.pattern), device=t.device)]
    ground = GROUND_VALUES.to(t.device)[scenes.ground][:, :, None, None, None]
    return ground + LIGHTER * light[:, None]


def _put(objects: Objects, picture: torch.Tensor, t: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x = x - _each(objects.middle[:, 0]) - _each(objects.travel[:, 0]) * t
    y = y - _each(objects.middle[:, 1]) - _each(objects.travel[:, 1]) * t
    x, y = _turned(x, y, _each(objects.angle) + _each(objects.turn) * t)
    radius = _each(objects.radius)
    distance = _distance(_each(objects.shape), x / radius, y / radius) * radius
    cover = _inside(distance, 1 / HEIGHT)[:, None]
    shade = torch.where(y < 0, 1.0, DARKER)[:, None]
    colour = COLOUR_VALUES.to(t.device)[objects.colour][:, :, None, None, None] * shade
    return picture + cover * (colour - picture)


def _distance(shape: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Signed distance from the edge of a shape whose corners lie about 1 from the middle; of none, far outside."""
    circle = torch.hypot(x, y) - 0.88
    square = torch.maximum(x.abs(), y.abs()) - 0.78
    slope = math.sqrt(3) / 2
    triangle = torch.maximum(y, slope * x.abs() - y / 2) - 0.55
    return torch.where(
        shape == 0,
        circle,
        torch.where(shape == 1, square, torch.where(shape == 2, triangle, torch.where(shape == 3, _star(x, y), 9.0))),
    )


def _star(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Five points: the plane is folded into half of one point, whose edge is a line."""
    tip, notch, half = 1.08, 0.46, math.pi / 5
    angle = torch.atan2(x, -y)
    angle = (angle - 2 * half * (angle / (2 * half)).round()).abs()
    length = torch.hypot(x, y)
    x, y = length * torch.cos(angle), length * torch.sin(angle)
    right, up = notch * math.cos(half) - tip, notch * math.sin(half)
    return ((x - tip) * up - y * right) / math.hypot(right, up)


def _inside(distance: torch.Tensor, width: torch.Tensor | float) -> torch.Tensor:
    """1 inside, 0 outside, and in between over about a pixel."""
    return (0.5 - distance / width).clamp(0, 1)


def _turned(x: torch.Tensor, y: torch.Tensor, angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = torch.cos(angle), torch.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def _direction(angle: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.cos(angle), torch.sin(angle)], 1)


def _each(x: torch.Tensor) -> torch.Tensor:
    return x[:, None, None, None]
