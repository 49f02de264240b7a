"""The rank and scale of each module of a folder, and whether PEFT would adapt it, as ``adapter_config.json`` says."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeVar

from garnish.bundles.peft.adapter_config import ALL_LINEAR, CONFIG, PeftConfig
from garnish.bundles.peft.name_patterns import NamePattern
from garnish.bundles.peft.pattern_nodes import MOST_STEPS, Name, TooMuchWork, Work
from garnish.errors import BundleError

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, kw_only=True)
class ModuleSettings:
    """What a configuration says of one module.

    Attributes:
        rank: r.
        alpha: the scale numerator α.
        targeted: whether PEFT would put an adapter there.
    """

    rank: int
    alpha: float
    targeted: bool


def settings_of(config: PeftConfig, modules: Collection[str], where: str) -> dict[str, ModuleSettings]:
    """Module → its settings.

    Args:
        config: read from a file.
        modules: names of bounded number and length, such as those of a trunk's layers.
        where: the folder's tensors, for messages.

    Raises:
        BundleError: matching the expressions with the names would take too long.
    """
    ranks = [(NamePattern.read(text), rank) for text, rank in config.rank_pattern.items()]
    alphas = [(NamePattern.read(text), alpha) for text, alpha in config.alpha_pattern.items()]
    targets, excluded = _Naming.of(config.target_modules), _Naming.of(config.exclude_modules)
    work, found = Work(), {}
    try:
        for module in modules:
            name = Name(module, work)
            found[module] = ModuleSettings(
                rank=_first(ranks, name, config.r),
                alpha=_first(alphas, name, config.lora_alpha),
                targeted=targets.holds(name) and not excluded.holds(name),
            )
    except TooMuchWork as error:
        raise BundleError(
            f"{where}: matching the expressions of {CONFIG} with {len(modules)} names takes more than {MOST_STEPS:,} "
            "steps; write names out"
        ) from error
    return found


@dataclass(frozen=True, kw_only=True)
class _Naming:
    """Which modules ``target_modules`` or ``exclude_modules`` name."""

    every: bool
    names: frozenset[str]
    pattern: NamePattern | None

    @classmethod
    def of(cls, wanted: tuple[str, ...] | str) -> _Naming:
        if not isinstance(wanted, str):
            return cls(every=False, names=frozenset(wanted), pattern=None)
        every = wanted == ALL_LINEAR
        return cls(every=every, names=frozenset(), pattern=NamePattern.read(wanted) if wanted and not every else None)

    def holds(self, name: Name) -> bool:
        if self.pattern is not None:
            return self.pattern.is_whole(name)
        return self.every or not self.names.isdisjoint(tails_of(name.text))


def tails_of(module: str) -> set[str]:
    """A name, and what stands behind each of its dots."""
    parts = module.split(".")
    return {".".join(parts[first:]) for first in range(len(parts))}


def _first(patterns: Collection[tuple[NamePattern, _Number]], name: Name, default: _Number) -> _Number:
    return next((value for pattern, value in patterns if pattern.is_tail(name)), default)
