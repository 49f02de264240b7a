"""The files of a folder: every folder is read once, links to folders are not followed, and the number is bounded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.errors import DataError

#: Most files and folders that are looked at, and most levels of folders.
MOST_ENTRIES, MOST_LEVELS_DEEP = 500_000, 12


@final
@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Attributes:
        root: the folder.
        files: relative paths with ``/``, sorted; hidden files and those in hidden folders left out.
        links: links to folders, which were not followed, relative.
        cut: whether there are deeper folders, which were not looked at.
    """

    root: Path
    files: tuple[str, ...]
    links: tuple[str, ...] = ()
    cut: bool = False


def scanned(root: Path) -> Scan:
    """Look at a folder and all folders below it.

    Raises:
        DataError: it is no folder, cannot be read, or holds more than :data:`MOST_ENTRIES`.
    """
    files: list[str] = []
    links: list[str] = []
    cut, count = False, 0
    ahead = [("", 0)]
    while ahead:
        place, level = ahead.pop()
        try:
            with os.scandir(root / place) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not place:
                raise DataError(f"{root}: cannot be read ({error.strerror}); check the path and its rights") from None
            continue  # a folder of somebody else, or one that has just been removed
        count += len(found)
        if count > MOST_ENTRIES:
            raise DataError(
                f"{root}: holds more than {MOST_ENTRIES:,} files and folders; give the folder of one data set, or a"
                " description of it (docs/data.md)"
            )
        for entry in found:
            name = f"{place}{entry.name}"
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            try:
                if not entry.is_dir():
                    files += [name] if entry.is_file() else []
                elif entry.is_symlink():
                    links.append(name)
                elif level >= MOST_LEVELS_DEEP:
                    cut = True
                else:
                    ahead.append((f"{name}/", level + 1))
            except OSError:  # a loop of links
                continue
    return Scan(root, tuple(sorted(files)), tuple(links), cut)
