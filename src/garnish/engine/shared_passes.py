"""Planning passes: from "which tasks for which picture" to runs of the trunk and the rows in each.

:func:`group_of` decides which owners share a pass, :func:`garnish.engine.loop.fork_of` where their rows fork.

Shape letters: I images of the batch, P images of a pass, R rows of a forked pass.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import final

import torch
from torch import SymInt, Tensor

from garnish.engine.context import Rows
from garnish.engine.maps import Selection, index_of
from garnish.engine.owner import Owner
from garnish.engine.trunk import Trunk
from garnish.engine.units import Body
from garnish.errors import OptionError, shown, suggest

#: Bytes of one owner's part of the stream from which owners of the first block take passes of their own. A MiT-B0 at
#: 256 pixels has half of it: pictures of four owners take about 0.75 of the processor time in one pass.
OWN_PASS_FROM = 2**20


@final
@dataclass(frozen=True, eq=False)
class Wanted:
    """Which tasks are asked of each picture.

    Attributes:
        tasks: all tasks that are asked of any picture, in the order of the model.
        by_image: the tasks of each picture; None: all of them for every picture, however many there are (the batch
            size of a graph may be dynamic).
        num_images: I; in a graph with a dynamic batch size, a ``SymInt``.
    """

    tasks: tuple[str, ...]
    by_image: tuple[tuple[str, ...], ...] | None
    num_images: int

    @classmethod
    def of(
        cls, tasks: Sequence[str] | Sequence[Sequence[str]] | None, num_images: int, known: Mapping[str, object]
    ) -> Wanted:
        """Read a ``tasks=`` argument.

        Args:
            tasks: None: all; names: these for every picture; or a list of names for each picture.
            num_images: I.
            known: the tasks of the model, in its order.

        Raises:
            OptionError: an unknown task, or a list whose length is not the number of images.
        """
        if tasks is None:
            none = isinstance(num_images, int) and not num_images  # in a graph it is a SymInt and never 0
            return cls(() if none else tuple(known), None, num_images)
        if isinstance(tasks, str):
            raise OptionError(f"tasks={tasks!r} is a string; give a list, tasks=[{tasks!r}]")
        if not isinstance(tasks, Sequence | Set) or not all(isinstance(t, str | Sequence | Set) for t in tasks):
            raise OptionError(
                f"tasks is {type(tasks).__name__}; give names, tasks=['seg'], or a list of names for each picture"
            )
        if not tasks and num_images:
            raise OptionError("tasks is an empty list; name some, or leave it out for all")
        shared = [t for t in tasks if isinstance(t, str)]
        each: list[Sequence[str]] = [t for t in tasks if not isinstance(t, str)] if len(shared) < len(tasks) else []
        if each and (shared or not isinstance(tasks, Sequence)):
            raise OptionError("tasks= names tasks for each picture: give a list of lists, with no names beside them")
        if odd := [name for names in each for name in names if not isinstance(name, str)]:
            raise OptionError(f"tasks= holds {odd[0]!r} for a picture; give it a list of names")
        if each and len(tasks) != num_images:
            raise OptionError(f"tasks= names tasks for {len(tasks)} pictures, the batch holds {num_images}")
        named = list(dict.fromkeys(t for names in each for t in names)) if each else list(dict.fromkeys(shared))
        for name in named:
            if name not in known:
                raise OptionError(f"unknown task {shown(name)}{suggest(str(name), known)}")
        if len(named) > 1:
            place = {name: position for position, name in enumerate(known)}
            named.sort(key=place.__getitem__)
        whole = cls(tuple(named), None, num_images)
        if not each or all(set(names) == set(named) for names in each):
            return whole
        return cls(whole.tasks, tuple(tuple(t for t in named if t in names) for names in each), num_images)

    def with_needed(self, needed: Callable[[Sequence[str]], tuple[str, ...]]) -> Wanted:
        """The same plus, for each picture, the tasks whose feature maps its tasks need."""
        by_image = None if self.by_image is None else tuple(map(needed, self.by_image))
        return Wanted(needed(self.tasks), by_image, self.num_images)

    def count_of(self, tasks: Set[str]) -> int:
        """Number of the pictures that any of these tasks is asked of; a ``SymInt`` in a graph."""
        if self.by_image is None:
            return self.num_images
        return sum(not tasks.isdisjoint(names) for names in self.by_image)

    def rows_for(self, task: str, asked: Wanted, device: torch.device) -> Tensor | slice | None:
        """Of the pictures that a task ran for, those that asked for it; others need it only for another task."""
        if self.by_image is None and asked.by_image is None:
            return None
        mine, theirs = (w.by_image or (w.tasks,) * self.num_images for w in (self, asked))
        run = [number for number, names in enumerate(mine) if task in names]
        return index_of([k for k, number in enumerate(run) if task in theirs[number]], len(run), device)


@final
@dataclass(frozen=True, eq=False)
class Pass:
    """One run of the trunk.

    Attributes:
        images: (P,) int64 into the batch; None: all.
        present: the owners whose adapters act; exactly one if there is no fork.
        rows: the rows of each owner; None if there is no fork. In compiled passes their counts are unknown.
        tasks: task → the rows that it reads.
    """

    images: Tensor | slice | None
    present: tuple[Owner, ...]
    rows: Rows | None
    tasks: Mapping[str, Selection]


def group_of(owner: Owner, body: Body, *, whole: bool, part_bytes: int | None = None) -> Hashable:
    """Key of the group of owners that share a pass of the trunk.

    Owners that tune the trunk in place, have prompts or task streams take a pass of their own, with all their parts;
    side networks share one pass of the bare trunk. Of the rest, those that adapt the first block share no work but
    the reading of the weights, which counts where their parts of the stream are small: a pass for each of 16 took 2.5
    times a joint one at 56 pixels, 1.10 at 224 (docs/benchmarks.md, "Ways of a mixed batch"), and holds the
    maps of one owner at a time. In compiled models (``whole``) one graph must serve every mix. Owners whose pictures
    become other input never share a pass, nor do parts of owners whose first layer has filters of its own.

    Args:
        owner: the owner.
        body: the trunk's modules.
        whole: the pass is compiled.
        part_bytes: of the owner's part of the stream in the first block; None: not known, as in a graph.
    """
    planes, key = owner.root.given.key, _group_of(owner, body, whole, part_bytes)
    return key if planes is None else (planes, key)


def _group_of(owner: Owner, body: Body, whole: bool, part_bytes: int | None) -> Hashable:
    filters = owner.root.others is not None
    if owner.runs_apart or (filters and (owner.parent is not None or owner.side is not None)):
        return owner.root.number
    if owner.root.side is not None:
        return "side networks"
    is_large = part_bytes is None or part_bytes >= OWN_PASS_FROM
    alone = not whole and is_large and owner.first is not None and owner.first < body.end_of_first_block()
    return owner.number if alone else "rows"


def stream_bytes(trunk: Trunk, height: int | SymInt, width: int | SymInt) -> int | None:
    """About the bytes of one picture's stream in the first block, in float32; None for a size that a graph leaves.

    It is that of the first stage's end: a CNN whose first block halves the sides begins with more.

    Args:
        trunk: the trunk.
        height: of the padded picture.
        width: likewise.
    """
    if not (isinstance(height, int) and isinstance(width, int)):
        return None
    first = trunk.features[0]
    halves = 2 if trunk.merged else 1  # read after a merging, which halves the sides and doubles the channels
    return int(height * width / (first.stride / halves) ** 2 * first.channels / halves * 4)


def plan_passes(
    wanted: Wanted,
    owner_of: Mapping[str, Owner],
    body: Body,
    device: torch.device,
    *,
    whole: bool = False,
    picture_bytes: int | None = None,
) -> Iterator[Pass]:
    """Group owners into passes and order the rows of each pass by owner.

    Args:
        wanted: tasks of each image.
        owner_of: every task → the owner whose adapters it uses.
        body: the trunk's modules.
        device: of the index tensors.
        whole: a pass holds all owners of its group and all images, whatever is asked, so that a compiled trunk sees
            one structure for every mix.
        picture_bytes: of one picture's stream in the first block; None: not known, as in a graph.
    """
    asks: dict[Owner, set[str]] = {}
    for task in wanted.tasks:
        asks.setdefault(owner_of[task], set()).add(task)

    def key_of(owner: Owner) -> Hashable:
        count = wanted.count_of(asks.get(owner, set()))
        known = None if picture_bytes is None or not isinstance(count, int) else count * picture_bytes
        return group_of(owner, body, whole=whole, part_bytes=known)

    everyone = set(owner_of.values()) if whole else asks
    keys = {owner: key_of(owner) for owner in sorted(everyone, key=lambda owner: owner.number)}
    groups: dict[Hashable, list[Owner]] = {key: [] for owner, key in keys.items() if owner in asks}
    for owner, key in keys.items():
        if key in groups:
            groups[key].append(owner)
    for members in groups.values():
        tasks = tuple(task for task in wanted.tasks if owner_of[task] in members)
        own = Wanted(tasks, wanted.by_image, wanted.num_images)
        if wanted.by_image is None:
            yield _uniform(own, owner_of, tuple(members), device, whole)
        else:
            yield _mixed(own, owner_of, tuple(members), device, whole and len(members) > 1)


def _uniform(
    wanted: Wanted, owner_of: Mapping[str, Owner], present: tuple[Owner, ...], device: torch.device, whole: bool
) -> Pass:
    """The same tasks for all images; nothing is listed per image, so their number may be dynamic in a graph."""
    number = wanted.num_images
    asked = [owner for owner in present if any(owner_of[task] is owner for task in wanted.tasks)]
    if len(present) == 1:
        alone = Selection(asked[0], None, None)
        return Pass(None, present, None, dict.fromkeys(wanted.tasks, alone))
    rows = Rows.whole(number, tuple(asked), device)
    found = {owner: Selection(owner, None, rows.span(position)) for position, owner in enumerate(asked)}
    if whole:
        places = torch.tensor([present.index(owner) for owner in asked], device=device)
        rows = Rows(rows.images, places.index_select(0, rows.owners), present, None)
    return Pass(None, present, rows, {task: found[owner_of[task]] for task in wanted.tasks})


def _mixed(
    wanted: Wanted, owner_of: Mapping[str, Owner], present: tuple[Owner, ...], device: torch.device, whole: bool
) -> Pass:
    """Different tasks for different images."""
    assert wanted.by_image is not None
    mine = [tuple(t for t in names if t in wanted.tasks) for names in wanted.by_image]
    images = [i for i, names in enumerate(mine) if names or whole]
    tasks = list(dict.fromkeys(task for names in mine for task in names))  # heads run in this order
    of_images = {t: [p for p, i in enumerate(images) if t in mine[i]] for t in tasks}
    rows = [
        (p, k)
        for k, owner in enumerate(present)
        for p, i in enumerate(images)
        if any(owner_of[t] is owner for t in mine[i])
    ]
    known: dict[tuple[tuple[int, ...], ...], Selection] = {}

    def selection(task: str) -> Selection:
        """The rows that a task reads; tasks that read the same rows get the same object."""
        owner = owner_of[task]
        of_rows = [r for r, (p, k) in enumerate(rows) if present[k] is owner and task in mine[images[p]]]
        key = (tuple(of_images[task]), tuple(of_rows))
        if key not in known:
            where = index_of(of_rows, len(rows), device) if len(present) > 1 else None
            known[key] = Selection(owner, index_of(of_images[task], len(images), device), where)
        return known[key]

    table = None
    if len(present) > 1:
        table = Rows(
            images=torch.tensor([p for p, _ in rows], dtype=torch.int64, device=device),
            owners=torch.tensor([k for _, k in rows], dtype=torch.int64, device=device),
            present=present,
            counts=None if whole else tuple(sum(k == position for _, k in rows) for position in range(len(present))),
        )
    batch = index_of(images, wanted.num_images, device)
    return Pass(batch, present, table, {task: selection(task) for task in tasks})
