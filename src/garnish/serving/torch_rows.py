"""Rows through a model: one pass of them all, each with tasks of its own, and what each got.

Shape letters: n rows that ask for a task, C channels of a raw output, H W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from garnish.checking.finite import odd_rows
from garnish.errors import GarnishError
from garnish.model.model import Model
from garnish.model.served import Served
from garnish.serving.engine import Outcome, Row


@final
@dataclass(frozen=True, eq=False)
class InModel:
    """What a bundle is in a model: the handle of a :class:`garnish.serving.engine.Loaded`.

    Attributes:
        names: task → its name in the model.
        part: those tasks with their owners and decoders, of the model or removed from it.
    """

    names: Mapping[str, str]
    part: Served


def run_rows(model: Model, rows: Sequence[Row]) -> list[Outcome]:
    """The outcome of each row, all of one key, in one pass; raises what the pass raises."""
    wanted = [[loaded.handle.names[task] for loaded, tasks in row.asked for task in tasks] for row in rows]
    images = torch.from_numpy(np.stack([row.picture for row in rows])).to(model.device)
    with torch.inference_mode():
        raw = model(images, wanted, served=_asked_parts(rows))
        odd = odd_rows(raw)
        arrays = {name: out.float().cpu().numpy() for name, out in raw.items()}
    seen: Counter[str] = Counter()
    outcomes: list[Outcome] = []
    for row in rows:
        found: dict[tuple[str, str], np.ndarray] = {}
        failed: GarnishError | None = None
        for loaded, tasks in row.asked:
            for task in tasks:
                name = loaded.handle.names[task]
                if seen[name] in odd.get(name, ()):
                    failed = failed or _not_finite(loaded.name, task)
                found[loaded.name, task] = arrays[name][seen[name]]
                seen[name] += 1
        outcomes.append(failed or found)
    return outcomes


def _asked_parts(rows: Sequence[Row]) -> Served:
    """The bundles that are asked, and no other: a pass takes the time of those, however many a model has."""
    tasks, owner_of, decoders = {}, {}, {}
    for handle in dict.fromkeys(loaded.handle for row in rows for loaded, _ in row.asked):
        tasks.update(handle.part.tasks)
        owner_of.update(handle.part.owner_of)
        decoders.update(handle.part.decoders)
    return Served(tasks, owner_of, decoders)


def _not_finite(bundle: str, task: str) -> GarnishError:
    return GarnishError(
        f"the output of {bundle}/{task} is not finite for this picture, though all of the model's tensors are: its"
        " numbers overflow; serve it in float32, or train it again"
    )
