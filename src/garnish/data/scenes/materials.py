"""Materials that look alike in red, green and blue, and differ in seven bands beyond: scenes in ten bands.

The paint of a surface, which is all that RGB shows, is drawn first, as in every scene; which of the materials it lies
on is drawn afterwards, from numbers of its own. So the planes red, green and blue are those of the scene without
materials, bit by bit, and tell nothing of them (metamers). The bands are named after those of Sentinel-2 with 10 and
20 m; the reflectances are made up in the manner of leaves, cloth, plastic and minerals, and measured nowhere.

Shape letters: H W pixels, N = H·W, S surfaces of a scene.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from garnish.data.scenes.composition import Arrangement
from garnish.data.scenes.lighting import shade
from garnish.data.scenes.render import Scene, Sight, composed, look, scene_of, sense
from garnish.data.scenes.solids import Floats

#: Bands of a picture, in order.
BAND_NAMES = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir2", "swir1", "swir2")
_BEYOND = len(BAND_NAMES) - 3

#: material → its reflectance in the seven bands beyond red.
SPECTRA: dict[str, tuple[float, ...]] = {
    "leaf": (0.22, 0.44, 0.52, 0.55, 0.54, 0.30, 0.16),
    "cloth": (0.46, 0.49, 0.51, 0.53, 0.52, 0.47, 0.36),
    "plastic": (0.52, 0.49, 0.46, 0.43, 0.40, 0.22, 0.30),
    "mineral": (0.24, 0.27, 0.30, 0.33, 0.35, 0.44, 0.48),
}
#: Of a surface: how much each number of its spectrum differs from its material's, and how much paint darkens it.
_SPREAD, _PAINT = 0.08, 0.45
#: Light of the sky beyond red, as a share of its mean in RGB: the blue of it is scattered, the rest is not.
_SKY = (0.55, 0.5, 0.45, 0.4, 0.38, 0.15, 0.1)


def render_bands(
    seed: int, index: int, size: int | tuple[int, int] = 128, style: str = "demo"
) -> tuple[Scene, NDArray[np.uint8], NDArray[np.uint8]]:
    """Render scene number ``index`` of a series in ten bands.

    Args:
        seed: as of :func:`garnish.data.scenes.render.render`, like all arguments.
        index: likewise.
        size: likewise.
        style: likewise.

    Returns:
        The scene, as ``render`` gives it; (H, W, 10) uint8 display values of ``BAND_NAMES``; (H, W) uint8 material,
        position in ``SPECTRA``.
    """
    setting, height, width, (sensor, unseen) = composed(seed, index, size, style)
    rng = np.random.Generator(np.random.PCG64(unseen))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # as in ``render``
        seen = look(setting, height, width)
        scene = scene_of(setting, style, seen, np.random.Generator(np.random.PCG64(sensor)))
    count = len(setting.room.kinds) + len(setting.solids)
    drawn = rng.integers(len(SPECTRA), size=count).astype(np.uint8)
    spectra = np.array(list(SPECTRA.values()), np.float32)[drawn]
    spectra *= 1 + _SPREAD * rng.standard_normal(spectra.shape, dtype=np.float32)
    linear = _shaded(setting, seen, spectra[seen.instances.reshape(-1)].T)
    display = np.sqrt(np.clip(linear, 0, 1)).reshape(_BEYOND, height, width).transpose(1, 2, 0)
    beyond = sense(display, setting, rng)
    return scene, np.concatenate([scene.image[..., ::-1], beyond], -1), drawn[seen.instances]


def _shaded(setting: Arrangement, seen: Sight, reflectance: Floats) -> Floats:
    """(7, N) linear light of the bands beyond red, three at a time as RGB is shaded; ``reflectance``: (7, N)."""
    dark = 1 - _PAINT + _PAINT * seen.colours.mean(0)
    lamp, sky, bounce = (np.float32(x.mean()) for x in (setting.lamp_colour, setting.sky, setting.bounce))
    out = []
    for first in range(0, _BEYOND, 3):
        part = reflectance[first : first + 3]
        three = np.concatenate([part, np.zeros((3 - len(part), part.shape[1]), np.float32)]) * dark
        shares = np.array([*_SKY[first : first + 3], 0, 0][:3], np.float32)
        light = dataclasses.replace(
            setting,
            lamp_colour=np.full(3, lamp, np.float32),
            sky=sky * shares,
            bounce=np.full(3, bounce, np.float32),
        )
        out.append(shade(light, seen.points, seen.normals, three, seen.gloss, seen.light)[: len(part)])
    return np.concatenate(out)
