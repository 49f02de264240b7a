"""Histograms of labels as inline SVG: the splits over each other, so that one that differs is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from markupsafe import Markup

from garnish.doctor.diagnosis import Diagnosis
from garnish.reporting.svg import Axis, line, path, picture, tag, text, text_width
from garnish.targets.histogram import Histogram

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 340.0, 190.0, 8.0, 332.0, 12.0, 160.0
#: Splits that are drawn; the style sheet has a colour for each.
_MOST_SPLITS = 4


@final
@dataclass(frozen=True)
class HistogramPanel:
    """The histogram of one quantity of a task.

    Attributes:
        quantity: what is counted, as the kind of target calls it: "depth", "x".
        unit: of the axis; may be empty.
        svg: the drawing.
        splits: names of the splits in the order of their colours.
        note: how much lies beyond the axis; empty: nothing.
    """

    quantity: str
    unit: str
    svg: Markup
    splits: tuple[str, ...]
    note: str


def histogram_panels(diagnosis: Diagnosis) -> dict[str, list[HistogramPanel]]:
    """Task → a panel for each of its quantities of which some pixel was counted."""
    made: dict[str, list[HistogramPanel]] = {}
    for task in diagnosis.tasks:
        own = {split: facts.histograms.get(task, {}) for split, facts in diagnosis.splits.items()}
        for quantity in dict.fromkeys(name for found in own.values() for name in found):
            by_split = {
                split: found[quantity]
                for split, found in own.items()
                if quantity in found and found[quantity].counts.any()
            }
            shown = dict(list(by_split.items())[:_MOST_SPLITS])
            if shown:
                one = next(iter(shown.values()))
                svg = histogram_svg(shown, f"{task}: {quantity}{f' in {one.unit}' if one.unit else ''}")
                made.setdefault(task, []).append(HistogramPanel(quantity, one.unit, svg, tuple(shown), _beyond(shown)))
    return made


def histogram_svg(by_split: Mapping[str, Histogram], label: str) -> Markup:
    """Draw histograms with the same edges; each has the same area.

    Args:
        by_split: split → histogram with some count.
        label: for screen readers.
    """
    first = next(iter(by_split.values()))
    filled = np.flatnonzero(np.sum([one.counts for one in by_split.values()], axis=0))
    start, end = max(int(filled[0]) - 1, 0), min(int(filled[-1]) + 2, len(first.counts))
    edges = first.edges[start : end + 1]
    across = Axis(float(edges[0]), float(edges[-1]), _LEFT, _RIGHT, first.logarithmic)
    shares = {split: one.counts[start:end] / one.counts.sum() for split, one in by_split.items()}
    up = Axis(0.0, max(float(share.max()) for share in shares.values()), _BOTTOM, _TOP)
    parts: list[str] = [line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "grid")]
    for value in across.ticks(6):
        x = across.at(value)
        told = f"{value:g}".replace("-", "−") + (f"\u00a0{first.unit}" if first.unit else "")
        half = text_width(told, 11) / 2
        anchor = "start" if x - half < _LEFT else "end" if x + half > _RIGHT else "middle"
        parts += [line(x, _TOP, x, _BOTTOM, "grid"), text(x, _BOTTOM + 17, told, anchor, "tick")]
    for number, (split, share) in reversed(list(enumerate(shares.items()))):
        points = [(across.at(float(edges[0])), _BOTTOM)]
        for left, right, height in zip(edges[:-1], edges[1:], share, strict=True):
            points += [(across.at(float(left)), up.at(float(height))), (across.at(float(right)), up.at(float(height)))]
        points.append((across.at(float(edges[-1])), _BOTTOM))
        parts.append(tag("g", {}, tag("title", {}, split), path(points, f"steps s{number}")))
    return picture(_WIDTH, _HEIGHT, "chart histogram", label, *parts)


def _beyond(by_split: Mapping[str, Histogram]) -> str:
    """How much of the values lies outside of the edges."""
    told = []
    for split, one in by_split.items():
        beyond, total = one.below + one.above, one.below + one.above + int(one.counts.sum())
        if beyond:
            told.append(f"{split}: {beyond / total:.2g} of the pixels lie beyond the axis")
    return "; ".join(told)
