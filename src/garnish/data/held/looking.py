"""What the first items of a source are, and what is odd about them: told when a data set is made of it.

Shape letters: H W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from garnish.data.dataset import Sample
from garnish.data.held.columns import IMAGE
from garnish.data.labels.uncounted import left_out
from garnish.errors import plural
from garnish.targets.target import IGNORE
from garnish.tasks.task import Task

#: Most ids that a line lists.
_LISTED = 12


@final
@dataclass(frozen=True)
class LookedAt:
    """One item that was looked at.

    Attributes:
        sample: what was made of it.
        kinds: ``image`` and task → how the item holds it.
        digest: of all numbers of the sample.
        changes: what was another when the item was read again: ``image`` or a task; empty: nothing.
    """

    sample: Sample
    kinds: Mapping[str, str]
    digest: str
    changes: str = ""


def looked_at_item(sample: Sample, kinds: Mapping[str, str], again: Sample | None = None) -> LookedAt:
    """An item with its digest, and with what differs in the same item when it is read once more."""
    return LookedAt(sample, kinds, _digest(sample), "" if again is None else difference_of(sample, again))


def lines_of(seen: Sequence[LookedAt], tasks: Mapping[str, Task]) -> list[str]:
    """What was understood of the items: a line about the pictures and one a task."""
    sizes = sorted({one.sample.size for one in seen})
    several = f"{_size(sizes[0])} to {_size(sizes[-1])}" if len(sizes) > 1 else _size(sizes[0])
    lines = [f"{IMAGE}: {_kinds(seen, IMAGE)}, {several} (height x width)"]
    for name, task in tasks.items():
        labels = [one.sample.targets[name] for one in seen if name in one.sample.targets]
        held = f"{_kinds(seen, name)}, {_numbers(labels, task)}; " if labels else ""
        lines.append(
            f"{name}: {held}{type(task).__name__}, {plural(len(labels), 'label')} in {plural(len(seen), 'item')}"
        )
    return lines


def oddities(seen: Sequence[LookedAt], tasks: Mapping[str, Task]) -> Iterator[str]:
    """What is odd about the items, which training would not notice; a line each."""
    if changed := next(((k, one.changes) for k, one in enumerate(seen) if one.changes), None):
        yield another_each_time(*changed)
    pictures = [one.sample.image.as_subclass(Tensor) for one in seen]
    if all(picture.dtype == torch.uint8 and picture.max() <= 1 for picture in pictures):
        yield (
            "the pictures hold nothing above 1 of 255, so they are black: floats in [0, 1] that became uint8, or were"
            " divided by 255 twice; give those floats"
        )
    for name, task in tasks.items():
        labels = [one.sample.targets[name] for one in seen if name in one.sample.targets]
        if not labels or any(bool(task.labelled(label).any()) for label in labels):
            continue
        outside = {why: found for label in labels for why, found in left_out(task, label).items()}
        why = "".join(f"; {found.low:g} to {found.high:g} are {words}" for words, found in outside.items())
        told = f"no pixel of the first {plural(len(labels), 'label')} of {name} counts{why}"
        yield f"{told}; correct its options: labels={{{name!r}: {{…}}}}"


def another_each_time(index: int, what: str) -> str:
    """A line about an item of which ``what`` is another when it is read again."""
    return (
        f"item {index} is another each time it is read ({what} differs); take random changes out of its transforms, and"
        " give fit augment=… for them: metrics, kept features and resumed runs need item i to stay as it is"
    )


def difference_of(one: Sample, other: Sample) -> str:
    """What differs between two samples: ``image`` or a task; empty: nothing."""
    if not _same(one.image, other.image):
        return IMAGE
    for name in {**one.targets, **other.targets}:
        pair = one.targets.get(name), other.targets.get(name)
        if pair[0] is None or pair[1] is None or not _same(pair[0], pair[1]):
            return name
    return ""


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same numbers, NaN being equal to NaN."""
    one, other = one.as_subclass(Tensor), other.as_subclass(Tensor)
    return one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()


def _digest(sample: Sample) -> str:
    made = hashlib.sha256()
    for name, values in ((IMAGE, sample.image), *sorted(sample.targets.items())):
        made.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        made.update(values.as_subclass(Tensor).contiguous().numpy().tobytes())
    return made.hexdigest()[:32]


def _kinds(seen: Sequence[LookedAt], name: str) -> str:
    return " or ".join(dict.fromkeys(one.kinds[name] for one in seen if name in one.kinds))


def _numbers(labels: Sequence[Tensor], task: Task) -> str:
    """The ids, or the ends of the numbers, of some labels."""
    if task.target.categorical:
        ids = sorted({int(value) for label in labels for value in np.unique(label.numpy())})
        told = [str(value) for value in ids if value != IGNORE]
        told = [*told[:_LISTED], *(["…"] if len(told) > _LISTED else []), *(["no label"] if IGNORE in ids else [])]
        return f"ids {', '.join(told)}"
    known = [label.as_subclass(Tensor)[task.labelled(label).as_subclass(Tensor).expand_as(label)] for label in labels]
    values = torch.cat(known)
    return f"{float(values.min()):g} to {float(values.max()):g}" if values.numel() else "no number that counts"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
