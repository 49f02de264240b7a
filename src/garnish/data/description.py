"""The description of a data set: which pictures belong to a split, and where each task's label files are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath

from garnish.data.channels import BAND_SUFFIXES
from garnish.data.finding import files_that_fit
from garnish.data.labels.labelled import Labelled
from garnish.data.layouts.layout import Layout
from garnish.data.patterns import as_glob, as_regex, filled, is_list, stays_below
from garnish.errors import DataError, one_line, shown, suggest
from garnish.files.pictures import PICTURE_SUFFIXES, is_picture_file
from garnish.files.regular import read_regular
from garnish.output import logger
from garnish.pictures.bands import Bands

#: Largest list of the names of a split, in bytes: some millions.
_MOST_LIST = 256 * 2**20

_log = logger(__name__)


@dataclass(frozen=True)
class Description:
    """Where the pictures and labels of a data set on disk are, for all its splits.

    Attributes:
        source: the YAML file or folder, named in messages.
        root: the folder that patterns are relative to.
        images: pattern of the pictures, with ``{split}`` and either ``*`` or ``{name}``; of several files a picture
            that of the first band.
        splits: split → its folder's name, or a text file (relative to ``root``) that lists names.
        every: split → n, to keep every n-th picture by name.
        tasks: tasks and the readers of their labels, by task name.
        layout: the published layout that this was derived from; None: written out by the user.
        bands: what ``channels`` states; None: nothing, so pictures are 8-bit RGB.
        of_bands: band → pattern of its files, in the order of ``bands``; empty: one file a picture.
    """

    source: str
    root: Path
    images: str
    splits: Mapping[str, str]
    every: Mapping[str, int]
    tasks: Mapping[str, Labelled]
    layout: Layout | None = None
    bands: Bands | None = None
    of_bands: Mapping[str, str] = field(default_factory=dict)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files that are pictures."""
        return PICTURE_SUFFIXES if self.bands is None else BAND_SUFFIXES

    def pictures(self, split: str) -> list[tuple[str, Path]]:
        """(name, file) of every picture of a split, sorted by name.

        Raises:
            DataError: no such folder, list or split; a listed picture that does not exist; a name that two files share.
        """
        try:
            return self._found(split)
        except OSError as error:  # a name that is too long for a file, a loop of links
            raise DataError(f"{self.source}: {error.strerror}; correct `path`, `images` or `splits`") from None

    def _found(self, split: str) -> list[tuple[str, Path]]:
        if not self.root.is_dir():
            raise DataError(f"{self.source}: no folder {self.root}; correct `path`")
        value = self.splits.get(split, split)
        listed = is_list(value)
        if self.splits and split not in self.splits:
            raise DataError(f"{self.source}: no split {shown(split)}{suggest(split, self.splits)}")
        if not listed and "{split}" not in self.images and not self.splits and split not in ("train", "all"):
            raise DataError(
                f"{self.source}: `images: {self.images}` has no {{split}}, so {split!r} would hold the training "
                "pictures; ask for split 'all', or list names under `splits: {" + split + ": " + split + ".txt}`"
            )
        found = self._listed(split, value) if listed else self._globbed(value)
        if not found:
            raise DataError(
                f"{self.source}: split {split!r} is empty: no picture fits {self._pattern(value)}; "
                + (
                    f"correct `path` or fetch {self.layout.origin}"
                    if self.layout
                    else "correct `images` or ask for another split"
                )
            )
        found.sort()
        for (name, one), (other_name, other) in pairwise(found):
            if name == other_name:
                raise DataError(f"{self.source}: {_of_one_name(name, one, other, self.images)}")
        return found[:: self.every.get(split, 1)]

    def label_path(self, task: str, split: str, name: str) -> Path:
        """Path of a picture's label: from the first template whose file exists, else from the first template."""
        value = self.splits.get(split, split)
        given = split if is_list(value) else value
        places = [self.root / filled(template, split=given, name=name) for template in self.tasks[task].labels.labels]
        return places[0] if len(places) == 1 else next((p for p in places if p.is_file()), places[0])

    def picture_files(self, split: str, name: str, file: Path) -> tuple[Path, ...]:
        """All files of a picture of which :meth:`pictures` gave name and file: one, or one a band, in their order.

        Raises:
            DataError: the file of another band does not exist.
        """
        if not self.of_bands:
            return (file,)
        given = split if is_list(value := self.splits.get(split, split)) else value
        found = {band: self.root / filled(pattern, split=given, name=name) for band, pattern in self.of_bands.items()}
        for band, path in found.items():
            if not path.is_file():
                raise DataError(f"{self.source}: picture {name!r}: no file {path} of band {band!r}; restore it")
        return tuple(found.values())

    def _pattern(self, value: str) -> Path:
        return self.root / filled(self.images, split=value)

    def _globbed(self, value: str) -> list[tuple[str, Path]]:
        pattern = filled(self.images, split=value)
        regex = re.compile(as_regex(pattern)) if "{name}" in pattern else None
        found, others = [], set()
        for path in files_that_fit(self.root, as_glob(pattern)):
            if not is_picture_file(path, self.suffixes):
                if path.is_file() and not path.name.startswith("."):
                    others.add(path.suffix)
                continue
            name = path.stem
            if regex is not None:
                match = regex.fullmatch(path.relative_to(self.root).as_posix())
                if match is None:
                    continue
                name = match["name"]
            found.append((name, path))
        if others:
            _log.info(
                "%s: files that fit %s but end in %s are no pictures and were left out",
                *(self.source, pattern, ", ".join(sorted(others))),
            )
        return found

    def _listed(self, split: str, value: str) -> list[tuple[str, Path]]:
        file = self.root / value
        try:
            lines = read_regular(file, _MOST_LIST).decode("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.source}: splits.{split}: cannot read {file} ({one_line(error, 100)})") from None
        pattern = filled(self.images, split=split)
        if "{name}" not in pattern:
            head, _, tail = pattern.rpartition("*")
            pattern = f"{head}{{name}}{tail}"
        found = []
        for number, line in enumerate(lines, 1):
            name = line.strip()
            if not name:
                continue
            if not stays_below(name):
                raise DataError(
                    f"{file}, line {number}: {name!r} is not a plain relative name; write names without '..' or a"
                    " '/' in front"
                )
            ending = PurePosixPath(name).suffix
            if ending.lower() in self.suffixes:
                name = str(PurePosixPath(name).with_suffix(""))
            places = [self.root / filled(pattern, name=name)]
            if places[0].suffix.lower() not in self.suffixes:
                endings = (*self.suffixes, *map(str.upper, self.suffixes))
                places = [places[0].with_name(places[0].name + ending) for ending in endings]
            there = [p for p in places if p.is_file()]
            if not there:
                raise DataError(f"{file}, line {number}: no picture {places[0]}; restore it or remove the line")
            if len(there) > 1 and not there[0].samefile(there[1]):
                raise DataError(f"{file}, line {number}: {_of_one_name(name, there[0], there[1], self.images)}")
            found.append((name, there[0]))
        return found


def _of_one_name(name: str, one: Path, other: Path, images: str) -> str:
    """Message about two pictures that would share a label file, and what to do."""
    if one == other:
        return f"{one} is listed twice; remove one of the lines"
    told = f"{one} and {other} share the name {name!r}"
    if one.parent == other.parent:
        return f"{told}; write the ending into `images`, or move one of them away"
    # one {name} that spans all wildcards, so that folders become part of the name
    longer = re.sub(r"(\*|\{name\}).*(\*|\{name\})", "{name}", images)
    if longer == images or ("{split}" in images and "{split}" not in longer):
        return f"{told}; give one of them another name"
    return f"{told}; write `images: {longer}`, and name the labels alike"
