"""Procedural textures: scalar fields in [0, 1] over space, which mix two colours of a surface.

Shape letters: N points. A field takes (3, N) float32 points, in units of its own feature size, and random numbers
``r`` that fix its direction and phase.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from garnish.data.scenes.solids import Floats

_LATTICE = 16
#: values of the noise at lattice points; one fixed table, so that noise costs eight look-ups
_TABLE = np.random.Generator(np.random.PCG64(20)).random((_LATTICE,) * 3, dtype=np.float32).reshape(-1)


def _wave(x: Floats, sharpness: float = 8.0) -> Floats:
    """A square wave of period 1 with soft edges, 0 to 1."""
    triangle = np.abs(x - np.floor(x) - 0.5) * 2 - 0.5
    out: Floats = np.clip(triangle * sharpness + 0.5, 0, 1)
    return out


def _along(p: Floats, r: Floats) -> Floats:
    """Coordinate along a random direction in the upper half of the sphere, with a phase."""
    polar, turn = 0.35 + 0.9 * float(r[0]), 2 * math.pi * float(r[1])
    x, y, z = math.sin(polar) * math.cos(turn), math.sin(polar) * math.sin(turn), math.cos(polar)
    out: Floats = x * p[0] + y * p[1] + z * p[2] + float(r[2])
    return out


def value_noise(p: Floats) -> Floats:
    """(N,) smooth noise in [0, 1] with features of about one unit."""
    cell = np.floor(p)
    f = p - cell
    f = f * f * (3 - 2 * f)
    i = cell.astype(np.int32) & (_LATTICE - 1)
    j = (i + 1) & (_LATTICE - 1)
    rows = (i[0] * _LATTICE**2, j[0] * _LATTICE**2)
    columns = (i[1] * _LATTICE, j[1] * _LATTICE)
    planes = []
    for z in (i[2], j[2]):
        lines = []
        for y in columns:
            low, high = _TABLE[rows[0] + y + z], _TABLE[rows[1] + y + z]
            lines.append(low + (high - low) * f[0])
        planes.append(lines[0] + (lines[1] - lines[0]) * f[1])
    out: Floats = planes[0] + (planes[1] - planes[0]) * f[2]
    return out


def even(p: Floats, r: Floats) -> Floats:
    """A single colour."""
    return np.zeros(p.shape[1], np.float32)


def checker(p: Floats, r: Floats) -> Floats:
    """Cubes of alternating colour."""
    # the offset keeps flat faces off the lattice planes, where rounding would make them flicker
    cells = np.floor(p + (0.13 + 0.24 * r[:3, None])).sum(0)
    out: Floats = cells - 2 * np.floor(cells * 0.5)
    return out


def stripes(p: Floats, r: Floats) -> Floats:
    """Parallel bands."""
    return _wave(_along(p, r) * 0.8)


def noise(p: Floats, r: Floats) -> Floats:
    """Clouds of two octaves."""
    q = p + 7 * r[:3, None]
    return np.clip(1.6 * (0.65 * value_noise(q * 1.3) + 0.35 * value_noise(q * 2.9)) - 0.3, 0, 1)


def gradient(p: Floats, r: Floats) -> Floats:
    """One smooth ramp over four units."""
    out: Floats = np.clip(0.5 + 0.25 * (_along(p, r) - float(r[2])), 0, 1)
    return out


def planks(p: Floats, r: Floats) -> Floats:
    """Boards, each of its own tone, dark at the joints."""
    across = p[0] * 1.3 + float(r[0])
    board = np.floor(across)
    along = p[1] * 0.35 + p[2] * 0.35 + board * 0.37 + float(r[1])
    tone = board * 0.618 + np.floor(along) * 0.347
    joint = np.minimum(np.abs(across - board - 0.5), 0.5) > 0.46
    return np.where(joint, np.float32(1), 0.7 * (tone - np.floor(tone)))


def dots(p: Floats, r: Floats) -> Floats:
    """Balls on a lattice; a flat surface through the origin shows equal discs."""
    q = p * 0.9
    q = q - np.rint(q)
    away = np.sqrt((q * q).sum(0))
    out: Floats = np.clip((0.27 + 0.1 * float(r[0]) - away) * 14 + 0.5, 0, 1)
    return out


def marble(p: Floats, r: Floats) -> Floats:
    """Veins: a wave bent by noise."""
    bend = value_noise(p * 0.9 + 7 * r[:3, None])
    out: Floats = (0.5 + 0.5 * np.sin(2.2 * _along(p, r) + 9 * bend)) ** 2
    return out


def rings(p: Floats, r: Floats) -> Floats:
    """Concentric tubes around the vertical axis."""
    x, y = p[0] + 1.2 * float(r[0]) - 0.6, p[1] + 1.2 * float(r[1]) - 0.6
    return _wave(np.sqrt(x * x + y * y) * 1.1 + float(r[2]), 5.0)


def zigzag(p: Floats, r: Floats) -> Floats:
    """Zigzag bands."""
    turn = np.abs(p[0] * 0.7 - np.floor(p[0] * 0.7) - 0.5) * 2
    return _wave(p[1] * 0.7 + p[2] * 0.7 + turn * (0.6 + 0.5 * float(r[0])) + float(r[1]))


def patches(p: Floats, r: Floats) -> Floats:
    """Noise cut into three tones, like terrazzo or camouflage."""
    value = value_noise(p * 1.4 + 7 * r[:3, None])
    out: Floats = np.clip((value - 0.42) * 14, 0, 1) * 0.55 + np.clip((value - 0.62) * 14, 0, 1) * 0.45
    return out


def bricks(p: Floats, r: Floats) -> Floats:
    """Courses of bricks, 1 at the mortar; for flat coordinates (first two)."""
    row = np.floor(p[1] * 1.6 + float(r[0]))
    x = p[0] * 0.7 + 0.5 * (row - 2 * np.floor(row * 0.5))
    u, v = x - np.floor(x), p[1] * 1.6 + float(r[0]) - row
    mortar = (u < 0.05) | (v < 0.1)
    tone = row * 0.618 + np.floor(x) * 0.347
    return np.where(mortar, np.float32(1), 0.35 * (tone - np.floor(tone)))


#: name → field
TEXTURES: dict[str, Callable[[Floats, Floats], Floats]] = {
    f.__name__: f
    for f in (even, checker, stripes, noise, gradient, planks, dots, marble, rings, zigzag, patches, bricks)
}


@dataclass(frozen=True, eq=False)
class Paint:
    """Material of a surface: texture of ``feature`` metres, its random numbers (3,), two linear RGB colours, gloss."""

    texture: str
    feature: float
    random: Floats
    first: Floats
    second: Floats
    gloss: float

    def colour(self, point: Floats) -> Floats:
        """(3, N) linear RGB at points in metres."""
        weight = TEXTURES[self.texture](point * np.float32(1 / self.feature), self.random)
        return self.first[:, None] + (self.second - self.first)[:, None] * weight
