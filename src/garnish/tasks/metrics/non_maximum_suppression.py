"""Non-maximum suppression of boundary probability maps, as edge detectors apply it before a benchmark.

Shape letters: H W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, map_coordinates

Floats = NDArray[np.float64]

#: Radius of the triangle filter before the derivatives, in pixels.
SMOOTHING_PX = 4
#: A pixel is kept unless its value times this is below a neighbour's across the line.
SLACK = 1.01
#: Values fade out linearly towards the picture's border, over this many pixels.
BORDER_PX = 5


def suppress(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keep values that are maximal across their line, compared with one pixel on each side; set the others to 0.

    This is the suppression of Dollár & Zitnick 2015 (structured forests) with the settings that they and most later
    detectors report for BSDS (radius 1, border 5, multiplier 1.01). The direction across a line is
    atan(E_yy · sign(−E_xy) / E_xx), from central differences of the map smoothed with a triangle of radius 4.

    Args:
        probability: (H, W) in [0, 1].

    Returns:
        (H, W): kept values are unchanged, except that they fade out at the border.
    """
    values = probability.astype(np.float64)
    height, width = values.shape
    if min(height, width) < 2:
        return probability
    smooth = _triangle(_triangle(values, 0), 1)
    along_y, along_x = np.gradient(smooth)
    xx = np.gradient(along_x, axis=1)
    yy, xy = np.gradient(along_y)
    # In the reference sign(0) is 0, which treats a perfectly horizontal line as vertical; here it is 1.
    angle = np.arctan(yy * np.where(xy > 0, -1, 1) / (xx + 1e-5)) % np.pi
    y, x = np.mgrid[:height, :width].astype(np.float64)
    stays = values > 0
    for side in (-1, 1):
        beside = [y + side * np.sin(angle), x + side * np.cos(angle)]
        stays &= SLACK * values >= map_coordinates(values, beside, order=1, mode="nearest")
    return (values * stays * _fade(height, width)[:, None] * _fade(width, height)).astype(np.float32)


def _triangle(values: Floats, axis: int) -> Floats:
    """Smooth with a triangle filter along one axis; the picture is mirrored at its border."""
    rise = np.arange(1, SMOOTHING_PX + 1)
    weights = np.concatenate([rise, [SMOOTHING_PX + 1], rise[::-1]]) / (SMOOTHING_PX + 1) ** 2
    smooth: Floats = convolve1d(values, weights, axis=axis, mode="reflect")
    return smooth


def _fade(length: int, other: int) -> Floats:
    """(length,) factors: 0 at both ends, 1 from ``BORDER_PX`` on; a narrower border in very small pictures."""
    over = max(min(BORDER_PX, length // 2, other // 2), 1)
    from_end = np.minimum(np.arange(length), np.arange(length)[::-1])
    return np.minimum(from_end / over, 1.0)
