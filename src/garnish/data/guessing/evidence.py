"""What readers of labels are shown when a folder has no description, and what they answer.

Shape letters: H W pixels, C channels of a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.guessing.words import Meaning, meaning_of

#: Most distinct numbers or colours of all files that are kept; of more, files are no id maps.
MOST_LEVELS = 1024


@final
@dataclass(frozen=True)
class Levels:
    """The numbers that many files hold, of which :class:`LabelEvidence` keeps a few.

    Attributes:
        files: how many were read.
        values: the distinct whole numbers in ascending order, or colours as 65536 R + 256 G + B; None: more than
            :data:`MOST_LEVELS`, floats that are not whole, or files of several kinds.
        coloured: whether a file has three channels that differ.
        low: the smallest finite number.
        high: the largest finite number.
        nan: whether a file holds NaN.
        infinite: whether a file holds infinite numbers.
    """

    files: int
    values: tuple[int, ...] | None
    coloured: bool
    low: float
    high: float
    nan: bool = False
    infinite: bool = False


@final
@dataclass(frozen=True, eq=False)
class LabelEvidence:
    """Some label files of one folder or pattern.

    Attributes:
        place: the pattern that leads to them, with ``{split}`` and ``{name}``: "train/depth/{name}.png".
        files: the files that were opened, evenly spaced over all of the training split; at least one.
        count: how many files there are in all.
        arrays: the stored numbers of each, (H, W) or (H, W, C), upright; palette pictures give their indices. Empty for
            files that are no pictures or arrays, such as those of annotation tools.
        palettes: of each file the (256, 3) uint8 colours of its palette, None if it has none.
        levels: the numbers of up to 2,000 files; None where ``arrays`` is empty.
        lossy: how a file was compressed with loss, so that its numbers are not exact ("JPEG"); None: all are exact.
        listed: class names and what else lies beside the labels: names of ``classes.txt``, ``labelmap.txt``,
            ``labels.txt``, in their order → (r, g, b), or None where the file states no colour.
        numbers: class → its id, where that list states ids; empty: it states none.
        list_file: the file of ``listed``, relative to the folder; None: there is none.
    """

    place: str
    files: Sequence[Path]
    count: int
    arrays: Sequence[np.ndarray]
    palettes: Sequence[np.ndarray | None]
    levels: Levels | None = None
    lossy: str | None = None
    listed: Mapping[str, tuple[int, int, int] | None] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)
    list_file: str | None = None

    @property
    def meaning(self) -> Meaning | None:
        """What the words of ``place`` say that the files are; None: nothing."""
        return meaning_of(self.place)


@final
@dataclass(frozen=True)
class Guess:
    """What label files may be.

    Attributes:
        task: name of the task's class: "Semantic".
        name: what the task may be called in the description: "seg".
        options: options of the task and of the reader, but for ``task`` and ``labels``.
        sure: from 0 to 1; the largest is taken. Below 0.5: a description is not written by itself.
        why: the numbers that it was told by, one line: "16-bit numbers from 412 to 9876, 3.1 % zero: millimetres".
        question: what files do not tell and the user is to answer, with the option to write, one line; None: nothing.
    """

    task: str
    name: str
    options: Mapping[str, Json]
    sure: float
    why: str
    question: str | None = None
