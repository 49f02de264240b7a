"""Formatting numbers of results.json for the report, each with its JSON pointer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

MISSING = "–"
SPACE = "\u00a0"  # a number and its unit stay on one line


@final
@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of results.json: ``text`` is shown, ``value`` is the number at ``pointer`` (RFC 6901)."""

    text: str
    value: float | int | None
    pointer: str


def figure(value: float | None, show: Callable[[float], str], *path: str | int) -> Figure:
    """The number at ``path``, formatted by ``show``; a dash if it is None."""
    return Figure(text=MISSING if value is None else show(value), value=value, pointer=pointer(*path))


def pointer(*path: str | int) -> str:
    """JSON pointer (RFC 6901) of a path."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def minus(text: str) -> str:
    """Replace hyphens by minus signs, which are as wide as a plus."""
    return text.replace("-", "−")


def metric_text(value: float) -> str:
    """Metric in its own unit: 0.731, 12.31, 104.2."""
    size = abs(value)
    return minus(f"{value:.3f}" if size < 10 else f"{value:.2f}" if size < 100 else f"{value:.1f}")


def signed_text(value: float) -> str:
    """Difference in per cent: +1.2, −0.4; 0.0 has no sign."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else minus(text)


def signed_metric_text(value: float) -> str:
    """Difference in a metric's unit, with its sign."""
    return ("+" if value > 0 else "") + metric_text(value)


def percent_text(value: float) -> str:
    """Ratio as whole per cent, without the sign: 0.873 → 87."""
    return minus(f"{round(100 * value):d}")


def ratio_text(value: float) -> str:
    """A ratio: 1.319 → 1.32×."""
    return f"{value:.2f}×"


def count_text(value: float) -> str:
    """Parameters: 512, 34.2 k, 1.23 M."""
    return _scaled(value, 1000, ("", f"{SPACE}k", f"{SPACE}M", f"{SPACE}G"))


def bytes_text(value: float) -> str:
    """Bytes, in powers of ten: 34.2 kB, 1.23 MB."""
    return _scaled(value, 1000, tuple(f"{SPACE}{prefix}B" for prefix in ("", "k", "M", "G", "T")))


def giga_text(value: float) -> str:
    """Multiply-accumulates in 10⁹: 4.51."""
    return _three(value / 1e9)


def seconds_text(value: float) -> str:
    """A duration: 412 ms, 1.32 s, 12 min 4 s, 3 h 12 min."""
    return _duration(value).replace(" ", SPACE)


def _duration(value: float) -> str:
    if value < 1:
        return f"{_three(1000 * value)} ms"
    if value < 60:
        return f"{_three(value)} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 and whole < 600 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def rate_text(value: float) -> str:
    """A learning rate: 3e-4, 0.01."""
    if value >= 0.01 or value == 0:
        return f"{value:g}"
    digits, power = f"{value:e}".split("e")
    return f"{float(digits):g}e{int(power)}".replace("e-", "e−")


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    step = 0
    while abs(value) >= base and step < len(units) - 1:
        value, step = value / base, step + 1
    return (f"{value:g}" if step == 0 else _three(value)) + units[step]


def _three(value: float) -> str:
    """Three significant digits without an exponent."""
    size = abs(value)
    return f"{value:.2f}" if size < 10 else f"{value:.1f}" if size < 100 else f"{value:.0f}"
