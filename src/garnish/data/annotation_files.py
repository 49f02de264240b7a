"""Opening annotation files: which format one is, what it holds, and which of its entries is some picture's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import final

from garnish.data.annotations.annotation_format import (
    HEAD_BYTES,
    AnnotatedPicture,
    AnnotationFormat,
    Annotations,
)
from garnish.data.channels import BAND_SUFFIXES
from garnish.data.left_out import tell_left_out
from garnish.errors import DataError, OptionError, one_line, shown, suggest
from garnish.files.pictures import PICTURE_SUFFIXES
from garnish.files.regular import open_regular
from garnish.registry import classes

#: Files of many pictures are kept until they have this many bytes together, but a few of them always, since every
#: picture asks again; of files of one picture the last few are kept, which several tasks of a picture ask for.
_KEPT_BYTES, _KEPT_FEW = 2**30, 8
_ENDINGS = frozenset((*PICTURE_SUFFIXES, *BAND_SUFFIXES))


@final
@dataclass(frozen=True, eq=False)
class AnnotationFile:
    """A file that was read.

    Attributes:
        file: its path.
        format: of the file.
        held: what it holds.
        by_stem: last part of a picture's name without its suffix → (parts of the name, name) of each that ends so.
        size: bytes.
    """

    file: Path
    format: type[AnnotationFormat]
    held: Annotations
    by_stem: Mapping[str, Sequence[tuple[tuple[str, ...], str]]]
    size: int

    def entry(self, picture: str) -> str | None:
        """The name under which the file has a picture; None: it does not have it.

        Of the entries with the picture's own name, folders and suffix left out, the one is taken whose path has most
        parts in common from the end on; of two alike, one that has no other folders.

        Args:
            picture: its path or name, without suffix.

        Raises:
            DataError: two entries fit alike.
        """
        if self.format.one_a_picture:
            return next(iter(self.held.pictures), None)
        wanted = _parts(picture)
        best: list[str] = []
        most = (0, False)
        for parts, name in self.by_stem.get(wanted[-1], ()):
            common = next(
                (
                    k
                    for k, (one, other) in enumerate(zip(reversed(parts), reversed(wanted), strict=False))
                    if one != other
                ),
                min(len(parts), len(wanted)),
            )
            rank = (common, common == len(parts))
            if rank > most:
                best, most = [name], rank
            elif rank == most and name not in best:
                best.append(name)
        if len(best) > 1:
            raise DataError(
                f"{self.file}: {shown(best[0])} and {shown(best[1])} may both be the picture {shown(picture)}; lay"
                " pictures into the folders that the file names, or annotate each in a file of its split"
            )
        return best[0] if best else None

    def picture(self, picture: str) -> AnnotatedPicture:
        """What the file says of a picture; raises DataError if it says nothing, or as :meth:`entry`."""
        name = self.entry(picture)
        if name is None:
            raise DataError(f"{self.file}: {self.lacking(picture)}")
        return self.held.pictures[name]

    def lacking(self, picture: str) -> str:
        """Words of a message: that a picture is not in the file, and which are."""
        if not self.held.pictures:
            return f"names no pictures ({self.format.tool}); export the annotations again, or correct `labels`"
        known = list(self.held.pictures)
        return (
            f"names no picture {shown(picture)}, but {len(known)} such as {shown(known[0])}; file names must be alike"
            " but for folders and suffix"
        )


def formats() -> dict[str, type[AnnotationFormat]]:
    """All formats by their ``kind``; raises OptionError if two have one kind."""
    found: dict[str, type[AnnotationFormat]] = {}
    known: Mapping[str, type[AnnotationFormat]] = classes("annotations")
    for name, cls in known.items():
        if found.setdefault(cls.kind, cls) is not cls:
            raise OptionError(f"formats {found[cls.kind].__name__} and {name} have the kind {cls.kind!r}; rename one")
    return found


def format_of(file: Path) -> type[AnnotationFormat] | None:
    """The format of a file, told by its suffix and its first bytes; None: it is of none.

    Raises:
        DataError: it cannot be read, or several formats take it for theirs.
    """
    fitting = {kind: cls for kind, cls in formats().items() if file.suffix.lower() in cls.suffixes}
    if not fitting:
        return None
    try:
        with open_regular(file, 2**63 - 1) as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({one_line(error, 120)}); restore it") from None
    found = {kind: cls for kind, cls in fitting.items() if cls.recognised(file, head)}
    if len(found) > 1:
        raise DataError(f"{file}: may be {' or '.join(found)}; write `format:` and one of them")
    return next(iter(found.values()), None)


def read_annotations(file: Path, kind: str | None = None) -> AnnotationFile:
    """What an annotation file holds; a file that did not change is not read again.

    What the file holds that is no area is logged when it is read (:func:`tell_left_out`).

    Args:
        file: its path.
        kind: of its format; None: the one that it is recognised as.

    Raises:
        DataError: missing, damaged, of no known format or of several. OptionError: an unknown kind.
    """
    try:
        stat = file.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({one_line(error, 120)}); restore it") from None
    key = (str(file), kind, stat.st_size, stat.st_mtime_ns)
    for kept in (_shared, _single):
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
    known = formats()
    if kind is not None and kind not in known:
        raise OptionError(f"format: unknown format {shown(kind)}{suggest(kind, known)}")
    cls = format_of(file) if kind is None else known[kind]
    if cls is None:
        tools = ", ".join(f"{one.tool} ({name})" for name, one in known.items())
        raise DataError(f"{file}: is of no known format; known: {tools}. Write `format:` if it is one of these")
    held = cls.read(file)
    by_stem: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for name, told in held.pictures.items():
        for known_as in (name, *told.also):
            parts = _parts(_without_suffix(known_as))
            by_stem.setdefault(parts[-1], []).append((parts, name))
    made = AnnotationFile(file, cls, held, by_stem, stat.st_size)
    tell_left_out(file, held.skipped, one_a_picture=cls.one_a_picture)
    _keep(key, made)
    return made


_Key = tuple[str, str | None, int, int]
_shared: OrderedDict[_Key, AnnotationFile] = OrderedDict()
_single: OrderedDict[_Key, AnnotationFile] = OrderedDict()


def _keep(key: _Key, made: AnnotationFile) -> None:
    kept = _single if made.format.one_a_picture else _shared
    kept[key] = made
    while len(kept) > _KEPT_FEW and (kept is _single or sum(each.size for each in kept.values()) > _KEPT_BYTES):
        kept.popitem(last=False)


def _parts(name: str) -> tuple[str, ...]:
    """Folders and name of a path, either slash between them."""
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", ".")) or ("",)


def _without_suffix(name: str) -> str:
    """A name without the suffix of a picture; "frame.0001" keeps its number."""
    ending = PurePosixPath(name.replace("\\", "/")).suffix
    return name[: -len(ending)] if ending.lower() in _ENDINGS else name
