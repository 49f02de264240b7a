"""The shapes of the solids in scenes: class name → function that makes a solid of a size and two proportions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from garnish.data.scenes.solids import Capsule, Convex, Floats, Solid, Torus, drum, rim


def _polyhedron(corners: Floats, planes: list[tuple[float, float, float, float]]) -> Convex:
    table = np.array(planes, np.float64)
    table /= np.linalg.norm(table[:, :3], axis=1, keepdims=True)
    return Convex(corners, table.astype(np.float32))


def sphere(size: float, a: float, b: float) -> Solid:
    """A ball of radius ``size``."""
    return Convex(np.zeros((3, 1), np.float32), None, ((1, 1, 1), 0.0, -(size**2)), size)


def box(size: float, a: float, b: float) -> Solid:
    """A cuboid; ``a`` and ``b`` in [0, 1] set its proportions, as for every shape below."""
    half = (size * (0.6 + 0.4 * a), size * (0.6 + 0.4 * b), size * (0.5 + 0.55 * (1 - a) * b + 0.1 * a))
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32).T
    planes = [(*(s * (i == j) for j in range(3)), half[i]) for i in range(3) for s in (-1.0, 1.0)]
    return _polyhedron(signs * np.array(half, np.float32)[:, None], planes)  # type: ignore[arg-type]


def cylinder(size: float, a: float, b: float) -> Solid:
    """A drum or a rod."""
    half = size * (0.3 + 0.75 * b)
    return drum(size * (0.45 + 0.45 * a), -half, half)


def cone(size: float, a: float, b: float) -> Solid:
    """A cone that stands on its base, apex up."""
    radius, height = size * (0.6 + 0.3 * a), size * (1.2 + 0.8 * b)
    low = -height / 2
    slope2 = (radius / height) ** 2
    hull = np.concatenate([rim(radius, low), np.array([[0], [0], [height / 2]], np.float32)], 1)
    planes = np.array([[0, 0, -1, -low], [0, 0, 1, height / 2]], np.float32)
    # x² + y² ≤ slope² (h/2 - z)²
    return Convex(hull, planes, ((1, 1, -slope2), slope2 * height, -slope2 * height**2 / 4))


def wedge(size: float, a: float, b: float) -> Solid:
    """A ramp: half a cuboid, cut along a diagonal."""
    x, y, z = size * (0.7 + 0.3 * a), size * (0.5 + 0.4 * b), size * (0.45 + 0.35 * (1 - a))
    corners = np.array([[-x, -x, x, x, -x, -x], [-y, y, -y, y, -y, y], [-z, -z, -z, -z, z, z]], np.float32)
    return _polyhedron(corners, [(-1, 0, 0, x), (0, -1, 0, y), (0, 1, 0, y), (0, 0, -1, z), (z, 0, x, 0)])


def torus(size: float, a: float, b: float) -> Solid:
    """A ring, thin to thick."""
    tube = size * (0.2 + 0.12 * a)
    return Torus(size - tube, tube)


def capsule(size: float, a: float, b: float) -> Solid:
    """A pill."""
    return Capsule(size * (0.38 + 0.2 * a), size * (0.35 + 0.4 * b))


def pyramid(size: float, a: float, b: float) -> Solid:
    """A square pyramid, apex up."""
    half, height = size * (0.65 + 0.2 * a), size * (1.1 + 0.6 * b)
    low = -height / 2
    corners = np.array(
        [[-half, half, -half, half, 0], [-half, -half, half, half, 0], [low, low, low, low, -low]], np.float32
    )
    sides = [(height * x, height * y, half, half * height / 2) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    return _polyhedron(corners, [(0, 0, -1, -low), *sides])


def prism(size: float, a: float, b: float) -> Solid:
    """A hexagonal column or nut."""
    radius, half = size * (0.55 + 0.35 * a), size * (0.3 + 0.75 * b)
    corners = np.concatenate([rim(radius, -half, 6), rim(radius, half, 6)], 1)
    flat = radius * math.cos(math.pi / 6)
    turns = [math.pi / 6 + i * math.pi / 3 for i in range(6)]
    sides = [(math.cos(t), math.sin(t), 0.0, flat) for t in turns]
    return _polyhedron(corners, [(0, 0, 1, half), (0, 0, -1, half), *sides])


def dome(size: float, a: float, b: float) -> Solid:
    """A ball cut by a plane, flat side down; from half a ball to three quarters of one."""
    low = -0.5 * a * size
    planes = np.array([[0, 0, -1, -low]], np.float32)
    rings = [rim(size * math.sqrt(1 - z * z), size * z, 24) for z in np.linspace(low / size, 0.999, 10).tolist()]
    return Convex(np.concatenate(rings, 1), planes, ((1, 1, 1), 0.0, -(size**2)))


#: class name → solid of about ``size`` metres radius and proportions ``a``, ``b`` in [0, 1]
SHAPES: dict[str, Callable[[float, float, float], Solid]] = {
    shape.__name__: shape for shape in (sphere, box, cylinder, cone, wedge, torus, capsule, pyramid, prism, dome)
}
