"""Outlines of rectangles and ellipses as polygons.

Shape letters: K points.
"""

from __future__ import annotations

import math

import numpy as np

#: How far an ellipse's polygon may lie from it, in pixels, and how many points it has at most.
_TOLERANCE, _MOST_POINTS = 0.01, 4096


def rectangle(
    corner: tuple[float, float],
    sides: tuple[float, float],
    degrees: float = 0.0,
    *,
    about: tuple[float, float] | None = None,
) -> np.ndarray:
    """(4, 2) float64 corners of a rectangle.

    Args:
        corner: x, y of the upper left corner before it is turned, in pixels.
        sides: width and height; may be negative, if the corner is another one.
        degrees: by which it is turned, clockwise as shown.
        about: x, y of what stays where it is; None: its middle.
    """
    width, height = sides
    found = np.array(corner) + np.array([(0, 0), (width, 0), (width, height), (0, height)])
    return _turned(found, degrees, found.mean(0) if about is None else np.array(about))


def ellipse(centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> np.ndarray:
    """(K, 2) float64 points of an ellipse, less than a hundredth of a pixel from it (of radii below 80 000 pixels).

    Args:
        centre: x, y in pixels.
        radii: along x and along y before it is turned, in pixels.
        degrees: by which it is turned about its centre, clockwise as shown.
    """
    largest = max(map(abs, radii))
    bend = math.acos(1 - _TOLERANCE / max(largest, _TOLERANCE))  # half the angle between two points
    count = min(max(math.ceil(math.pi / bend), 8), _MOST_POINTS)
    angles = np.arange(count) * (math.tau / count)
    found = np.array(centre) + np.stack([np.cos(angles), np.sin(angles)], 1) * radii
    return _turned(found, degrees, np.array(centre))


def _turned(found: np.ndarray, degrees: float, about: np.ndarray) -> np.ndarray:
    """Points turned clockwise as shown, where y goes down."""
    if not degrees % 360:
        return found.astype(np.float64)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned: np.ndarray = (found - about) @ np.array([(cos, sin), (-sin, cos)]) + about
    return turned
