"""The arms of a comparison: names, methods and learning rates, read from the recipe and the options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

from garnish import registry
from garnish.comparing.compare_options import CompareOptions
from garnish.engine.adapter import Method
from garnish.errors import OptionError, shown, suggest
from garnish.recipes.overrides import parse_value

Role = Literal["adapter", "frozen", "single", "multi", "scratch", "control"]
Trunk = Literal["pretrained", "random"]
Groups = tuple[tuple[str, ...], ...]
FULL = "FullFineTuning"


@final
@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm of a comparison: a row of the report.

    Attributes:
        name: unique within the comparison.
        role: "adapter", a kind of reference, or "control".
        methods: the methods that adapt the trunk.
        trunk: whether its weights are the recipe's, or random (different for each seed).
        rates: learning rates to search, ascending.
        groups: the tasks of each of its models: all in one model, or one model per task.
    """

    name: str
    role: Role
    methods: tuple[Method, ...]
    trunk: Trunk = "pretrained"
    rates: tuple[float, ...]
    groups: Groups

    @property
    def is_by_task(self) -> bool:
        """Whether each task has its own model, and so its own learning rate."""
        return self.role == "single"

    def plain_methods(self) -> list[dict[str, object]]:
        """The methods in the form of a recipe's section ``adapter``."""
        return [registry.flat(method) for method in self.methods]


@final
@dataclass(frozen=True)
class ArmRun:
    """One training run: an arm, the tasks of one of its models, a learning rate and a seed."""

    arm: str
    tasks: tuple[str, ...]
    rate: float
    seed: int

    def __str__(self) -> str:
        return f"{self.arm}, {'+'.join(self.tasks)}, rate {self.rate:g}, seed {self.seed}"


def arms_of(options: CompareOptions, own: object, tasks: Sequence[str]) -> list[Arm]:
    """All arms, in the order in which they are trained.

    Args:
        options: the section ``compare``.
        own: the recipe's section ``adapter``, used as the only arm if the options name none.
        tasks: names of the tasks.

    Raises:
        OptionError: an unknown method or option, or two arms that are the same.
    """
    together = (tuple(tasks),)

    def made(name: str, role: Role, *methods: Method, groups: Groups = together, trunk: Trunk = "pretrained") -> Arm:
        whole = any(type(method).__name__ == FULL for method in methods)
        rates = options.reference_rates if whole else options.rates
        return Arm(name=name, role=role, methods=methods, trunk=trunk, rates=rates, groups=groups)

    def named(name: str) -> Method:
        method: Method = registry.build("adapters", name)
        return method

    given = adapters_of(options.adapters if options.adapters is not None else own)
    adapters = [made(name, "adapter", *methods) for name, methods in given]
    first, last = [], []
    if "frozen" in options.references:
        first.append(made("heads only", "frozen", named("Frozen")))
    if "single" in options.references:
        first.append(made("full, one task each", "single", named(FULL), groups=tuple((task,) for task in tasks)))
    if "multi" in options.references and len(tasks) > 1:
        last.append(made("full, all tasks", "multi", named(FULL)))
    if "scratch" in options.references:
        last.append(made("full from scratch", "scratch", named(FULL), trunk="random"))
    if "extras" in options.controls:
        last.append(made("extras alone", "control", named("Extras")))
    if "random" in options.controls and adapters:
        last.append(made(f"{adapters[0].name}, random trunk", "control", *adapters[0].methods, trunk="random"))
    arms = [*first, *adapters, *last]
    for number, arm in enumerate(arms):
        for other in arms[:number]:
            same = (arm.methods, arm.trunk, arm.groups) == (other.methods, other.trunk, other.groups)
            if arm.name == other.name or (same and "single" not in (arm.role, other.role)):
                raise OptionError(f"compare.adapters: {arm.name} is the same arm as {other.name}; name it once")
    return arms


def adapters_of(given: object) -> list[tuple[str, tuple[Method, ...]]]:
    """Parse the arms in a text or a list to (name, methods).

    Raises:
        OptionError: neither a text nor a list, an unknown method or option, no arm.
    """
    entries = _split(given, ",") if isinstance(given, str) else given
    if isinstance(entries, Mapping):
        entries = [entries]
    if not isinstance(entries, list | tuple) or not entries:
        raise OptionError(f"compare.adapters: {shown(given)}; name methods, e.g. LoRA,LoRA(rank=2),AdaptFormer")
    found = []
    for entry in entries:
        parts = _split(entry, "+") if isinstance(entry, str) else entry if isinstance(entry, list | tuple) else [entry]
        read = [_entry(part) for part in parts]
        methods = tuple(registry.build("adapters", n, o, where=f"compare.adapters: {n}") for n, o in read)
        found.append((" + ".join(_label(name, options) for name, options in read), methods))
    return found


def _entry(given: object) -> tuple[str, dict[str, object]]:
    """Name and options of ``LoRA``, ``LoRA(rank=2)`` or ``{name: LoRA, rank: 2}``."""
    if isinstance(given, Mapping) and isinstance(given.get("name"), str):
        return given["name"], {str(key): value for key, value in given.items() if key != "name"}
    if not isinstance(given, str) or not given.strip():
        raise OptionError(f"compare.adapters: {shown(given)} names no method; write e.g. LoRA(rank=2)")
    name, bracket, rest = given.strip().partition("(")
    if not bracket:
        return _known(name), {}
    if not rest.endswith(")"):
        raise OptionError(f"compare.adapters: {given.strip()!r}: no closing bracket; write e.g. LoRA(rank=2)")
    options = {}
    for part in _split(rest[:-1], ","):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise OptionError(f"compare.adapters: {given.strip()!r}: {part!r} sets nothing; write e.g. LoRA(rank=2)")
        options[key.strip()] = parse_value(value.strip())
    return _known(name), options


def _known(name: str) -> str:
    known = registry.classes("adapters")
    if name.strip() not in known:
        raise OptionError(f"compare.adapters: unknown adapter {name.strip()!r}{suggest(name.strip(), known)}")
    return name.strip()


def _label(name: str, options: Mapping[str, object]) -> str:
    """The name of an arm, such as ``LoRA rank=2``."""
    return " ".join([name, *(f"{key}={_short(value)}" for key, value in options.items())])


def _short(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_short(entry) for entry in value)
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _split(text: str, at: str) -> list[str]:
    """Split text at ``at`` outside of brackets; empty parts are left out."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == at and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
