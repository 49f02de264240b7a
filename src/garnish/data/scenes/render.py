"""Rendering of procedural scenes: textured solids with light and shadow, and exact labels of five tasks.

A small analytic ray caster in numpy: one ray per pixel finds the surface, a second one tests whether a dithered point
of a round lamp is visible (averaged over neighbours of the same object, which gives soft shadows). A scene is a pure
function of (seed, index, size, style); its layout does not depend on the size. Units are metres; the camera's frame is
x right, y down, z forward.

Shape letters: H W pixels, N = H·W, S surfaces of a scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from garnish.data.scenes.composition import STYLES, Arrangement, Placed, arrange
from garnish.data.scenes.lighting import illuminate, shade
from garnish.data.scenes.solids import Floats
from garnish.errors import OptionError, shown, suggest

#: style → names of the semantic classes by id: first the room's surfaces, then the solids by shape
CLASSES: dict[str, tuple[str, ...]] = {name: style.classes for name, style in STYLES.items()}

#: Version; increased when any pixel of any scene changes.
RENDERER = 1


@dataclass(frozen=True, eq=False)
class Scene:
    """A rendered picture and its labels.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        ids: (H, W) uint8, semantic class, position in ``CLASSES[style]``.
        instances: (H, W) uint8, number of the surface: each solid, each wall, the floor and the ceiling has its own.
        depth: (H, W) float32, planar z in metres, above 0 and below 10 everywhere.
        normals: (H, W, 3) float32, unit vectors in the camera frame, towards the camera (n·ray < 0).
        edges: (H, W) uint8 0/1, the two pixels on both sides of every border between instances.
        saliency: (H, W) uint8 0/1, one solid: the one with the largest product of the distance of its mean colour
            from the room's mean colour and the square root of its visible area; all 0 where no solid is visible.
        intrinsics: (3, 3) float64 pinhole matrix in pixels; pixel centres have integer coordinates.
    """

    image: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    depth: Floats
    normals: Floats
    edges: NDArray[np.uint8]
    saliency: NDArray[np.uint8]
    intrinsics: NDArray[np.float64]


def render(seed: int, index: int, size: int | tuple[int, int] = 128, style: str = "demo") -> Scene:
    """Render scene number ``index`` of a series.

    Args:
        seed: number of the series, from 0.
        index: number within the series, from 0.
        size: side of a square picture, or (height, width), in pixels.
        style: "pretrain" or "demo"; they share no shape, no texture and no palette.

    Raises:
        OptionError: a negative seed or index, a size under 8, an unknown style.
    """
    setting, height, width, (sensor, _) = composed(seed, index, size, style)
    # rays parallel to faces divide by zero or give inf - inf; comparisons with the results are false, as needed
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return _render(setting, style, height, width, np.random.Generator(np.random.PCG64(sensor)))


def composed(
    seed: int, index: int, size: int | tuple[int, int], style: str
) -> tuple[Arrangement, int, int, tuple[np.random.SeedSequence, np.random.SeedSequence]]:
    """What a scene holds, height and width of its picture, and seeds: of its sensor, and of what is not seen in RGB.

    Raises:
        OptionError: as :func:`render`.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if style not in STYLES:
        raise OptionError(f"scenes: unknown style {shown(style)}{suggest(style, STYLES)}")
    if seed < 0 or index < 0 or min(height, width) < 8:
        raise OptionError(f"scenes: seed {seed}, index {index}, size {height}x{width}; need seed, index ≥ 0, size ≥ 8")
    layout, sensor, unseen = np.random.SeedSequence((seed, index, list(STYLES).index(style))).spawn(3)
    return arrange(np.random.Generator(np.random.PCG64(layout)), STYLES[style]), height, width, (sensor, unseen)


@dataclass(frozen=True, eq=False)
class Sight:
    """What the rays of a picture meet, and the light there.

    Attributes:
        focal: focal length in pixels.
        middle: (x, y) of the picture's centre in pixels.
        depth: (H, W) float32, as of :class:`Scene`.
        instances: (H, W) uint8, likewise.
        points: (3, N) float32, in the world.
        normals: (3, N) float32, in the world.
        colours: (3, N) float32, linear RGB of the paint.
        gloss: (N,) float32.
        light: as :func:`garnish.data.scenes.lighting.illuminate` gives it.
    """

    focal: float
    middle: tuple[float, float]
    depth: Floats
    instances: NDArray[np.uint8]
    points: Floats
    normals: Floats
    colours: Floats
    gloss: Floats
    light: tuple[Floats, ...]


def look(setting: Arrangement, height: int, width: int) -> Sight:
    """Cast the rays of a picture."""
    focal = setting.focal * width
    middle = ((width - 1) / 2, (height - 1) / 2)
    rays = np.ones((3, height, width), np.float32)
    rays[0] = (np.arange(width) - middle[0]) / focal
    rays[1] = ((np.arange(height) - middle[1]) / focal)[:, None]
    # rays keep z = 1 in the camera's frame, so that their parameter is the planar depth
    rays = (setting.camera @ rays.reshape(3, -1)).reshape(3, height, width)
    depth, instances = _cast(setting, rays, focal, middle)
    points = rays.reshape(3, -1) * depth.reshape(-1)
    normals, colours, gloss = _surfaces(setting, points, instances.reshape(-1))
    light = illuminate(setting, points, normals, instances)
    return Sight(focal, middle, depth, instances, points, normals, colours, gloss, light)


def _render(setting: Arrangement, style: str, height: int, width: int, rng: np.random.Generator) -> Scene:
    return scene_of(setting, style, look(setting, height, width), rng)


def scene_of(setting: Arrangement, style: str, seen: Sight, rng: np.random.Generator) -> Scene:
    """The picture in RGB, with its labels."""
    linear = shade(setting, seen.points, seen.normals, seen.colours, seen.gloss, seen.light)
    height, width = seen.depth.shape
    # display values are the square root of linear light, close to sRGB's curve and much cheaper
    image = np.sqrt(np.clip(linear, 0, 1)).reshape(3, height, width).transpose(1, 2, 0)
    kinds = np.array([*setting.room.kinds, *(CLASSES[style].index(p.kind) for p in setting.solids)], np.uint8)
    towards_camera = (setting.camera.T @ seen.normals).reshape(3, height, width)
    (focal, middle), instances = (seen.focal, seen.middle), seen.instances
    return Scene(
        image=sense(image, setting, rng),
        ids=kinds[instances],
        instances=instances,
        depth=seen.depth,
        normals=np.ascontiguousarray(towards_camera.transpose(1, 2, 0)),
        edges=borders(instances),
        saliency=_salient(image, instances, len(setting.room.kinds)),
        intrinsics=np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]]),
    )


def _cast(
    setting: Arrangement, rays: Floats, focal: float, middle: tuple[float, float]
) -> tuple[Floats, NDArray[np.uint8]]:
    """(H, W) depth and number of the nearest surface along ``rays`` (3, H, W)."""
    _, height, width = rays.shape
    far, surface = setting.room.hit(rays.reshape(3, -1))
    depth: Floats = far.astype(np.float32).reshape(height, width)
    instances: NDArray[np.uint8] = surface.reshape(height, width)
    for number, placed in enumerate(setting.solids, start=len(setting.room.kinds)):
        x, y, z = (setting.camera.T @ placed.centre).tolist()
        rows = _shadow_of_ball(y, z, placed.solid.reach, focal, middle[1], height)
        columns = _shadow_of_ball(x, z, placed.solid.reach, focal, middle[0], width)
        part = rays[:, rows, columns]
        if part.size == 0:
            continue
        local = placed.turn.T @ part.reshape(3, -1)
        t = placed.solid.hit(-(placed.turn.T @ placed.centre)[:, None], local).reshape(part.shape[1:])
        nearer = t < depth[rows, columns]
        depth[rows, columns][nearer] = t[nearer]
        instances[rows, columns][nearer] = number
    return depth, instances


def _shadow_of_ball(across: float, ahead: float, radius: float, focal: float, middle: float, limit: int) -> slice:
    """Range of pixels along one axis where a ball may be seen, by the tangents to its circle in that axis and z."""
    away = float(np.hypot(across, ahead))
    if away <= radius * 1.01:
        return slice(0, limit)
    turn, half = float(np.arctan2(across, ahead)), float(np.arcsin(radius / away))
    low, high = (float(np.tan(np.clip(turn + side * half, -1.5, 1.5))) * focal + middle for side in (-1, 1))
    return slice(max(int(low), 0), max(min(int(high) + 2, limit), 0))


def _surfaces(setting: Arrangement, points: Floats, instances: NDArray[np.uint8]) -> tuple[Floats, Floats, Floats]:
    """World normals (3, N), linear colours (3, N) and gloss (N,) at the visible points."""
    normals, colours = np.empty_like(points), np.empty_like(points)
    gloss = np.zeros(points.shape[1], np.float32)
    num_room = len(setting.room.kinds)
    for number in np.flatnonzero(np.bincount(instances)).tolist():
        here = np.flatnonzero(instances == number)
        seen = points[:, here]
        if number < num_room:
            normals[:, here], local = setting.room.surface(number, seen)
            paint = setting.room.paints[number]
        else:
            placed: Placed = setting.solids[number - num_room]
            local = placed.turn.T @ (seen - placed.centre[:, None])
            normals[:, here] = placed.turn @ placed.solid.normal(local)
            paint = placed.paint
        colours[:, here] = paint.colour(local)
        gloss[here] = paint.gloss
    return normals, colours, gloss


def sense(image: Floats, setting: Arrangement, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Simulate the sensor on (H, W, C) display values in [0, 1]: a slight blur, noise, rounding to eight bits."""
    weight = np.float32(setting.blur)
    for axis in (0, 1):
        blurred = image * (1 - 2 * weight)
        inner = np.moveaxis(image, axis, 0)
        out = np.moveaxis(blurred, axis, 0)
        out[1:] += weight * inner[:-1]
        out[:-1] += weight * inner[1:]
        out[0] += weight * inner[0]
        out[-1] += weight * inner[-1]
        image = blurred
    noisy = image + np.float32(setting.noise) * rng.standard_normal(image.shape, dtype=np.float32)
    return (np.clip(noisy, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


def borders(instances: np.ndarray) -> NDArray[np.uint8]:
    """(H, W) uint8 0/1: pixels with a right, left, upper or lower neighbour of another instance (lines 2 px wide)."""
    edge = np.zeros(instances.shape, np.uint8)
    across = instances[:, 1:] != instances[:, :-1]
    along = instances[1:] != instances[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= along
    edge[:-1] |= along
    return edge


def _salient(image: Floats, instances: NDArray[np.uint8], num_room: int) -> NDArray[np.uint8]:
    """(H, W) uint8 0/1 mask of the most salient solid, as defined at :class:`Scene`."""
    flat, colours = instances.reshape(-1), image.reshape(-1, 3)
    area = np.bincount(flat, minlength=num_room + 1).astype(np.float64)
    sums = np.stack([np.bincount(flat, colours[:, c], minlength=num_room + 1) for c in range(3)], 1)
    room = sums[:num_room].sum(0) / max(area[:num_room].sum(), 1)
    means = sums[num_room:] / np.maximum(area[num_room:, None], 1)
    score = np.linalg.norm(means - room, axis=1) * np.sqrt(area[num_room:])
    best = int(score.argmax())
    mask: NDArray[np.uint8] = ((instances == num_room + best) & bool(score[best] > 0)).astype(np.uint8)
    return mask
