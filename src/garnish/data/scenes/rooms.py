"""The backgrounds of procedural scenes: closed rooms, so that every ray from the camera hits something.

World frame: metres, the camera's centre at the origin, x right, y down, z forward and horizontal. Shape letters:
N rays or points; vectors are (3, N) float32.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import numpy as np

from garnish.data.scenes.solids import Floats
from garnish.data.scenes.textures import Paint


class Room(ABC):
    """A closed room around the camera."""

    #: of each surface: its paint, and its class as an index into the style's ``background``
    paints: tuple[Paint, ...]
    kinds: tuple[int, ...]

    @abstractmethod
    def hit(self, direction: Floats) -> tuple[Floats, np.ndarray]:
        """(N,) ray parameter and (N,) uint8 number of the surface, for rays from the origin."""

    @abstractmethod
    def holds(self, centre: Floats, reach: float) -> bool:
        """Whether a ball at ``centre`` (3,) of radius ``reach`` does not touch the walls."""

    @abstractmethod
    def surface(self, number: int, point: Floats) -> tuple[Floats, Floats]:
        """(3, 1) or (3, N) normals into the room, and (3, N) flat texture coordinates (third is 0)."""


@final
class BoxRoom(Room):
    """A cuboid room turned by ``yaw``; surfaces: floor, ceiling, four walls."""

    def __init__(self, low: Floats, high: Floats, yaw: float, paints: tuple[Paint, Paint, Paint]) -> None:
        c, s = math.cos(yaw), math.sin(yaw)
        self.to_room = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)
        self.low, self.high = low.reshape(3, 1), high.reshape(3, 1)
        floor, wall, ceiling = paints
        self.paints = (wall, wall, ceiling, floor, wall, wall)
        self.kinds = (1, 1, 2, 0, 1, 1)

    def hit(self, direction: Floats) -> tuple[Floats, np.ndarray]:
        """(N,) ray parameter and (N,) surface: the nearest of the six planes in front of the camera."""
        d = self.to_room @ direction
        positive = d > 0
        t = np.where(positive, self.high, self.low) / np.where(np.abs(d) < 1e-7, np.float32(1e-7), d)
        t = np.where(t > 0, t, np.float32(np.inf))
        axis = t.argmin(0)
        side = np.take_along_axis(positive, axis[None], 0)[0]
        return t.min(0), (axis * 2 + side).astype(np.uint8)

    def holds(self, centre: Floats, reach: float) -> bool:
        """Whether the ball does not touch the four walls."""
        p = (self.to_room @ centre)[[0, 2]]
        return bool((p - reach > self.low[[0, 2], 0]).all() and (p + reach < self.high[[0, 2], 0]).all())

    def surface(self, number: int, point: Floats) -> tuple[Floats, Floats]:
        """(3, 1) normal of one of the six planes, and (3, N) texture coordinates within it."""
        axis = number // 2
        inward = -self.to_room[axis].reshape(3, 1) if number % 2 else self.to_room[axis].reshape(3, 1)
        p = self.to_room @ point
        u, v = ((2, 1), (0, 2), (0, 1))[axis]
        return inward, np.stack([p[u], p[v], np.zeros_like(p[0])])


@final
class Studio(Room):
    """A flat ground inside a vertical cylinder, the backdrop; surfaces: ground, backdrop."""

    def __init__(self, floor: float, centre: tuple[float, float], radius: float, paints: tuple[Paint, Paint]) -> None:
        self.floor, self.centre, self.radius = floor, centre, radius
        self.paints = paints
        self.kinds = (0, 1)

    def hit(self, direction: Floats) -> tuple[Floats, np.ndarray]:
        """(N,) ray parameter and (N,) surface: the ground or the cylinder, whichever is nearer."""
        x, y, z = direction
        cx, cz = self.centre
        a, b = x * x + z * z, x * cx + z * cz
        wall = (b + np.sqrt(b * b - a * (cx * cx + cz * cz - self.radius**2))) / a
        ground = np.where(y > 1e-6, self.floor / np.maximum(y, 1e-6), np.float32(np.inf))
        return np.minimum(wall, ground), (wall < ground).astype(np.uint8)

    def holds(self, centre: Floats, reach: float) -> bool:
        """Whether the ball does not touch the cylinder."""
        return math.hypot(float(centre[0]) - self.centre[0], float(centre[2]) - self.centre[1]) + reach < self.radius

    def surface(self, number: int, point: Floats) -> tuple[Floats, Floats]:
        """(3, 1) or (3, N) normals, and (3, N) texture coordinates, on the cylinder those of the unrolled surface."""
        x, z = point[0] - self.centre[0], point[2] - self.centre[1]
        flat = np.zeros_like(x)
        if number == 0:
            return np.array([[0], [-1], [0]], np.float32), np.stack([x, z, flat])
        inward: Floats = (np.stack([-x, flat, -z]) / self.radius).astype(np.float32)
        return inward, np.stack([np.arctan2(x, z) * np.float32(self.radius), point[1], flat])
