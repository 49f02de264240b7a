"""The tasks that a model serves at one moment, each with its owner and decoder, and additions to them.

Both classes are immutable and replaced as a whole, so a pass keeps using the tasks that existed when it began.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from garnish.engine.owner import Owner
from garnish.engine.planes import named_bands
from garnish.errors import OptionError, shown, suggest
from garnish.model.decoders import Decoder, needed, without
from garnish.pictures.bands import Bands
from garnish.tasks.task import Task


@final
@dataclass(frozen=True, eq=False)
class Addition:
    """Tasks with owners and decoders, built for a model's trunk but not added to the model yet.

    Attributes:
        tasks: name → task.
        owners: the owners, which hold their parts.
        decoders: task → decoder.
    """

    tasks: Mapping[str, Task]
    owners: tuple[Owner, ...]
    decoders: Mapping[str, Decoder]

    def members(self) -> Iterator[Owner]:
        """Yield the owners, each followed by its parts."""
        for owner in self.owners:
            yield from (owner, *owner.parts)

    def modules(self) -> Iterator[nn.Module]:
        """Yield all modules that hold tensors: decoders and owners."""
        yield from (decoder.module for decoder in dict.fromkeys(self.decoders.values()))
        yield from self.members()

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by stored name, as :meth:`garnish.model.model.Model.own_tensors`."""
        found: dict[str, Tensor] = {}
        for owner in self.members():
            found.update(owner.tensors())
        for decoder in self.decoders.values():
            found.update(decoder.tensors())
        return found


@final
@dataclass(frozen=True, eq=False)
class Served:
    """The tasks that a model serves, with their owners and decoders.

    Attributes:
        tasks: name → task, in the order they were added.
        owner_of: task → the owner whose adapters it uses: the task's own part if it has one.
        decoders: task → its decoder.
    """

    tasks: Mapping[str, Task]
    owner_of: Mapping[str, Owner]
    decoders: Mapping[str, Decoder]

    def owner(self, task: str) -> Owner:
        """The owner whose adapters a task uses; raises :class:`OptionError` for an unknown task."""
        if task not in self.owner_of:
            raise OptionError(f"no task {shown(task)}{suggest(task, self.tasks)}")
        return self.owner_of[task]

    def bands_of(self, tasks: Iterable[str]) -> Bands:
        """The bands of pictures that some tasks take; 8-bit RGB if there are no tasks.

        Raises:
            OptionError: tasks of different bands, which no picture has at once.
        """
        found = dict(self.by_bands(tasks))
        if len(found) < 2:
            return next(iter(found), Bands())
        told = "; ".join(f"{', '.join(names)}: {named_bands(bands.names)}" for bands, names in found.items())
        raise OptionError(f"tasks take pictures of different bands or ranges ({told}); ask for those of one at a time")

    def by_bands(self, tasks: Iterable[str]) -> list[tuple[Bands, tuple[str, ...]]]:
        """Bands of pictures, each with the tasks that take them, in the order given."""
        found: dict[Bands, tuple[str, ...]] = {}
        for task in tasks:
            bands = self.owner_of[task].bands
            found[bands] = (*found.get(bands, ()), task)
        return list(found.items())

    def parts(self, tasks: Iterable[str]) -> list[Owner | Decoder]:
        """The owners (each after the one it is a part of) and decoders that some tasks use."""
        wanted = set(tasks)
        acting = needed(self.decoders, [task for task in self.tasks if task in wanted])
        owners = [self.owner_of[task] for task in acting]
        both = [member for owner in owners for member in (owner.root, owner)]
        return list(dict.fromkeys([*both, *(self.decoders[task] for task in acting)]))

    def check_new(self, tasks: Mapping[str, Task]) -> None:
        """Raise :class:`OptionError` if tasks cannot be added under these names."""
        if not tasks:
            raise OptionError("tasks is empty; name at least one, e.g. tasks={'seg': garnish.Semantic(classes=11)}")
        for name in tasks:
            if name in self.tasks:
                raise OptionError(f"task {name!r} is there already; give the new one another name")
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
                raise OptionError(f"task name {name!r}: use letters, digits, '-' and '_', a letter first")

    def plus(self, addition: Addition) -> Served:
        """A copy with an addition."""
        used = {task: member for member in addition.members() for task in member.tasks}  # parts after their owner
        return Served(
            {**self.tasks, **addition.tasks}, {**self.owner_of, **used}, {**self.decoders, **addition.decoders}
        )

    def minus(self, tasks: Sequence[str]) -> tuple[Served, list[Owner]]:
        """A copy without some tasks, and the owners that are removed with them.

        Raises:
            OptionError: an unknown task, or one that shares adapters or a decoder with a task that would stay.
        """
        gone = set(tasks)
        for name in tasks:
            if name not in self.tasks:
                raise OptionError(f"remove: unknown task {shown(name)}{suggest(name, self.tasks)}")
        roots = list(dict.fromkeys(self.owner_of[name].root for name in tasks))
        sharing = [("adapters", owner.tasks) for owner in roots]
        sharing += [("a decoder", self.decoders[name].tasks) for name in tasks]
        for what, together in sharing:
            if left := [name for name in together if name not in gone]:
                there = ", ".join(name for name in together if name in gone)
                raise OptionError(f"remove: {there} shares {what} with {', '.join(left)}; name all of them")
        return Served(without(self.tasks, gone), without(self.owner_of, gone), without(self.decoders, gone)), roots
