"""Telling what annotation files hold that is no area: of one file at once, of files of one picture each together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from garnish.errors import plural, with_count
from garnish.output import logger

_log = logger(__name__)


@final
@dataclass
class _Tally:
    """What files hold of one kind: how many in all, in how many files, and the first of these."""

    first: Path
    files: int = 0
    count: int = 0


@final
@dataclass
class _Gathered:
    files: int = 0
    kinds: dict[str, _Tally] = field(default_factory=dict)


_gathered: ContextVar[_Gathered | None] = ContextVar("gathered", default=None)
#: Folder and kind of what was told of files of one picture.
_told: set[tuple[Path, str]] = set()


def tell_left_out(file: Path, skipped: Mapping[str, int], *, one_a_picture: bool) -> None:
    """Log what a file that was read holds and that is no area.

    Of files of one picture, which are read again and again, the first of a folder is told for each kind of thing, or
    all together (:func:`told_together`).

    Args:
        file: that was read.
        skipped: what it is, in the singular → how many.
        one_a_picture: whether every picture has such a file.
    """
    if not one_a_picture:
        if skipped:
            _log.warning("%s: left out, as they are no areas: %s", file, _listed(skipped))
        return
    gathered = _gathered.get()
    if gathered is not None:
        gathered.files += 1
        for kind, count in skipped.items():
            tally = gathered.kinds.setdefault(kind, _Tally(file))
            tally.files, tally.count = tally.files + 1, tally.count + count
    elif new := {kind: count for kind, count in skipped.items() if (file.parent, kind) not in _told}:
        _told.update((file.parent, kind) for kind in new)
        told = "%s: left out, as they are no areas: %s; of other files of this folder such are not told"
        _log.warning(told, file, _listed(new))


@contextmanager
def told_together(place: str) -> Iterator[None]:
    """Within a ``with`` block files of one picture are gathered, and told in one line at its end.

    Args:
        place: of the files, for the message: their pattern.
    """
    made = _Gathered()
    token = _gathered.set(made)
    try:
        yield
    finally:
        _gathered.reset(token)
    if made.kinds:
        told = (
            f"{with_count(one.count, kind)} in {plural(one.files, 'file')} (e.g. {one.first.name})"
            for kind, one in sorted(made.kinds.items())
        )
        _told.update((one.first.parent, kind) for kind, one in made.kinds.items())
        files = plural(made.files, "file")
        _log.warning("%s: left out of %s, as they are no areas: %s", place, files, ", ".join(told))


def _listed(kinds: Mapping[str, int]) -> str:
    return ", ".join(with_count(count, kind) for kind, count in kinds.items())
