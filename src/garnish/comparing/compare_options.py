"""The options of a comparison: the section ``compare`` of a recipe, overridden by those of ``garnish compare``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from garnish.errors import OptionError, suggest

REFERENCES = ("frozen", "single", "multi", "scratch")
CONTROLS = ("extras", "random")


@final
@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """The section ``compare`` of a recipe.

    Attributes:
        adapters: the arms: text such as ``LoRA,LoRA(rank=2),LoRA+NormTuning``, or a list of names, of
            ``{name: LoRA, rank: 2}`` and of lists of these, which are combined; None: the recipe's own ``adapter``.
        seeds: number of seeds; the first is the recipe's ``train.seed``, the others are the numbers after it.
        rates: learning rates to search for adapters, the frozen trunk and controls.
        reference_rates: learning rates to search for arms that tune the whole trunk.
        widen: how many more rates a search may try, one after the other, while its best one is the smallest or the
            largest so far; 0: none.
        references: the reference arms, of frozen, single, multi and scratch.
        controls: control arms, of extras (only what MTLoRA trains besides its adapters) and random (the first adapter
            on a random trunk).
        held_out_every: if the data have no split val, every n-th training picture is held out.
        jobs: number of runs to train in parallel, each in its own process.
        pictures: whether the report has pictures of the test set; their licence may forbid it.
        title: of the report.
        out: folder of the report.
        store: folder of the runs; None: ``.store`` in the report's folder.
        data_licence: the pictures' licence, as the report states it.

    Raises:
        OptionError: a value out of range, naming it.
    """

    adapters: object = None
    seeds: int = 3
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    reference_rates: tuple[float, ...] = (1e-5, 3e-5, 1e-4, 3e-4)
    widen: int = 2
    references: tuple[str, ...] = REFERENCES
    controls: tuple[str, ...] = ()
    held_out_every: int = 5
    jobs: int = 1
    pictures: bool = True
    title: str | None = None
    out: str | None = None
    store: str | None = None
    data_licence: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("widen", 0), ("held_out_every", 2), ("jobs", 1)):
            value = getattr(self, name)
            if value < least:
                raise OptionError(f"compare.{name}: {value} is out of range; set {least} or more")
        for name in ("rates", "reference_rates"):
            rates = getattr(self, name)
            if not rates:
                raise OptionError(f"compare.{name}: none given; name at least one learning rate, e.g. 3e-4,1e-3")
            for rate in rates:
                if not 0 < rate < math.inf:
                    raise OptionError(f"compare.{name}: {rate} is out of range; set finite values above 0")
            object.__setattr__(self, name, tuple(sorted(set(rates))))
        for name, known in (("references", REFERENCES), ("controls", CONTROLS)):
            for entry in getattr(self, name):
                if entry not in known:
                    raise OptionError(
                        f"compare.{name}: unknown {name.removesuffix('s')} {entry!r}{suggest(entry, known)}"
                    )


def read_options(section: object, given: Mapping[str, object]) -> CompareOptions:
    """The options of a recipe's section ``compare``, overridden by those of the command line.

    Raises:
        OptionError: a section that is not a mapping, an unknown option, or a value out of range.
    """
    from garnish.registry import construct

    if section is not None and not isinstance(section, Mapping):
        raise OptionError(f"compare: {section!r}; write e.g. compare: {{adapters: [LoRA, AdaptFormer], seeds: 3}}")
    values = {**(section or {}), **given}
    for name in ("rates", "reference_rates", "references", "controls"):
        if isinstance(values.get(name), str | int | float):
            values[name] = [values[name]]
    options: CompareOptions = construct(CompareOptions, values, where="compare")
    return options
