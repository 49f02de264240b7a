"""Check: base class of the doctor's checks.

A check looks at every picture, in whichever process, and keeps a few numbers of it; then it judges the numbers of all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.errors import OptionError, shown
from garnish.tasks.task import Task


@final
@dataclass(frozen=True, eq=False)
class Seen:
    """What one check keeps of one picture.

    Attributes:
        split: of the picture.
        name: of the picture.
        file: the picture's file.
        labels: task → label file.
        kept: what :meth:`Check.look` gave.
        of: tasks of the set by name; the same mapping for all pictures of a split.
    """

    split: str
    name: str
    file: Path
    labels: Mapping[str, Path]
    kept: Any
    of: Mapping[str, Task]


class Check(ABC):
    """One check. Subclasses have class variables and class methods only; no instances are made.

    What :meth:`look` or :meth:`judge` raises beside a DataError is reported as an error of the check.

    Attributes:
        name: as it is told and as ``--only`` names it: "shift".
        finds: what it finds, a line for the docs: "labels that lie some pixels beside their picture".
        level: of its findings where they are no errors by nature; "hint" unless docs/check.md has 0.9 or more of it.
        fixes: name of a fix → what it does, a line; :meth:`fixed`, which must then be overridden, does it.
    """

    name: ClassVar[str]
    finds: ClassVar[str]
    level: ClassVar[Level] = "hint"
    fixes: ClassVar[Mapping[str, str]] = {}

    @classmethod
    @abstractmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """What it looks at, of the tasks of a set: [("seg",), ("parts",)], or pairs; [()]: pictures alone; []: nothing.

        Tasks are chosen by their kind of target (``task.target``) or class, never by their name.
        """

    @classmethod
    @abstractmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """What it keeps of one picture for one entry of :meth:`over`: small, picklable; None: nothing to keep.

        Called in worker processes, also for pictures without labels of these tasks. Some milliseconds for a picture of
        640 x 480.

        Raises:
            DataError: the picture cannot be read; other checks tell that.
        """

    @classmethod
    @abstractmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """The findings, from what was kept of all pictures of all splits, in the order of splits and names.

        Called in the first process, once for each entry of :meth:`over` of which something was kept.
        """

    @classmethod
    def fixed(cls, fix: str, file: Path, seen: Looked, tasks: tuple[str, ...]) -> bytes:
        """The bytes of a mended file, of the same suffix, for ``--fix``; the file itself is left as it is.

        Args:
            fix: one of :attr:`fixes`, as the fault names it.
            file: the copy of one of the fault's files, which an earlier mend may have changed already.
            seen: the picture that it belongs to.
            tasks: those of the fault.

        Raises:
            DataError: the file cannot be mended, in part or as a whole; it is copied as it is, and the line told.
        """
        raise OptionError(f"check {cls.name}: has no fix {shown(fix)}; leave it out of `fixes`, or override `fixed`")
