"""The candidates for a trunk: every method, at the sizes and layer placements to try.

Sizes are listed in ``Method.grid``; a method without is tried with its default options. A method with an option
``layers`` is tried on all layers, on those of attention and on those of the MLPs, if the trunk has them. With several
tasks a method is tried both shared and with a copy per task.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from garnish.backbones.backbone import Backbone
from garnish.engine.adapter import Adapter, Method, Plan
from garnish.engine.blocks import bare
from garnish.errors import OptionError
from garnish.registry import build, classes, find

#: The option that selects the layers to adapt, and the names of the placements.
_LAYERS = "layers"
_PLACES = {"attn": "attention", "mlp": "mlp"}


@final
@dataclass(frozen=True)
class Candidate:
    """A method with its options, layer placement and sharing between tasks.

    Attributes:
        method: the method with its options.
        placement: "all", "attention" or "mlp" if the method has an option for layers; else "".
        sharing: "shared" or "per task" with several tasks; else "".
        merges: it folds into the trunk's weights, so that it costs nothing at inference.
        beside: it is a side network, so the trunk keeps nothing for the backward pass.
        parts: one pass of the trunk serves all tasks, and each task owns a part.
    """

    method: Method
    placement: str = ""
    sharing: str = ""
    merges: bool = False
    beside: bool = False
    parts: bool = False

    @property
    def name(self) -> str:
        """Class name of the method."""
        return type(self.method).__name__

    @property
    def size(self) -> dict[str, object]:
        """The options that set its size: those in the method's grid."""
        return {option: getattr(self.method, option) for option in type(self.method).grid}

    @property
    def family(self) -> tuple[str, str, str]:
        """Key of the candidates that differ only in size."""
        return self.name, self.placement, self.sharing

    def exceeds(self, other: Candidate) -> bool:
        """Whether it is the same as ``other`` at that size or larger, or has a copy of that for each task."""
        return (
            (self.name, self.placement) == (other.name, other.placement)
            and other.sharing in (self.sharing, "shared")
            and self._position >= other._position
        )

    @property
    def _position(self) -> list[int]:
        return [values.index(self.size[option]) for option, values in type(self.method).grid.items()]

    def __str__(self) -> str:
        """Text such as ``LoRA rank=8, attention, per task``."""
        size = " ".join(f"{option}={value:g}" for option, value in self.size.items())
        return ", ".join(part for part in (f"{self.name} {size}".strip(), self.placement, self.sharing) if part)


@final
@dataclass(frozen=True)
class Refused:
    """A method that does not fit a trunk.

    Attributes:
        name: of the method, with its size and placement.
        reason: one line.
    """

    name: str
    reason: str


def candidates(
    trunk: Backbone, num_tasks: int, methods: Sequence[str] | None = None
) -> tuple[list[Candidate], list[Refused]]:
    """All candidates for a trunk, each family from small to large, and the methods that do not fit it.

    Args:
        trunk: a bare trunk, with or without values.
        num_tasks: number of tasks to train at once.
        methods: names; None: all.

    Raises:
        OptionError: an unknown name.
    """
    found: list[Candidate] = []
    refused: list[Refused] = []
    for name in methods if methods is not None else sorted(classes("adapters")):
        for placement, layers in _placements(trunk, _class(name)):
            for sharing in ("shared", "per task") if num_tasks > 1 else ("",):
                for size in _sizes(_class(name)):
                    options = size | layers | ({"per_task": True} if sharing == "per task" else {})
                    _try(trunk, name, options, placement, sharing, found, refused)
    return found, list({r.reason: r for r in reversed(refused)}.values())[::-1]


def _try(
    trunk: Backbone,
    name: str,
    options: dict[str, object],
    placement: str,
    sharing: str,
    found: list[Candidate],
    refused: list[Refused],
) -> None:
    grid = _class(name).grid
    try:
        method: Method = build("adapters", name, options)
        reason = method.fits(trunk)
    except OptionError as error:  # options that do not go together
        reason = str(error)
    if reason is not None:
        size = " ".join(f"{option}={value:g}" for option, value in options.items() if option in grid)
        refused.append(Refused(f"{name} {size}".strip(), reason))
        return
    plan = method.plan(trunk)
    # a copy per task makes no difference if tasks own parts anyway, or nothing is trained
    if sharing == "per task" and (plan.own is not None or plan.is_empty):
        return
    if plan.is_empty:
        sharing = ""
    parts = plan.own is not None and plan.routing == "stream"
    found.append(Candidate(method, placement, sharing, _merges(plan), plan.side is not None, parts))


def _class(name: str) -> type[Method]:
    return find("adapters", name)


def _merges(plan: Plan) -> bool:
    plain = all(type(adapter).merged is not Adapter.merged for adapter in plan.adapters.values())
    return bool(plan.adapters) and plain and not (plan.side or plan.prompts or plan.own)


def _sizes(cls: type[Method]) -> Iterator[dict[str, object]]:
    for values in itertools.product(*cls.grid.values()):
        yield dict(zip(cls.grid, values, strict=True))


def _placements(trunk: Backbone, cls: type[Method]) -> Iterator[tuple[str, dict[str, object]]]:
    """(name, options) of each choice of layers; only "all" if just one part of the blocks has linear layers."""
    if _LAYERS not in {field.name for field in dataclasses.fields(cls)}:
        yield "", {}
        return
    yield "all", {}
    linear = [
        site
        for site, module in trunk.sites_with_modules()
        if site.kind == "layer" and site.block >= 0 and isinstance(bare(module), nn.Linear)
    ]
    if {site.place for site in linear} < set(_PLACES):
        return
    for place, label in _PLACES.items():
        roles = dict.fromkeys(f"{site.place}.{site.role}" for site in linear if site.place == place)
        yield label, {_LAYERS: list(roles)}
