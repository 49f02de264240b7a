"""Finding the files below a folder that fit a pattern: every folder is read once, however many wildcards there are.

``Path.glob`` is not used for patterns and folders of strangers: it reads a folder once for each way in which several
``**`` lead to it, and ends in a RecursionError where folders are nested deeply.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from garnish.data.patterns import MOST_LEVELS
from garnish.errors import DataError, shown

#: What makes a part of a pattern more than a name.
_WILD = re.compile(r"[*?\[]")


def files_that_fit(root: Path, pattern: str) -> Iterator[Path]:
    """The paths below a folder that fit a pattern as ``Path.glob`` has it, each once, in no order.

    Args:
        root: the folder.
        pattern: relative; ``**`` stands for any folders, links to folders left out.

    Raises:
        DataError: ``**`` leads through more than :data:`garnish.data.patterns.MOST_LEVELS` levels of folders. OSError:
            a folder that cannot be read; one that may not be read is left out.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    flags = re.IGNORECASE if os.name == "nt" else 0
    fits = [re.compile(fnmatch.translate(part), flags).fullmatch for part in parts]
    ahead = [(root, 0, _with_next({0}, parts))]  # a folder, its level, and which parts its entries may be
    while ahead:
        folder, level, places = ahead.pop()
        if level > MOST_LEVELS:
            raise DataError(f"{root}: {shown(pattern)} leads more than {MOST_LEVELS} folders deep; name them in it")
        for entry in _entries(folder, [parts[place] for place in places]):
            deeper: set[int] = set()
            for place in places:
                if parts[place] == "**":
                    deeper |= {place} if entry.is_dir() and not entry.is_symlink() else set()
                elif fits[place](entry.name) and place == len(parts) - 1:
                    yield entry
                elif fits[place](entry.name) and entry.is_dir():
                    deeper.add(place + 1)
            if deeper:
                ahead.append((entry, level + 1, _with_next(deeper, parts)))


def _with_next(places: Collection[int], parts: Sequence[str]) -> set[int]:
    """Places in a pattern, and those behind a ``**``, which may stand for no folder."""
    found = set(places)
    for place, part in enumerate(parts[:-1]):
        if place in found and part == "**":
            found.add(place + 1)
    return found


def _entries(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """What a folder holds that may fit one of some parts; names without wildcards are looked up."""
    if not any(map(_WILD.search, parts)):
        yield from (there for part in dict.fromkeys(parts) if (there := folder / part).exists())
        return
    try:
        yield from [folder / name for name in os.listdir(folder)]  # noqa: PTH208 (names are enough)
    except (PermissionError, FileNotFoundError):
        return
