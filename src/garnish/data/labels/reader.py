"""Reader: base class of label readers, with the options of label files and the steps of opening and decoding them.

Shape letters: H W pixels, C channels of the target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np

from garnish.checking.arguments import Options
from garnish.checking.plain_data import Json
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.errors import DataError, OptionError, shown, suggest
from garnish.files.label_files import open_label, refuse_lossy
from garnish.targets.target import Target
from garnish.tasks.task import Task

_ORIENTATIONS = ("upright", "stored")
#: Types of numbers that a reader may give.
_HELD = [np.dtype(name) for name in ("?", "u1", "i1", "i2", "i4", "i8", "f4", "f8")]


@dataclass(frozen=True, kw_only=True)
class Reader(Options, ABC):
    """One way of reading labels. Subclasses are frozen dataclasses; their fields are the options of data descriptions.

    Attributes:
        labels: templates of the file, with ``{name}`` and ``{split}``; the first that holds a picture's label is read.
        orientation: "upright": labels match the upright picture, after each is turned by its own EXIF orientation;
            "stored": they match the picture's pixels as stored, and are turned with it. null: upright, and
            ``garnish check`` warns of labels whose EXIF orientation differs from their picture's.
    """

    #: Its name for ``kind:`` in a description.
    kind: ClassVar[str]
    #: The kind of target that it makes; it can be used by tasks with this kind.
    target: ClassVar[type[Target]]
    #: Whether it is used if no ``kind`` is given and several readers make the task's kind of target.
    default: ClassVar[bool] = False
    #: Option that selects this reader if it is given and ``kind`` is not.
    chosen_by: ClassVar[str | None] = None
    #: What ``from:`` calls it; readers of different files may have one source.
    source: ClassVar[str | None] = None
    #: Whether one file may hold the labels of many pictures, so that its template needs no ``{name}``.
    shared: ClassVar[bool] = False
    #: Whether :meth:`decode` takes the colours of a palette picture, and not its indices.
    palette_colours: ClassVar[bool] = False

    labels: tuple[str, ...]
    orientation: str | None = None

    def __post_init__(self) -> None:
        if self.orientation not in (None, *_ORIENTATIONS):
            given = str(self.orientation)
            raise OptionError(f"orientation: unknown orientation {shown(given)}{suggest(given, _ORIENTATIONS)}")

    @classmethod
    def suffixes(cls) -> frozenset[str]:
        """Suffixes, in lower case, of the files that it reads and no other reader does; it is used for them."""
        return frozenset()

    @property
    def exact(self) -> bool:
        """Whether values must be exact, as ids must: off by one is another class. Lossy files are then rejected."""
        return False

    @property
    def by_pixel(self) -> bool:
        """Whether a pixel's target follows from that pixel's number alone, so that windows of a file can be decoded."""
        return False

    def check_task(self, task: Task) -> None:
        """Raise :class:`~garnish.errors.OptionError`, starting with the option, if options do not fit the task."""
        return

    def check_file(self, file: Path, task: Task, pictures: Sequence[str]) -> None:
        """Raise DataError if a file of labels cannot be of the task; asked once when a set is opened.

        Args:
            file: of a template without ``{name}`` each file, else the first picture's.
            task: the task of the targets.
            pictures: of the split, those that the file holds the labels of, as in :meth:`load`.
        """
        return

    def holds(self, file: Path, picture: str) -> bool:
        """Whether there is a label of a picture.

        Args:
            file: what the template leads to.
            picture: as in :meth:`load`.

        Raises:
            DataError: a file of many pictures that cannot be read, or does not say which of its entries it is.
        """
        return file.is_file()

    def lacking(self, file: Path, picture: str) -> str:
        """What stands behind the file's name in a message that a picture has no label there, and what to do."""
        return "; correct the template or leave the task out"

    def files(self, file: Path, picture: str) -> tuple[Path, ...]:
        """All files that the label of a picture is read from; kept features are those of files that did not change.

        Args:
            file: one that holds the label.
            picture: as in :meth:`load`.
        """
        return (file,)

    def resolved(self, task: Task) -> Mapping[str, Json]:
        """The options in canonical form, equal if two descriptions mean the same; caches and runs compare them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def guess(cls, evidence: LabelEvidence) -> Guess | None:
        """What label files of a folder without a description may be, if this reader can read them; None: it cannot.

        Of all readers' guesses the surest is taken: 0.5 and more by itself, less is asked. Do not guess where another
        kind of label has the same numbers: answer with a question that names the option to write.

        Args:
            evidence: some files of one pattern.
        """
        return None

    def load(self, file: Path, picture: str, size: tuple[int, int] | None) -> tuple[np.ndarray, int]:
        """Open a label file; :meth:`decode` then makes the target.

        Args:
            file: the label file.
            picture: name of the picture, which replaces ``{name}``; of a reader that is ``shared`` the picture's path
                below the data set's folder, without suffix.
            size: (H, W) of the picture that labels match, which is its stored size where ``orientation`` is "stored";
                None if it cannot be read.

        Returns:
            The values (H, W) or (H, W, channels of the file), already turned upright unless ``orientation`` is
            "stored", and the file's EXIF orientation, 1 if the format has none.

        Raises:
            DataError: a file that cannot be read.
        """
        raw, facts = open_label(file, colours=self.palette_colours, upright=self.orientation != "stored")
        return raw, 1 if facts is None else facts.orientation

    @abstractmethod
    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """Values from :meth:`load` → those of :attr:`target`: (H, W) int64 ids, else (C, H, W) float32; writeable.

        Args:
            raw: not empty.
            file: for messages.
            task: the task of the target.

        Raises:
            DataError: values that the options do not cover; the message names the option that would.
        """


def decode(raw: np.ndarray, reader: Reader, file: Path, task: Task) -> np.ndarray:
    """Decode the values of a label file with :meth:`Reader.decode`, after checking that this is possible.

    Raises:
        DataError: as that; an empty array; a lossy file where values must be exact; a reader that gives anything but
            (H, W) or (C, H, W) numbers.
    """
    if reader.exact:
        refuse_lossy(file)
    return decode_numbers(raw, reader, file, task)


def decode_numbers(raw: np.ndarray, reader: Reader, file: Path, task: Task) -> np.ndarray:
    """As :func:`decode`, of numbers that need not be those of a file; ``file`` is their name in messages."""
    kind = type(reader).__name__
    if not isinstance(raw, np.ndarray):
        raise DataError(f"{file}: {kind}.load gave {type(raw).__name__}, no array and orientation; correct the reader")
    if raw.size == 0:
        raise DataError(f"{file}: holds no pixels; write the label again")
    with np.errstate(all="ignore"):  # numbers beyond float32 become infinite, which is looked for
        values = reader.decode(raw, file, task)
    if not isinstance(values, np.ndarray) or values.ndim not in (2, 3) or values.dtype.newbyteorder("=") not in _HELD:
        told = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise DataError(
            f"{file}: {kind}.decode gave {told}; correct the reader: (H, W) whole numbers, or (C, H, W) floats"
        )
    return np.require(values, values.dtype.newbyteorder("="), ["C", "W"])
