"""What the suites of methods run over: every method on every family, shared and owned by each task.

The cases are read from the folders (see ``tiny.py``). Methods with their default options make the full product, which
is marked slow; variants and lists of methods run on two families. The fast suite holds each of them on two families,
once shared and once per task (variants and lists once in all), and one method on every family.
"""

from __future__ import annotations

import re
import zlib

import pytest

import tiny
from garnish import registry
from garnish.engine.adapter import Plan
from garnish.model.model import Model

#: one tiny trunk of each class of backbone
FAMILIES = tuple({cls: short for short, (cls, _, _) in tiny.BACKBONES.items()}.values())
#: tokens with a prefix, and maps in windows
FAST = ("dinov2", "swin")
#: how near "near the identity" is, over the largest value, where ``tiny.NEAR`` knows no better
NEAR_AT_MOST = 0.5
#: runs on every family in the fast suite
EVERYWHERE = "LoRA"


def label(case: str, short: str, per_task: bool) -> str:
    return f"{case}-{short}-{'per_task' if per_task else 'shared'}"


def is_fast(case: str, short: str, per_task: bool) -> bool:
    """Of the two families one is shared and the other per task; which of them differs by the case's name."""
    turn = zlib.crc32(case.encode()) % 2 == 0
    mine = {(FAST[0], turn), (FAST[1], not turn)}
    if case not in registry.classes("adapters"):
        mine = {(FAST[1], True)} if turn else {(FAST[0], False)}
    return (short, per_task) in mine or (case == EVERYWHERE and per_task)


def triples() -> list[tuple[str, str, bool]]:
    """(case, family, per task) that must work: all that no method refuses (test_adapters_refused.py)."""
    found = []
    for case in tiny.method_cases():
        plain = case in registry.classes("adapters")
        for short in FAMILIES:
            for per_task in (False, True):
                # variants and lists: shared on one family, per task on the other
                taken = plain or (short, per_task) in {(FAST[0], False), (FAST[1], True)}
                if taken and not tiny.refusals(case, short):
                    found.append((case, short, per_task))
    return found


def product(*, fast_on: tuple[str, ...] = FAMILIES, only_fast: bool = False) -> list:
    """Parameters of a test, slow but on families of ``fast_on``; ``only_fast`` leaves the slow ones out."""
    cases = []
    for triple in triples():
        fast = is_fast(*triple) and triple[1] in fast_on
        if fast or not only_fast:
            marks = [] if fast else [pytest.mark.slow]
            cases.append(pytest.param(*triple, id=label(*triple), marks=marks))
    return cases


NAMES = ("case", "short", "per_task")
every = pytest.mark.parametrize(NAMES, product())
every_fast = pytest.mark.parametrize(NAMES, product(only_fast=True))
#: for what takes seconds: fast on one family, and on none
every_costly = pytest.mark.parametrize(NAMES, product(fast_on=FAST[:1]))
every_slow = pytest.mark.parametrize(NAMES, product(fast_on=()))


def made(case: str, short: str, per_task: bool, *, own: bool = True, tasks=tuple(tiny.TASKS)) -> Model:
    return tiny.model(short, tiny.methods(case, per_task=per_task), own=own, tasks=tasks)


def trains(case: str) -> bool:
    """Whether a case is to change the backbone's maps: references of heads only do not."""
    return not all(m.may_be_empty for m in tiny.methods(case, per_task=False))


def plans(case: str, short: str, per_task: bool) -> list[Plan]:
    """What the methods of a case plan, made apart from any model."""
    return [m.plan(tiny.backbone(short)) for m in tiny.methods(case, per_task=per_task)]


def near_the_identity(model: Model) -> float:
    """How far from the identity the methods may start: 0 unless one says that it starts near it, or elsewhere."""
    said = [
        type(m).__name__
        for m in model.owners[0].methods
        if re.search("near the identity|not start at the identity", " ".join((m.__doc__ or "").split()))
    ]
    return max((tiny.NEAR.get(name, NEAR_AT_MOST) for name in said), default=0.0)
