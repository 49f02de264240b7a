"""Where the pictures of an Ultralytics description are, as patterns: folders, lists of paths, or several of them.

Ultralytics finds labels by replacing the last folder ``images`` of a picture's path; what lies in no such folder has
its labels beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import final

from garnish.checking.plain_data import Json
from garnish.data.finding import files_that_fit
from garnish.errors import DataError, OptionError, one_line, shown
from garnish.files.path_text import given_path
from garnish.files.pictures import PICTURE_SUFFIXES, is_picture_file
from garnish.files.regular import read_regular
from garnish.output import logger

_log = logger(__name__)

_IMAGES = "images"
_SPLITS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}
#: Largest list of pictures, in bytes.
_MOST_LIST = 2**26


@final
@dataclass(frozen=True)
class PicturePlaces:
    """Where pictures are.

    Attributes:
        root: absolute; what the patterns start at.
        images: pattern of the pictures.
        splits: split → its folder, or the names of its pictures.
        stem: the pattern of a label without its ending; ``{images}`` is the folder of labels, if there is one.
    """

    root: Path
    images: str
    splits: Mapping[str, Json]
    stem: str

    def labels(self, folder: str, ending: str) -> str:
        """Template of labels in a folder that lies where ``images`` does."""
        return self.stem.replace("{images}", folder) + ending

    @property
    def has_folders(self) -> bool:
        """Whether pictures lie below a folder ``images``, so that labels lie in folders of their own."""
        return "{images}" in self.stem

    def folder(self, name: str) -> Path:
        """The folder of the training labels of a kind."""
        train = self.splits["train"]
        place = self.stem.replace("{images}", name).removesuffix("{name}")
        return self.root / (place.replace("{split}", train) if isinstance(train, str) else place)


def placed(given: Mapping[str, Json], source: str, base: Path) -> PicturePlaces:
    """Find the pictures of the splits.

    Args:
        given: the content of the file.
        source: its name, for messages.
        base: its folder.

    Raises:
        DataError: a folder or list that does not exist, or pictures in several folders ``images``.
        OptionError: paths that are no text.
    """
    stated = {split: _stated(given, keys, source) for split, keys in _SPLITS.items()}
    if not stated["train"]:
        raise OptionError(f"{source}: train: names no folder of pictures; write `train: images/train`")
    root = _root(given.get("path"), stated["train"], source, base)
    places = {split: [_place(root, text) for text in texts] for split, texts in stated.items() if texts}
    for split, found in list(places.items()):
        if absent := next((place for place in found if not place.exists()), None):
            if split == "train":
                raise DataError(
                    f"{source}: train: no folder or list {absent}; correct `path` or `train`, or fetch the set"
                )
            _tell(f"{source}: {split}: no folder or list {absent}, so there is no such split")
            del places[split]
    alone = {split: found[0] for split, found in places.items() if len(found) == 1 and found[0].is_dir()}
    if len(alone) == len(places) and (pattern := _pattern(alone)) is not None:
        return pattern
    return _listed({split: _pictures(found, root, source) for split, found in places.items()}, source)


def _stated(given: Mapping[str, Json], keys: Sequence[str], source: str) -> list[str]:
    """The folders and lists that a split names."""
    value = next((given[key] for key in keys if given.get(key)), None)
    found = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) and text for text in found):
        raise OptionError(
            f"{source}: {keys[0]}: expected a folder, a .txt of paths or a list of them, got {shown(value)}"
        )
    return [str(given_path(text, f"{source}: {keys[0]}", DataError)) for text in found]


def _root(path: Json, train: Sequence[str], source: str, base: Path) -> Path:
    """The folder of the set: as ``path`` says, else that of the file, whichever has the training pictures."""
    if not isinstance(path, str | None):
        raise OptionError(f"{source}: path: expected the name of a folder, got {shown(path)}")
    here = Path(os.path.normpath(base.absolute()))
    stated = here if not path else Path(os.path.normpath(here / given_path(path, f"{source}: path", DataError)))
    if _place(stated, train[0]).exists():
        return stated
    if _place(here, train[0]).exists():
        _tell(f"{source}: path: no {shown(train[0])} in {stated}; taken from the folder of this file, {here}")
        return here
    raise DataError(
        f"{source}: train: no folder or list {_place(stated, train[0])}; correct `path` or `train`, or fetch the set"
    )


def _place(root: Path, text: str) -> Path:
    """A folder or list below the root; a leading ``../`` is left out where that alone leads somewhere."""
    place = Path(os.path.normpath(root / text))
    shorter = Path(os.path.normpath(root / text.removeprefix("../")))
    return shorter if not place.exists() and text.startswith("../") and shorter.exists() else place


def _parted(place: Path) -> tuple[Path, list[str]]:
    """What stands above the last folder ``images`` (above the last part if there is none), and the parts from there."""
    parts = place.parts
    at = max((k for k, part in enumerate(parts) if part == _IMAGES), default=len(parts) - 1)
    return Path(*parts[:at]), list(parts[at:])


def _pattern(places: Mapping[str, Path]) -> PicturePlaces | None:
    """One pattern for the folders of all splits; None if they differ in more than one part."""
    above = os.path.commonpath([_parted(place)[0] for place in places.values()])
    parts = {split: place.relative_to(above).parts for split, place in places.items()}
    first = next(iter(parts.values()))
    if any(len(part) != len(first) for part in parts.values()):
        return None
    differing = [k for k, same in enumerate(zip(*parts.values(), strict=True)) if len(set(same)) > 1]
    free = [k for k, part in enumerate(first) if part != _IMAGES]
    if len(differing) > 1 or not (differing or free):
        return None
    at = differing[0] if differing else free[-1]
    folders: dict[str, Json] = {split: part[at] for split, part in parts.items()}
    if any(folder == _IMAGES for folder in folders.values()):  # images and images2 as folders of splits
        return None
    pattern = "/".join("{split}" if k == at else part for k, part in enumerate(first))
    swapped = "/".join("{images}" if k == _last(first) else part for k, part in enumerate(pattern.split("/")))
    return PicturePlaces(Path(above), f"{pattern}/{{name}}.*", folders, f"{swapped}/{{name}}")


def _last(parts: Sequence[str]) -> int:
    """Place of the last folder ``images``, −1 if there is none."""
    return max((k for k, part in enumerate(parts) if part == _IMAGES), default=-1)


def _pictures(places: Sequence[Path], root: Path, source: str) -> list[Path]:
    """The pictures in some folders and lists."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(path for path in files_that_fit(place, "**/*") if is_picture_file(path))
            continue
        try:
            lines = read_regular(place, _MOST_LIST).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{source}: cannot read the list {place} ({one_line(error, 100)})") from None
        for line in filter(None, map(str.strip, lines)):
            from_list = line.startswith("./") or not (root / line).exists()
            path = Path(os.path.normpath((place.parent if from_list else root) / line))
            if path.suffix.lower() in PICTURE_SUFFIXES:
                found.append(path)
    return found


def _listed(pictures: Mapping[str, Sequence[Path]], source: str) -> PicturePlaces:
    """The names of all pictures, which lie below one folder ``images``, or in none."""
    empty = next((split for split, found in pictures.items() if not found), None)
    if empty is not None:
        raise DataError(f"{source}: {empty}: holds no pictures; correct it or leave it out")
    roots = {_parted(path)[0] for found in pictures.values() for path in found}
    inside = {_last(path.parts[:-1]) >= 0 for found in pictures.values() for path in found}
    if inside == {False}:
        above = Path(os.path.commonpath([path.parent for found in pictures.values() for path in found]))
        return PicturePlaces(above, "{name}", _names(pictures, above), "{name}")
    if len(roots) > 1 or len(inside) > 1:
        told = ", ".join(str(root / _IMAGES) for root in sorted(roots)[:3])
        raise DataError(
            f"{source}: pictures lie in several folders ({told}); write a description for each, and join them"
        )
    above = next(iter(roots))
    return PicturePlaces(above, f"{_IMAGES}/{{name}}", _names(pictures, above / _IMAGES), "{images}/{name}")


def _names(pictures: Mapping[str, Sequence[Path]], above: Path) -> dict[str, Json]:
    return {split: [path.relative_to(above).as_posix() for path in found] for split, found in pictures.items()}


# a set is opened once a split, and again by checks
@cache
def _tell(text: str) -> None:
    _log.info("%s", text)
