"""AnnotationFormat: base class of the formats of annotation tools, and what a file of one holds.

Plain files are read, never a vendor's programs. Shape letters: H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, final

from garnish.data.annotations.shape import Shape

#: First bytes of a file that :meth:`AnnotationFormat.recognised` is given.
HEAD_BYTES = 1 << 16


@final
@dataclass(frozen=True, eq=False)
class AnnotatedPicture:
    """What a file says of one picture.

    Attributes:
        size: (H, W) that the file states; None: it states none.
        shapes: gives its objects for a picture of some (H, W), as the file orders them, one by one; errors name
            file and object.
        files: further files that :attr:`shapes` opens; kept features are those of files that did not change.
        also: further names that the picture may have, as before a server renamed it.
    """

    size: tuple[int, int] | None
    shapes: Callable[[tuple[int, int]], Iterable[Shape]]
    files: tuple[Path, ...] = ()
    also: tuple[str, ...] = ()


@final
@dataclass(frozen=True, eq=False)
class Annotations:
    """What an annotation file holds.

    Attributes:
        classes: names of the classes, each once, in the order of their numbers, also of those that no object has; empty
            where the file has only numbers.
        pictures: name of the picture as the file has it, with folders and suffix where it has them → what it says.
        overlap: which of two objects of equal ``order`` lies above: the later one, or the smaller one.
        skipped: what the file holds that is no area, in the singular → how many ("box": 12); told once.
        objects: class → how many objects it has in the file; a class of none is left out. None: not counted, so that a
            class that the task does not have is found when a picture is read, and not when the set is opened.
    """

    classes: tuple[str, ...]
    pictures: Mapping[str, AnnotatedPicture]
    overlap: Literal["later", "smaller"] = "later"
    skipped: Mapping[str, int] = field(default_factory=dict)
    objects: Mapping[str, int] | None = None


class AnnotationFormat(ABC):
    """One format. Subclasses have class variables and class methods only; no instances are made.

    Attributes:
        kind: its name, for ``format:`` in descriptions and for ``garnish convert``.
        tool: who writes it, for messages: "CVAT for images 1.1".
        suffixes: of its files, in lower case.
        one_a_picture: whether every picture has a file of its own; else one file tells of many.
    """

    kind: ClassVar[str]
    tool: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    one_a_picture: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def recognised(cls, file: Path, head: bytes) -> bool:
        """Whether a file is of this format.

        Args:
            file: its path, whose suffix is one of :attr:`suffixes`.
            head: its first :data:`HEAD_BYTES` bytes.
        """

    @classmethod
    @abstractmethod
    def read(cls, file: Path) -> Annotations:
        """What a file holds; masks and polygons are made when they are asked for.

        A file of a stranger: sizes are bounded, nothing is unpickled, paths in it are names and are not opened.

        Raises:
            DataError: no such file, damaged, another format, or what cannot be read as it is meant; one line that says
                where in the file, which value, and what to do.
        """
