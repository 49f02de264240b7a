"""Check "orientation": EXIF orientation in a picture and not in its labels, or the other way round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

from garnish.data.picture_findings import turned_apart
from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_of
from garnish.doctor.upright_tag import with_upright_tag
from garnish.files.orientation import swaps_sides
from garnish.tasks.task import Task

_APART, _SIDES = "apart", "sides"


@final
class Orientation(Check):
    """Pictures that are turned by EXIF when they are shown, with labels that are not.

    Where the sides are swapped, sizes tell which of both a label fits: then it is certain, and the picture's tag can be
    taken away. Else both fit, and the description has to say which is meant.
    """

    name: ClassVar[str] = "orientation"
    finds: ClassVar[str] = (
        "pictures that EXIF turns when they are shown, with labels of the pixels as they are stored, or the reverse"
    )
    level: ClassVar[Level] = "warning"
    fixes: ClassVar[Mapping[str, str]] = {
        "untag": "the EXIF orientation of the picture (JPEG) becomes 1, so that it is shown as its labels are; no pixel"
        " changes"
    }

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Pictures, with all labels."""
        return [()]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """Task → whether sizes tell ("sides") or not ("apart"), with the words for it; None: nothing is turned."""
        if not seen.files or seen.problem is not None or not seen.dataset.bands.is_rgb:
            return None
        size = (seen.image.shape[-2], seen.image.shape[-1])
        found: dict[str, tuple[str, str]] = {}
        for task in seen.files:
            stored = seen.stored(task)
            if stored is None or stored.ndim < 2:
                continue
            turned = seen.reader(task).orientation is None and swaps_sides(seen.orientation) and size[0] != size[1]
            if turned and stored.shape[:2] == size[::-1]:
                found[task] = (_SIDES, "")
            elif seen.target(task) is None or (swaps_sides(seen.orientation) and size[0] != size[1]):
                continue  # sizes that only fit the picture as it is shown leave no doubt
            elif told := turned_apart(seen.labels, task):
                found[task] = (_APART, told)
        if not found:
            return None
        alone = all(task in found and found[task][0] == _SIDES for task in seen.files)
        return found, alone and seen.file.suffix.lower() in (".jpg", ".jpeg")

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for pictures of swapped sides, one for each task of which both fit."""
        sides = [one for one in seen if any(kind == _SIDES for kind, _ in one.kept[0].values())]
        for mendable in (True, False):
            if those := [(0.0, one) for one in sides if one.kept[1] is mendable]:
                yield fault_of(
                    cls,
                    those,
                    "EXIF turns it on its side when it is shown, and its labels fit the pixels as they are stored",
                    "take the orientation away from the picture, or write `orientation: stored` for the task if all"
                    " labels are so",
                    of=len({one.name for one in seen}),
                    level="error",
                    fix="untag" if mendable else None,
                )
        apart: dict[str, list[tuple[float, Seen]]] = {}
        words: dict[str, str] = {}
        for one in seen:
            for task, (kind, told) in one.kept[0].items():
                if kind == _APART:
                    apart.setdefault(task, []).append((0.0, one))
                    words[task] = told
        for task, found in apart.items():
            what, _, remedy = words[task].partition("; ")
            yield fault_of(cls, found, f"labels like it {what}", remedy, of=len(found), tasks=(task,))

    @classmethod
    def fixed(cls, fix: str, file: Path, seen: Looked, tasks: tuple[str, ...]) -> bytes:
        """The JPEG with the orientation 1."""
        return with_upright_tag(file)
