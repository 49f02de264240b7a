"""Layout of the Pareto plot of Δm over cost: points, front and labels in pixels.

The cost axis is logarithmic; a cost of zero (the frozen trunk trains no parameter of the encoder) is placed left of it.
Arms far below the others and below the frozen trunk (a random trunk) are placed on the lower edge with their
figure, so that they do not compress the scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from garnish.comparing.analysis.statistics import dominated
from garnish.comparing.report.results import ArmResult, Results
from garnish.reporting.number_format import bytes_text, count_text, seconds_text, signed_text
from garnish.reporting.svg import Axis, padded, text_width

FONT = 12.0
RADIUS = 5.0
#: A gap this many times as wide as the range above it is not drawn to scale.
FAR = 1.5


@final
@dataclass(frozen=True)
class CostAxis:
    """A cost of an arm, as the x axis of a Pareto plot."""

    key: str
    title: str
    show: Callable[[float], str]

    def of(self, arm: ArmResult) -> float | None:
        """The cost of an arm; None if it could not be measured."""
        value: float | None = getattr(arm, self.key)
        return value


COSTS = (
    CostAxis("encoder_trainable", "Trained encoder parameters", count_text),
    CostAxis("bundle_bytes", "Bundle on disk", bytes_text),
    CostAxis("bytes_for_backward", "Held for the backward pass", bytes_text),
    CostAxis("step_seconds", "Time of a training step", seconds_text),
)


@final
@dataclass(frozen=True, kw_only=True)
class Point:
    """An arm with its figures and position; ``below``: its Δm is below the plotted range."""

    name: str
    role: str
    cost: float
    delta: float
    x: float
    y: float
    dominated: bool
    below: bool

    @property
    def label(self) -> str:
        """The text next to the point."""
        return f"{self.name}  {signed_text(self.delta)} ↓" if self.below else self.name


@final
@dataclass(frozen=True, kw_only=True)
class Label:
    """Text next to its point: anchor on the baseline, bounding box, end of the leader line if it needs one."""

    point: Point
    x: float
    y: float
    anchor: str
    box: tuple[float, float, float, float]
    leader: tuple[float, float] | None


@final
@dataclass(frozen=True, kw_only=True)
class Pareto:
    """A plot of ``width`` × ``height`` pixels; ``front``: corners of the step line."""

    cost: CostAxis
    width: float
    height: float
    points: tuple[Point, ...]
    labels: tuple[Label, ...]
    front: tuple[tuple[float, float], ...]
    across: Axis
    up: Axis
    zero: float | None


Box = tuple[float, float, float, float]


def lay_out(results: Results, cost: CostAxis, width: float, height: float) -> Pareto | None:
    """Place every arm that has both figures; None if no arm has a cost above zero."""
    arms = [
        (arm, delta, price)
        for arm in results.arms
        if (delta := arm.delta) is not None and (price := cost.of(arm)) is not None
    ]
    deltas, prices = [delta for _, delta, _ in arms], [price for _, _, price in arms]
    if not any(price > 0 for price in prices):
        return None
    left, right, top, bottom = 44.0, width - 14, 28.0, height - 46
    with_zero = any(price <= 0 for price in prices)
    zero = left + 16 if with_zero else None
    across = Axis(
        *padded((price for price in prices if price > 0), log=True, part=0.07),
        left + (36 if with_zero else 0),
        right,
        log=True,
    )
    frozen = min((delta for arm, delta, _ in arms if arm.role == "frozen"), default=None)
    up = Axis(*padded([_floor(deltas, frozen), max(*deltas, 0.0)], part=0.1), bottom, top)
    # for parameters, the results already have this
    known = [arm.dominated for arm, _, _ in arms] if cost.key == "encoder_trainable" else None
    off = dominated(list(zip(deltas, prices, strict=True))) if known is None else known
    points = tuple(
        Point(
            name=arm.name,
            role=arm.role,
            cost=price,
            delta=delta,
            x=across.at(price) if price > 0 else left + 16,
            y=up.at(delta) if delta >= up.low else bottom - 9,
            dominated=out,
            below=delta < up.low,
        )
        for (arm, delta, price), out in zip(arms, off, strict=True)
    )
    front = _staircase([p for p in points if not p.dominated and not p.below], right)
    labels = _place(points, front, (left, top - 10, width - 2, bottom), up.at(0), FONT if width > 500 else 11.0)
    return Pareto(
        cost=cost,
        width=width,
        height=height,
        points=points,
        labels=labels,
        front=front,
        across=across,
        up=up,
        zero=zero,
    )


def _floor(deltas: list[float], frozen: float | None) -> float:
    """Lowest Δm drawn to scale: of all arms, or of the upper half or more if the next arm is far below.

    The frozen trunk is always drawn to scale, since arms are judged by their distance to it.
    """
    above = sorted([*deltas, 0.0], reverse=True)
    for number in range(len(above) // 2, len(above) - 1):
        far = above[number] - above[number + 1] > FAR * (above[0] - above[number])
        if far and (frozen is None or above[number] <= frozen):
            return above[number]
    return above[-1]


def _staircase(points: list[Point], right: float) -> tuple[tuple[float, float], ...]:
    corners: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p.x, p.y)):
        if corners and point.y >= corners[-1][1]:
            continue
        if corners:
            corners.append((point.x, corners[-1][1]))
        corners.append((point.x, point.y))
    return (*corners, (right, corners[-1][1])) if corners else ()


def _place(
    points: tuple[Point, ...], front: tuple[tuple[float, float], ...], area: Box, zero: float, font: float
) -> tuple[Label, ...]:
    """Find a free place for each label, the front first; a label without one is left out (points have tooltips)."""
    taken: list[Box] = [(p.x - RADIUS - 2, p.y - RADIUS - 2, p.x + RADIUS + 2, p.y + RADIUS + 2) for p in points]
    steps = [_around(*a, *b) for a, b in pairwise(front)]
    level = (area[0], zero - 1, area[2], zero + 1)
    leaders: list[Box] = []
    found = []
    for point in sorted(points, key=lambda p: (p.dominated, p.role != "adapter", p.y)):
        best: tuple[float, Box, Label] | None = None
        wide, own = text_width(point.label, font), taken[points.index(point)]
        for reach in (10, 15, 22, 30, 40, 54, 70):
            for turn in range(16):
                angle = turn * math.pi / 8
                x, y = point.x + reach * math.cos(angle), point.y + reach * math.sin(angle) * 0.9
                side = 0 if abs(math.cos(angle)) < 0.3 else math.copysign(1, math.cos(angle))
                x0 = x - wide / 2 + side * wide / 2
                box = (x0, y - font * 0.6, x0 + wide, y + font * 0.5)
                if not _inside(box, area) or any(_meet(box, other) for other in taken if other is not own):
                    continue
                if _meet(box, (point.x - RADIUS, point.y - RADIUS, point.x + RADIUS, point.y + RADIUS)):
                    continue
                worth: float = (
                    reach + 14 * sum(_meet(box, s) for s in steps) + 10 * sum(_meet(box, s) for s in (*leaders, level))
                )
                worth += 1.5 * (turn % 8 != 0) + (0.5 if turn == 8 else 0)
                if best is None or worth < best[0]:
                    far = None if reach < 20 else (min(max(point.x, box[0]), box[2]), min(max(point.y, box[1]), box[3]))
                    best = (
                        worth,
                        box,
                        Label(
                            point=point,
                            x=x,
                            y=y + font * 0.35,
                            anchor={0: "middle", 1: "start", -1: "end"}[int(side)],
                            box=box,
                            leader=far,
                        ),
                    )
        if best:
            taken.append(best[1])
            found.append(best[2])
            if best[2].leader:
                leaders.append(_around(point.x, point.y, *best[2].leader))
    return tuple(found)


def _around(x1: float, y1: float, x2: float, y2: float) -> Box:
    return min(x1, x2) - 1, min(y1, y2) - 1, max(x1, x2) + 1, max(y1, y2) + 1


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _inside(box: Box, area: Box) -> bool:
    return box[0] >= area[0] and box[1] >= area[1] and box[2] <= area[2] and box[3] <= area[3]
