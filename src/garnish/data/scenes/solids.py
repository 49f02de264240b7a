"""Solids for ray casting: where a ray enters a solid, and the surface normal there.

Shape letters: N rays or points. Vectors are (3, N) float32 arrays in the solid's own frame, whose z axis is its axis.
Everything is float32: arrays are combined with plain Python numbers, never with float64 scalars.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

#: Smallest slope of a ray against a face or an axis; smaller slopes are set to it, so that none divides by zero.
_TINY = 1e-7


class Solid(ABC):
    """A solid in its own frame.

    Attributes:
        hull: (3, P) points whose convex hull, grown by ``rounding``, contains the solid, tightly where it can rest.
        rounding: metres.
        reach: radius in metres of the sphere around the origin that contains the solid.
    """

    def __init__(self, hull: Floats, rounding: float = 0.0) -> None:
        self.hull = hull.astype(np.float32)
        self.rounding = float(rounding)
        self.reach = float(np.sqrt((self.hull**2).sum(0)).max()) + self.rounding

    @abstractmethod
    def hit(self, origin: Floats, direction: Floats) -> Floats:
        """(N,) ray parameter at which rays from outside enter the solid; inf where they miss it or start past it.

        Args:
            origin: (3, N) or (3, 1).
            direction: (3, N), any length.
        """

    @abstractmethod
    def normal(self, point: Floats) -> Floats:
        """(3, N) outward unit normals at surface points."""


@final
class Convex(Solid):
    """A convex quadric cut by half-spaces.

    ``planes`` is (P, 4): a·x ≤ b as rows (a, b), a of unit length. ``quadric`` is (q, l, k): the inside is
    Σ q_i x_i² + l·z + k ≤ 0. A negative q_z makes it a cone, of which the nappe below the apex is used.
    """

    def __init__(
        self,
        hull: Floats,
        planes: Floats | None = None,
        quadric: tuple[tuple[float, float, float], float, float] | None = None,
        rounding: float = 0.0,
    ) -> None:
        super().__init__(hull, rounding)
        self.planes = None if planes is None else planes.astype(np.float32)
        self.quadric = quadric

    def hit(self, origin: Floats, direction: Floats) -> Floats:
        """(N,) ray parameter, from the overlap of the quadric's and the half-spaces' intervals."""
        enter = np.full(direction.shape[1], -np.inf, np.float32)
        leave = np.full(direction.shape[1], np.inf, np.float32)
        if self.planes is not None:
            slope = self.planes[:, :3] @ direction
            slope[np.abs(slope) < _TINY] = _TINY
            t = (self.planes[:, 3:] - self.planes[:, :3] @ origin) / slope
            inward = slope < 0
            enter = np.where(inward, t, np.float32(-np.inf)).max(0)
            leave = np.where(inward, np.float32(np.inf), t).min(0)
        if self.quadric is not None:
            first, last = self._quadric_interval(origin, direction)
            enter, leave = np.maximum(enter, first), np.minimum(leave, last)
        return np.where((enter < leave) & (enter > 0), enter, np.float32(np.inf))

    def _quadric_interval(self, o: Floats, d: Floats) -> tuple[Floats, Floats]:
        assert self.quadric is not None
        (qx, qy, qz), l, k = self.quadric
        ox, oy, oz = o[0] * qx, o[1] * qy, o[2] * qz
        a = qx * d[0] * d[0] + qy * d[1] * d[1] + qz * d[2] * d[2]
        b = ox * d[0] + oy * d[1] + (oz + 0.5 * l) * d[2]
        c = ox * o[0] + oy * o[1] + (oz + l) * o[2] + k
        a[np.abs(a) < _TINY] = _TINY
        root = b * b - a * c
        missed = root < 0
        root = np.sqrt(np.maximum(root, 0))
        first, last = (-b - root) / a, (-b + root) / a
        if qz < 0:
            # a steep ray is inside both nappes of the cone, outside between them; keep the end in the lower nappe
            steep = a < 0
            down = d[2] < 0
            enter = np.where(down, first, np.float32(-np.inf))
            leave = np.where(down, np.float32(np.inf), last)
            first, last = np.where(steep, enter, first), np.where(steep, leave, last)
        first[missed] = np.inf
        return first, last

    def normal(self, point: Floats) -> Floats:
        """(3, N) unit normals of the bounding surface that each point is farthest outside of."""
        chosen = np.zeros_like(point)
        best = np.full(point.shape[1], -np.inf, np.float32)
        if self.planes is not None:
            out = self.planes[:, :3] @ point - self.planes[:, 3:]
            face = out.argmax(0)
            best = out.max(0)
            chosen = np.ascontiguousarray(self.planes[face, :3].T)
        if self.quadric is not None:
            (qx, qy, qz), l, k = self.quadric
            gradient = np.stack([2 * qx * point[0], 2 * qy * point[1], 2 * qz * point[2] + l])
            length = np.sqrt((gradient * gradient).sum(0)) + _TINY
            value = qx * point[0] ** 2 + qy * point[1] ** 2 + (qz * point[2] + l) * point[2] + k
            chosen = np.where(value / length > best, gradient / length, chosen)
        return chosen


@final
class Capsule(Solid):
    """All points within ``radius`` of a segment of length 2·``half`` along z."""

    def __init__(self, radius: float, half: float) -> None:
        super().__init__(np.array([[0, 0], [0, 0], [-half, half]], np.float32), radius)
        self.radius, self.half = radius, half

    def hit(self, origin: Floats, direction: Floats) -> Floats:
        """(N,) ray parameter: the first hit of the cylinder's side and the two spheres at its ends."""
        d, r2 = direction, self.radius**2
        dd, lateral = (d * d).sum(0), np.maximum(d[0] * d[0] + d[1] * d[1], _TINY)
        b = origin[0] * d[0] + origin[1] * d[1]
        root = b * b - lateral * (origin[0] ** 2 + origin[1] ** 2 - r2)
        t = (-b - np.sqrt(np.maximum(root, 0))) / lateral
        best = np.where((root > 0) & (np.abs(origin[2] + t * d[2]) <= self.half), t, np.float32(np.inf))
        for end in (-self.half, self.half):
            z = origin[2] - end
            b = origin[0] * d[0] + origin[1] * d[1] + z * d[2]
            root = b * b - dd * (origin[0] ** 2 + origin[1] ** 2 + z * z - r2)
            t = (-b - np.sqrt(np.maximum(root, 0))) / dd
            beyond = (origin[2] + t * d[2]) * np.sign(end) >= self.half
            best = np.minimum(best, np.where((root > 0) & beyond, t, np.float32(np.inf)))
        return np.where(best > 0, best, np.float32(np.inf))

    def normal(self, point: Floats) -> Floats:
        """(3, N) unit normals, away from the segment."""
        out = point.copy()
        out[2] -= np.clip(point[2], -self.half, self.half)
        return _unit(out)


@final
class Torus(Solid):
    """A ring of radius ``ring`` in the xy plane, ``tube`` thick; rays are intersected by sphere tracing (Hart 1996)."""

    #: most steps; rays that have not met the surface by then pass very close to it and count as misses
    STEPS = 60

    def __init__(self, ring: float, tube: float) -> None:
        super().__init__(rim(ring, 0.0), tube)
        self.ring, self.tube = ring, tube
        self.wrap = drum(ring + tube, -tube, tube)

    def hit(self, origin: Floats, direction: Floats) -> Floats:
        """(N,) ray parameter, by marching from where the ray enters the flat cylinder around the ring."""
        found = np.full(direction.shape[1], np.inf, np.float32)
        start = self.wrap.hit(origin, direction)
        left = np.flatnonzero(np.isfinite(start))
        o, d, t = np.broadcast_to(origin, direction.shape)[:, left], direction[:, left], start[left]
        speed = np.sqrt((d * d).sum(0))
        last = t + 2 * self.reach / speed
        for step in range(self.STEPS):
            away = self._distance(o + t * d)
            t = t + away / speed
            if step % 6 == 5:  # grazing rays need many steps, most rays few
                done = np.abs(away) < 2e-4 * self.tube
                found[left[done]] = t[done]
                going = ~done & (t < last)
                left, t, speed, last = left[going], t[going], speed[going], last[going]
                o, d = o[:, going], d[:, going]
                if left.size == 0:
                    break
        return found

    def _distance(self, p: Floats) -> Floats:
        out: Floats = np.sqrt((np.sqrt(p[0] * p[0] + p[1] * p[1]) - self.ring) ** 2 + p[2] * p[2]) - self.tube
        return out

    def normal(self, point: Floats) -> Floats:
        """(3, N) unit normals, away from the circle in the middle of the tube."""
        shrink = 1 - self.ring / (np.sqrt(point[0] * point[0] + point[1] * point[1]) + _TINY)
        out = np.stack([point[0] * shrink, point[1] * shrink, point[2]])
        return _unit(out)


def _unit(v: Floats) -> Floats:
    out: Floats = v / (np.sqrt((v * v).sum(0)) + _TINY)
    return out


def rim(radius: float, z: float, count: int = 40) -> Floats:
    """(3, count) points around a circle at height ``z``."""
    angle = np.arange(count, dtype=np.float32) * np.float32(2 * math.pi / count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full_like(angle, z)]).astype(np.float32)


def drum(radius: float, low: float, high: float) -> Convex:
    """A cylinder between two heights."""
    planes = np.array([[0, 0, 1, high], [0, 0, -1, -low]], np.float32)
    hull = np.concatenate([rim(radius, low), rim(radius, high)], 1)
    return Convex(hull, planes, ((1, 1, 0), 0.0, -(radius**2)))
