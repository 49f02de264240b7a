"""Colours of painted maps: distinct ones for classes, a perceptual scale for distances.

Class colours are chosen in OKLab (Ottosson 2020), where equal distances look about equal: each is the one farthest
from all before it, among the sRGB colours of moderate lightness and chroma.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Pixels without a value.
NOTHING = (0, 0, 0)
#: What is likely, on a picture.
HIGHLIGHT = (255, 64, 32)
#: A class called background.
BACKGROUND = (58, 60, 66)

#: OKLab → cube roots of cone responses → linear sRGB.
_LAB_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def class_colours(names: tuple[str, ...]) -> tuple[tuple[int, int, int], ...]:
    """One RGB colour per class, which depends on its id only, on every machine; a background is dark grey."""
    chosen = zip(names, distinct_colours(), strict=False)
    return tuple(BACKGROUND if name.lower() == "background" else colour for name, colour in chosen)


@cache
def distinct_colours(count: int = 255) -> tuple[tuple[int, int, int], ...]:
    """``count`` colours, each as different as possible from those before it; the first is a blue."""
    lightness, chroma, hue = np.meshgrid(
        np.linspace(0.5, 0.86, 7), np.linspace(0.08, 0.17, 4), np.linspace(0, 2 * np.pi, 60, endpoint=False)
    )
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], -1).reshape(-1, 3)
    linear = (lab @ _LAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T
    shown = ((linear >= 0) & (linear <= 1)).all(1)
    lab, linear = lab[shown], linear[shown]
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    # Rounded, so that ties and the last digits of cosines give the same choice on every machine.
    lab, rgb = lab.round(6), (255 * encoded).round().astype(int)

    picked = [int(np.argmin(((lab - (0.62, -0.04, -0.15)) ** 2).sum(1).round(6)))]
    nearest = np.full(len(lab), np.inf)
    while len(picked) < count:
        nearest = np.minimum(nearest, ((lab - lab[picked[-1]]) ** 2).sum(1).round(6))
        picked.append(int(np.argmax(nearest)))
    return tuple((int(r), int(g), int(b)) for r, g, b in rgb[picked])


def scale_colours(share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(H, W) in [0, 1] → (H, W, 3) on viridis: 0 dark violet, 1 yellow; NaN is black."""
    missing = np.isnan(share)
    places = np.minimum(np.where(missing, 0, np.clip(share, 0, 1)) * 256, 255).astype(np.intp)
    painted: NDArray[np.uint8] = viridis()[places]
    painted[missing] = NOTHING
    return painted


@cache
def viridis() -> NDArray[np.uint8]:
    """The viridis colour scale, (256, 3), of van der Walt and Smith (2015), in the public domain (CC0)."""
    with Image.open(BytesIO(resources.files("garnish").joinpath("assets", "viridis.png").read_bytes())) as image:
        scale: NDArray[np.uint8] = np.asarray(image)[0]
    return scale
