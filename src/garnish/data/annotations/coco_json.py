"""What COCO's two formats share: their pictures and categories, and telling which of the two a file is."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from garnish.checking.plain_data import Json
from garnish.errors import DataError, shown
from garnish.files.json_entries import json_entries
from garnish.files.pictures import MAX_SIDE
from garnish.files.regular import check_regular

#: What to do about a file that cannot be read.
REMEDY = "export the annotations again"
#: Keys of the file that hold lists.
LISTS = ("images", "annotations", "categories")


def is_coco(file: Path, head: bytes, *, panoptic: bool) -> bool:
    """Whether a file is one of COCO's instances, or else of its panoptic segments.

    Which of the two it is stands behind the list of pictures, so the whole file is searched for one key.
    """
    if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return False
    try:
        check_regular(file, 2**63 - 1)
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.find(b'"images"') < 0 or data.find(b'"annotations"') < 0 or data.find(b'"categories"') < 0:
                return False
            return (data.find(b'"segments_info"') >= 0) == panoptic
    except (OSError, ValueError):  # reading it says what is wrong
        return False


@final
@dataclass
class CocoLists:
    """Pictures and categories, as the file lists them.

    Attributes:
        file: for messages.
        names: id of a picture → its name.
        sizes: id of a picture → (H, W), None where the file states none.
        categories: id of a category → its name.
    """

    file: Path
    names: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)

    def add_picture(self, entry: Json) -> None:
        """Take an entry of ``images``.

        Raises:
            DataError: it lacks what it must have, or has an id or a name that another has.
        """
        place = f"{self.file}: images, entry {len(self.names) + 1}"
        if not isinstance(entry, Mapping):
            raise DataError(f"{place}: expected a mapping, got {shown(entry)}; {REMEDY}")
        key = picture_id(entry.get("id"), f"{place}: id")
        name = entry.get("file_name")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{place}: file_name is {shown(name)}, expected the name of a picture; {REMEDY}")
        if key in self.names:
            raise DataError(f"{place}: id {key} is also that of {shown(self.names[key])}; give each picture its own")
        self.names[key] = name
        self.sizes[key] = _size(entry, place)

    def add_category(self, entry: Json) -> None:
        """Take an entry of ``categories``; raises as :meth:`add_picture`. Names may be alike: they are one class."""
        place = f"{self.file}: categories, entry {len(self.categories) + 1}"
        if not isinstance(entry, Mapping):
            raise DataError(f"{place}: expected a mapping, got {shown(entry)}; {REMEDY}")
        key, name = json_whole(entry.get("id"), f"{place}: id"), entry.get("name")
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            raise DataError(f"{place}: name is {shown(name)}, expected the name of a class; {REMEDY}")
        if key in self.categories:
            raise DataError(f"{place}: id {key} is also that of {shown(self.categories[key])}; give each its own")
        self.categories[key] = str(name)

    def annotations(self) -> Iterator[tuple[str, Json]]:
        """(file and entry, entry) of each of ``annotations``; pictures and categories are taken as they come.

        All of them are known when it has ended; categories may stand behind the annotations that name them.

        Raises:
            DataError: as :meth:`add_picture`; two pictures of one name, so that nobody knows whose annotations are.
        """
        number = 0
        for key, entry in json_entries(self.file, LISTS, REMEDY):
            if key == "images":
                self.add_picture(entry)
            elif key == "categories":
                self.add_category(entry)
            elif key == "annotations":
                number += 1
                yield f"{self.file}: annotations, entry {number}", entry
        self._refuse_one_name()

    def classes(self) -> tuple[str, ...]:
        """Names of the categories in the order of their ids, each once."""
        return tuple(dict.fromkeys(name for _, name in sorted(self.categories.items())))

    def _refuse_one_name(self) -> None:
        seen: dict[str, str] = {}
        for key, name in self.names.items():
            if seen.setdefault(name, key) != key:
                raise DataError(f"{self.file}: images {seen[name]} and {key} are both {shown(name)}; keep one of them")

    def category(self, value: Json, place: str) -> str:
        """The name of a category by its id; raises DataError if there is none."""
        key = json_whole(value, f"{place}: category_id")
        if key not in self.categories:
            raise DataError(f"{place}: category_id {key} is none of `categories`; {REMEDY}")
        return self.categories[key]


def json_whole(value: Json, place: str) -> int:
    """A whole number that may be written as 3.0; raises DataError for anything else."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise DataError(f"{place} is {shown(value)}, expected a whole number; {REMEDY}")
    return value


def picture_id(value: Json, place: str) -> str:
    """The id of a picture, a whole number or text, as text that tells ``3`` from ``"3"``."""
    return f"'{value}'" if isinstance(value, str) else str(json_whole(value, place))


def is_crowd(entry: Mapping[str, Json], place: str) -> bool:
    """``iscrowd`` of an entry, 0 if it has none; raises DataError for anything but 0 and 1."""
    value = entry.get("iscrowd", 0)
    if value not in (0, 1) or isinstance(value, list | dict | str):
        raise DataError(f"{place}: iscrowd is {shown(value)}, expected 0 or 1; {REMEDY}")
    return bool(value)


def _size(entry: Mapping[str, Json], place: str) -> tuple[int, int] | None:
    if entry.get("height") is None and entry.get("width") is None:
        return None
    height, width = (json_whole(entry.get(side), f"{place}: {side}") for side in ("height", "width"))
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise DataError(f"{place}: {width}x{height} is no size of a picture; {REMEDY}")
    return height, width
