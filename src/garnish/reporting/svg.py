"""SVG elements, axes, ticks and text widths; lengths are in pixels of the picture, y points down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from markupsafe import Markup, escape

Attributes = Mapping[str, str | float | None]


def tag(name: str, attributes: Attributes, *children: str) -> Markup:
    """An SVG element; attributes that are None are left out, text that is not Markup is escaped."""
    parts = [f' {key}="{escape(_short(value))}"' for key, value in attributes.items() if value is not None]
    return Markup(f"<{name}{''.join(parts)}>{''.join(escape(child) for child in children)}</{name}>")


def text(x: float, y: float, content: str, anchor: str = "start", style: str = "") -> Markup:
    """Text on its baseline; ``anchor`` is start, middle or end."""
    at = {"x": x, "y": y, "text-anchor": None if anchor == "start" else anchor, "class": style or None}
    return tag("text", at, content)


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    """A straight line."""
    return tag("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": style})


def path(points: Iterable[tuple[float, float]], style: str) -> Markup:
    """A polyline through points."""
    steps = " L".join(f"{_short(x)} {_short(y)}" for x, y in points)
    return tag("path", {"d": f"M{steps}", "class": style})


def picture(width: float, height: float, style: str, label: str, *children: str) -> Markup:
    """A whole SVG that scales with its box; ``label`` is for screen readers."""
    about = {"viewBox": f"0 0 {_short(width)} {_short(height)}", "class": style, "role": "img", "aria-label": label}
    return tag("svg", {"xmlns": "http://www.w3.org/2000/svg", **about}, *children)


def text_width(content: str, size: float) -> float:
    """Upper estimate of the width of a line of text at ``size`` pixels in a common sans-serif font."""
    return size * sum(0.36 if c in "ijltfrI.,:;|'()[] \u00a0-" else 0.95 if c in "mwMW%—" else 0.65 for c in content)


@dataclass(frozen=True)
class Axis:
    """Maps values from ``low`` to ``high`` to pixels from ``start`` to ``end``, linearly or logarithmically."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Pixel of a value; values outside are extrapolated."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def clipped(self, value: float) -> float:
        """Pixel of the nearest value inside."""
        return self.at(min(max(value, self.low), self.high))

    def ticks(self, most: int) -> list[float]:
        """At most about ``most`` round values inside."""
        return log_ticks(self.low, self.high, most) if self.log else round_ticks(self.low, self.high, most)


def value_lines(up: Axis, left: float, right: float) -> list[str]:
    """Horizontal lines at a few round values of the upward axis, with the values left of them."""
    parts: list[str] = []
    for value in up.ticks(3):
        parts.append(line(left, up.at(value), right, up.at(value), "grid"))
        parts.append(text(left - 6, up.at(value) + 4, f"{value:g}".replace("-", "−"), "end", "tick"))
    return parts


def inside_axes(left: float, right: float, up: Axis, *inner: Markup) -> Markup:
    """Clip the parts outside of the scale."""
    top, height = up.end - 6, up.start - up.end + 6
    box = f"{left:g} {top:g} {right - left:g} {height:g}"
    at: dict[str, str | float | None] = {"x": left, "y": top, "width": right - left, "height": height}
    return tag("svg", {**at, "viewBox": box, "class": "window"}, *inner)


def padded(values: Iterable[float], log: bool = False, part: float = 0.08) -> tuple[float, float]:
    """Lowest and highest value with a margin; a single value gets a range too."""
    found = list(values)
    low, high = min(found), max(found)
    if log:
        low, high = math.log10(low), math.log10(high)
    room = part * (high - low) or (0.5 if log else 0.1 * abs(high) or 1.0)
    return (10 ** (low - room), 10 ** (high + room)) if log else (low - room, high + room)


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten; if few, with 2 and 5 (or 3) between them; if many, thinned out."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**p for p in range(first, last + 1) for m in steps if low <= m * 10.0**p <= high]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


def _short(value: str | float | None) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
