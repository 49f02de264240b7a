"""From "which picture wants which tasks" to passes through the backbone and rows within them.

Shape letters: I images of the batch, P images of a pass, R rows of a forked pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from garnish.errors import OptionError, suggest


@dataclass(frozen=True, eq=False)
class Selection:
    """Where one task finds its rows in the maps of a pass; None stands for all, a slice for rows that lie together.

    Attributes:
        images: (n,) int64 into the pass's images, for maps from below the fork.
        rows: (n,) int64 into the pass's rows, for maps from above it.
    """

    images: Tensor | slice | None
    rows: Tensor | slice | None


@dataclass(frozen=True, eq=False)
class Pass:
    """One run of the backbone.

    Attributes:
        images: (P,) int64 into the batch; None: all.
        present: owners that act; one where nothing forks.
        row_images, row_owners: (R,) int64, the rows of each owner together; None where nothing forks.
        counts: rows of each owner of ``present``; None where nothing forks and in compiled passes.
        tasks: what each task reads.
    """

    images: Tensor | slice | None
    present: tuple[int, ...]
    row_images: Tensor | None
    row_owners: Tensor | None
    counts: tuple[int, ...] | None
    tasks: Mapping[str, Selection]


def pick(x: Tensor, where: Tensor | slice | None) -> Tensor:
    """Rows of x; a copy only where they do not lie together."""
    if where is None:
        return x
    return x[where] if isinstance(where, slice) else x.index_select(0, where)


def wanted_by_image(
    tasks: Sequence[str] | Sequence[Sequence[str]] | None, num_images: int, known: Sequence[str]
) -> list[tuple[str, ...]]:
    """Normalise a ``tasks=`` argument to one tuple of task names an image.

    Raises:
        OptionError: an unknown task, or a list that is not one entry an image.
    """
    if tasks is None:
        return [tuple(known)] * num_images
    if isinstance(tasks, str):
        raise OptionError(f"tasks={tasks!r} is a string; give a list, tasks=[{tasks!r}]")
    if not isinstance(tasks, Sequence | Set) or not all(isinstance(t, str | Sequence | Set) for t in tasks):
        raise OptionError(f"tasks is {type(tasks).__name__}; give names, tasks=['seg'], or a list of them a picture")
    if not tasks and num_images:
        raise OptionError("tasks is an empty list; name some, or leave it out for all")
    shared = [t for t in tasks if isinstance(t, str)]
    if len(shared) == len(tasks) and (shared or not num_images):
        per_image = [tuple(shared)] * num_images
    else:
        per_image = [tuple(t) for t in tasks]
        if len(per_image) != num_images:
            raise OptionError(f"tasks= names tasks for {len(per_image)} pictures, the batch holds {num_images}")
    for name in {t for names in per_image for t in names}:
        if name not in known:
            raise OptionError(f"unknown task {name!r}{suggest(str(name), known)}")
    return [tuple(dict.fromkeys(t for t in known if t in names)) for names in per_image]


def rows_asked_for(
    task: str, wanted: Sequence[Sequence[str]], asked: Sequence[Sequence[str]], device: torch.device
) -> Tensor | slice | None:
    """Which of the pictures that a task was run for asked for it: they may need it for another task alone."""
    run = [number for number, names in enumerate(wanted) if task in names]
    return _index([k for k, number in enumerate(run) if task in asked[number]], len(run), device)


def plan_passes(
    wanted: Sequence[Sequence[str]],
    owner_of: Mapping[str, int],
    together: Mapping[int, int],
    device: torch.device,
    *,
    whole: bool = False,
) -> list[Pass]:
    """Group owners into passes and lay out rows, those of one owner together.

    Args:
        wanted: tasks of each image.
        owner_of: number of the owner whose adapters a task uses.
        together: owner → number of its group; owners of one group share a pass.
        device: where index tensors go.
        whole: passes fork wherever a group has several owners, name all of them and take all images, so that a
            compiled backbone sees one structure for every mix.
    """
    asked = sorted({owner_of[t] for names in wanted for t in names})
    passes = []
    for group in dict.fromkeys(together[o] for o in asked):
        members = tuple(o for o in sorted(together) if together[o] == group and (whole or o in asked))
        passes.append(_pass(wanted, owner_of, members, device, whole and len(members) > 1))
    return passes


def _pass(
    wanted: Sequence[Sequence[str]],
    owner_of: Mapping[str, int],
    owners: tuple[int, ...],
    device: torch.device,
    whole: bool,
) -> Pass:
    mine = [tuple(t for t in names if owner_of[t] in owners) for names in wanted]
    images = [i for i, names in enumerate(mine) if names or whole]
    tasks = dict.fromkeys(t for names in mine for t in names)

    of_images = {t: [p for p, i in enumerate(images) if t in mine[i]] for t in tasks}
    batch = _index(images, len(wanted), device)
    known: dict[tuple[tuple[int, ...], ...], Selection] = {}

    def selection(task: str, of_rows: list[int]) -> Selection:
        """Tasks that read the same share one, by which they are known to."""
        key = (tuple(of_images[task]), tuple(of_rows))
        if key not in known:
            mine = _index(of_rows, len(rows), device) if rows else None
            known[key] = Selection(_index(of_images[task], len(images), device), mine)
        return known[key]

    rows: list[tuple[int, int]] = []
    if len(owners) == 1:
        return Pass(batch, owners, None, None, None, {t: selection(t, []) for t in tasks})
    rows = [(p, o) for o in owners for p, i in enumerate(images) if any(owner_of[t] == o for t in mine[i])]
    of_rows = {t: [r for r, (p, o) in enumerate(rows) if o == owner_of[t] and t in mine[images[p]]] for t in tasks}
    return Pass(
        images=batch,
        present=owners,
        row_images=torch.tensor([p for p, _ in rows], dtype=torch.int64, device=device),
        row_owners=torch.tensor([owners.index(o) for _, o in rows], dtype=torch.int64, device=device),
        counts=None if whole else tuple(sum(o == owner for _, o in rows) for owner in owners),
        tasks={t: selection(t, of_rows[t]) for t in tasks},
    )


def _index(values: list[int], size: int, device: torch.device) -> Tensor | slice | None:
    if values == list(range(size)):
        return None
    if values == list(range(values[0], values[0] + len(values))):
        return slice(values[0], values[0] + len(values))
    return torch.tensor(values, dtype=torch.int64, device=device)
