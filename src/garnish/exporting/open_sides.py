"""Which sides of adapter and head tensors may differ between the bundles that one graph serves.

Nothing has to be declared: owners and heads are built anew with one option, or the number of outputs, changed at a
time. Where only sides of tensors differ then, these are left open when the graph is traced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch

from garnish.bundles.specs import Specs
from garnish.engine.adapter import Method
from garnish.errors import GarnishError
from garnish.exporting.slots import named_tensors
from garnish.model.model import Model
from garnish.tasks.task import Task

Shapes = Mapping[str, torch.Size]


def open_sides(model: Model) -> dict[str, set[int]]:
    """Name of a slot (:mod:`garnish.exporting.slots`) → its sides that may differ; none of the others.

    Whether a graph really leaves them open is decided when it is traced.
    """
    specs = Specs.of(model, list(model.tasks))
    own = _shapes(model, specs)
    assert own is not None
    found: dict[str, set[int]] = {}
    for other in _others(specs):
        shapes = _shapes(model, other)
        if shapes is None or shapes.keys() != own.keys():
            continue
        if any(len(shapes[name]) != len(shape) for name, shape in own.items()):
            continue
        for name, shape in own.items():
            differ = {side for side, (a, b) in enumerate(zip(shape, shapes[name], strict=True)) if a != b}
            found.setdefault(name, set()).update(differ)
    return {name: sides for name, sides in found.items() if sides}


def _others(specs: Specs) -> Iterator[Specs]:
    """The same with one thing changed: an option of a method, or the number of outputs of every task."""
    for number, owner in enumerate(specs.owners):
        for place, method in enumerate(owner.methods):
            for changed in _changed(method):
                other = owner._replace(methods=[*owner.methods[:place], changed, *owner.methods[place + 1 :]])
                owners = [*specs.owners[:number], other, *specs.owners[number + 1 :]]
                yield dataclasses.replace(specs, owners=owners)
    tasks = {name: cast(Task, SimpleNamespace(channels=task.channels + 1)) for name, task in specs.tasks.items()}
    yield dataclasses.replace(specs, tasks=tasks)


def _changed(method: Method) -> Iterator[Method]:
    """The method with another value of each whole number, and of each option that its grid names."""
    for name in (field.name for field in dataclasses.fields(method)):
        value = getattr(method, name)
        others: Sequence[Any] = ()
        if type(value) is int and value > 0:
            others = (value + 1, 2 * value)
        if name in method.grid:
            others = (*others, *(v for v in method.grid[name] if v != value))
        for other in others:
            try:
                yield dataclasses.replace(method, **{name: other})
            except GarnishError:  # a value that the method does not take
                continue


def _shapes(model: Model, specs: Specs) -> Shapes | None:
    """Name → shape of what a bare model on the same trunk would be given; None if it cannot be built."""
    with torch.random.fork_rng(devices=[]):
        try:
            made = Model(model.backbone).build(specs.owners, specs.tasks, specs.heads, specs.groups)
        except GarnishError:  # a width that this trunk does not take
            return None
    tensors = named_tensors(list(made.members()), dict.fromkeys(made.decoders.values()))
    return {name: tensor.shape for name, tensor in tensors.items()}
