"""Lighting of procedural scenes: soft shadows, ambient occlusion, shading.

Shape letters: H W pixels, N = H·W visible points; vectors are (3, N) float32 in the world's frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from garnish.data.scenes.composition import Arrangement
from garnish.data.scenes.solids import Floats


def _dither(height: int, width: int) -> tuple[Floats, Floats]:
    """(N,) offsets in the unit disc, a 4 × 4 pattern of sixteen points on a sunflower spiral."""
    order = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], np.float32)
    tiled = np.tile(order, (height // 4 + 1, width // 4 + 1))[:height, :width].reshape(-1)
    radius, angle = np.sqrt((tiled + np.float32(0.5)) / 16), tiled * np.float32(2.39996)
    return radius * np.cos(angle), radius * np.sin(angle)


def illuminate(
    setting: Arrangement, points: Floats, normals: Floats, instances: NDArray[np.uint8]
) -> tuple[Floats, ...]:
    """Direction to the lamp (3, N), its cosine times visibility (N,), ambient visibility (N,), 1 if not occluded."""
    height, width = instances.shape
    which = instances.reshape(-1)
    axis = setting.lamp / np.float32(np.linalg.norm(setting.lamp))
    first = np.cross(axis, np.array([0.6, 0.0, 0.8], np.float32)).astype(np.float32)
    first /= np.float32(np.linalg.norm(first))
    second = np.cross(axis, first).astype(np.float32)
    u, v = _dither(height, width)
    size = np.float32(setting.lamp_size)
    towards = setting.lamp[:, None] + size * (first[:, None] * u + second[:, None] * v) - points
    length2 = (towards * towards).sum(0)
    visible = np.ones(points.shape[1], np.float32)
    openness = np.ones(points.shape[1], np.float32)
    lit = (normals * towards).sum(0) > 0
    for number, placed in enumerate(setting.solids, start=len(setting.room.kinds)):
        offset = placed.centre[:, None] - points
        reach2 = placed.solid.reach**2
        away2 = (offset * offset).sum(0)
        along = (offset * towards).sum(0)
        # ambient occlusion of a point by a ball of the solid's size
        facing = (offset * normals).sum(0) / np.sqrt(away2)
        hidden = np.clip(facing, 0, 1) * np.minimum(0.7 * reach2 / away2, 0.8)
        other = which != number
        openness *= np.where(other, 1 - hidden, np.float32(1))
        # a convex solid casts no shadow on its own lit side; a ring's shadow on itself is left out
        near = lit & other & (along > 0) & (away2 - along * along / length2 < reach2)
        here = np.flatnonzero(near)
        if here.size == 0:
            continue
        start: Floats = placed.turn.T @ (points[:, here] - placed.centre[:, None])
        hit = placed.solid.hit(start, (placed.turn.T @ towards[:, here]).astype(np.float32))
        visible[here[hit < 1]] = 0
    visible = _same_surface_mean(visible.reshape(height, width), instances).reshape(-1)
    middle = setting.lamp[:, None] - points
    middle /= np.sqrt((middle * middle).sum(0))
    cosine = np.maximum((normals * middle).sum(0), 0) * visible
    return middle, cosine, openness


def _same_surface_mean(values: Floats, instances: NDArray[np.uint8]) -> Floats:
    """Box filter of 5 pixels along each axis over pixels of the same instance."""
    for axis in (0, 1):
        total, count = values.copy(), np.ones_like(values)
        for step in (1, 2):
            low: list[slice] = [slice(None), slice(None)]
            high: list[slice] = [slice(None), slice(None)]
            low[axis], high[axis] = slice(None, -step), slice(step, None)
            a, b = tuple(low), tuple(high)
            same = (instances[a] == instances[b]).astype(np.float32)
            total[a] += same * values[b]
            total[b] += same * values[a]
            count[a] += same
            count[b] += same
        values = total / count
    return values


def shade(
    setting: Arrangement, points: Floats, normals: Floats, colours: Floats, gloss: Floats, light: tuple[Floats, ...]
) -> Floats:
    """(3, N) linear RGB: Lambertian lamp light, ambient light from above and below, a Blinn-Phong highlight."""
    towards, cosine, openness = light
    up = (0.5 - 0.5 * normals[1]) * openness
    down = (0.5 + 0.5 * normals[1]) * openness
    linear = setting.lamp_colour[:, None] * cosine
    linear += setting.sky[:, None] * up
    linear += setting.bounce[:, None] * down
    linear *= colours
    shiny = np.flatnonzero((gloss > 0) & (cosine > 0))
    if shiny.size:
        view = -points[:, shiny]
        view /= np.sqrt((view * view).sum(0))
        half = view + towards[:, shiny]
        half /= np.sqrt((half * half).sum(0))
        shine = np.maximum((half * normals[:, shiny]).sum(0), 0) ** 40
        linear[:, shiny] += setting.lamp_colour[:, None] * (0.45 * gloss[shiny] * shine)
    return linear
