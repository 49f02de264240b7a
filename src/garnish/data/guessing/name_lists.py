"""Lists that lie in a folder: names of the pictures of a split, and names of the classes with their colours."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import final

from garnish.data.guessing.words import split_of
from garnish.files.pictures import PICTURE_SUFFIXES
from garnish.files.regular import read_regular

#: Files that hold names of classes, the surest first.
_CLASS_FILES = (
    *("labelmap.txt", "label_map.txt", "label_colors.txt", "class_names.txt", "classes.txt", "labels.txt", "names.txt"),
    *("obj.names", "_classes.csv", "class_dict.csv", "classes.csv", "labels.csv"),
)
#: Largest list of classes and of names, bytes, and most of both that are read.
_MOST_CLASSES, _MOST_NAMES, _MOST_LISTS = 2**16, 64 * 2**20, 64


@final
@dataclass(frozen=True)
class ClassList:
    """The names of classes that a file lists.

    Attributes:
        file: relative path.
        colours: class → its colour, None where the file states none; in the order of the file.
        numbers: class → its number, where the file states numbers; empty: they are counted from 0.
    """

    file: str
    colours: Mapping[str, tuple[int, int, int] | None]
    numbers: Mapping[str, int]


def class_list(root: Path, files: Collection[str]) -> ClassList | None:
    """The list of classes that lies in a folder or one level below, None if there is none that can be read."""
    ranked = sorted(
        (file for file in files if file.count("/") <= 1 and PurePosixPath(file).name.lower() in _CLASS_FILES),
        key=lambda file: (_CLASS_FILES.index(PurePosixPath(file).name.lower()), file.count("/"), file),
    )
    for file in ranked:
        if (text := _text(root / file, _MOST_CLASSES)) is None:
            continue
        found = _classes(text.splitlines(), PurePosixPath(file).suffix == ".csv")
        if found is not None:
            return ClassList(file, *found)
    return None


def _classes(lines: list[str], commas: bool) -> tuple[dict[str, tuple[int, int, int] | None], dict[str, int]] | None:
    colours: dict[str, tuple[int, int, int] | None] = {}
    numbers: dict[str, int] = {}
    for line in lines:
        text = line.split("#", 1)[0].strip() if not commas else line.strip()
        if not text:
            continue
        text = re.sub(r"^(\d+)\s+(?=\D)", r"\1\t", text)
        parts = [
            part.strip().strip('"') for part in re.split(r"[,;:\t]" if commas else r"[:,\t]| +(?=\d+(?:\s|$))", text)
        ]
        words = [part for part in parts if part and not part.isdigit()]
        levels = [int(part) for part in parts if part.isdigit() and len(part) < 6]
        if not words and len(levels) == 1:
            return None  # a list of numbers
        if commas and not levels and not colours:
            continue  # the head of a table
        name = words[0] if words else ""
        if not name or name in colours or len(name) > 100:
            return None
        colours[name] = colour = _colour(parts)
        if parts[0].isdigit() and len(levels) > (3 if colour else 0):
            numbers[name] = levels[0]
    if not 1 <= len(colours) <= 256:
        return None
    complete = len(numbers) == len(colours) and len(set(numbers.values())) == len(numbers)
    return colours, numbers if complete else {}


def _colour(parts: list[str]) -> tuple[int, int, int] | None:
    """The last three levels that stand side by side in a line, None if there are none."""
    for at in range(len(parts) - 3, -1, -1):
        three = parts[at : at + 3]
        if all(part.isdigit() and len(part) < 4 and int(part) <= 255 for part in three):
            return int(three[0]), int(three[1]), int(three[2])
    return None


def split_lists(root: Path, files: Collection[str], names: Collection[str]) -> dict[str, str]:
    """Split → the text file that lists the names of its pictures; empty where there are none, or none for "train".

    Args:
        root: the folder.
        files: its files.
        names: names of all its pictures, without endings.
    """
    known = {PurePosixPath(name).name for name in names} | set(names)
    found: dict[str, list[str]] = {}
    lists = [file for file in files if file.lower().endswith(".txt") and split_of(PurePosixPath(file).stem)]
    for file in sorted(lists, key=lambda file: (file.count("/"), file))[:_MOST_LISTS]:
        split = split_of(PurePosixPath(file).stem)
        if split is None or (text := _text(root / file, _MOST_NAMES)) is None:
            continue
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines and all(_name(line) in known for line in lines):
            found.setdefault(split, []).append(file)
    if "train" not in found:
        return {}
    return {split: found[split][0] for split in ("train", "val", "test") if split in found}


def _name(line: str) -> str:
    ending = PurePosixPath(line).suffix
    return line[: -len(ending)] if ending.lower() in PICTURE_SUFFIXES else line


def _text(file: Path, most: int) -> str | None:
    try:
        return read_regular(file, most).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
