"""The options of a comparison: the section ``compare`` of a recipe, overridden by those of ``garnish compare``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, final

from garnish.checking.arguments import Options
from garnish.checking.bounds import Processes, Rate
from garnish.checking.plain_data import integers, lengths
from garnish.errors import OptionError, shown, suggest

REFERENCES = ("frozen", "single", "multi", "scratch")
CONTROLS = ("extras", "random")

#: Learning rates to search.
Rates = Annotated[tuple[Rate, ...], lengths(1, 64)]


@final
@dataclass(frozen=True, kw_only=True)
class CompareOptions(Options):
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
    seeds: Annotated[int, integers(1, 10_000)] = 3
    rates: Rates = (3e-4, 1e-3, 3e-3, 1e-2)
    reference_rates: Rates = (1e-5, 3e-5, 1e-4, 3e-4)
    widen: Annotated[int, integers(0, 64)] = 2
    references: tuple[str, ...] = REFERENCES
    controls: tuple[str, ...] = ()
    held_out_every: Annotated[int, integers(2, 10**12)] = 5
    jobs: Processes = 1
    pictures: bool = True
    title: str | None = None
    out: str | None = None
    store: str | None = None
    data_licence: str | None = None

    def __post_init__(self) -> None:
        for name in ("rates", "reference_rates"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        for name, known in (("references", REFERENCES), ("controls", CONTROLS)):
            for entry in getattr(self, name):
                if entry not in known:
                    raise OptionError(
                        f"compare.{name}: unknown {name.removesuffix('s')} {shown(entry)}{suggest(entry, known)}"
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
