"""The description of a data set: which pictures belong to a split, and where each task's label files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from garnish.data.channels import BAND_SUFFIXES
from garnish.data.finding import files_that_fit
from garnish.data.globbed import globbed_pictures
from garnish.data.held_out import HeldOut, HoldOut, held_out
from garnish.data.labels.labelled import Labelled
from garnish.data.layouts.layout import Layout
from garnish.data.listed import listed_pictures, of_one_name, without_suffix
from garnish.data.name_lists import ListedName, names_of_split, read_lists
from garnish.data.patterns import as_glob, columns_of, filled, is_list
from garnish.data.table import Table, TableRow
from garnish.errors import DataError, shown, suggest
from garnish.files.pictures import PICTURE_SUFFIXES, is_picture_file
from garnish.pictures.bands import Bands

#: A split as a description has it: a folder's name, a file that lists names, or the names.
SplitValue = str | tuple[ListedName, ...]


@dataclass(frozen=True)
class Description:
    """Where the pictures and labels of a data set on disk are, for all its splits.

    Attributes:
        source: the YAML file or folder, named in messages.
        root: the folder that patterns are relative to.
        images: pattern of the pictures, with ``{split}`` and either ``*`` or ``{name}``; of several files a picture
            that of the first band.
        splits: split → its folder's name, a file (relative to ``root``) that lists names, or the names.
        every: split → n, to keep every n-th picture by name.
        tasks: tasks and the readers of their labels, by task name.
        layout: the published layout that this was derived from; None: written out by the user.
        bands: what ``channels`` states; None: nothing, so pictures are 8-bit RGB.
        of_bands: band → pattern of its files, in the order of ``bands``; empty: one file a picture.
        hold_out: the part of the split train that is the split val; None: splits are as they are.
        table: the rows that name pictures and labels; None: names of files tell which label is whose.
    """

    source: str
    root: Path
    images: str
    splits: Mapping[str, SplitValue]
    every: Mapping[str, int]
    tasks: Mapping[str, Labelled]
    layout: Layout | None = None
    bands: Bands | None = None
    of_bands: Mapping[str, str] = field(default_factory=dict)
    hold_out: HoldOut | None = None
    table: Table | None = None

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files that are pictures."""
        return PICTURE_SUFFIXES if self.bands is None else BAND_SUFFIXES

    def pictures(self, split: str) -> list[tuple[str, Path]]:
        """(name, file) of every picture of a split, sorted by name.

        Raises:
            DataError: no such folder, list or split; a listed picture that does not exist; a name that two files share.
        """
        found = self._of(self.taken_from(split))
        if (held := self.held_out) is not None and split in ("train", "val"):
            found = [picture for picture in found if (picture[0] in held.names) == (split == "val")]
        return found[:: self.every.get(split, 1)]

    @cached_property
    def held_out(self) -> HeldOut | None:
        """The training pictures that are the split val; None: no ``hold_out`` is stated.

        Raises:
            DataError: the set has a split val of its own, or pictures that cannot be parted.
        """
        if self.hold_out is None:
            return None
        if self._exists("val"):
            raise DataError(
                f"{self.source}: hold_out: the set has a split 'val' of its own; leave `hold_out` out, or rename"
                " that split"
            )
        return held_out([name for name, _ in self._of("train")], self.hold_out, self.source)

    def known_splits(self) -> list[str]:
        """The splits there are, "train" first: those that are named, else those of which there are pictures."""
        if self.splits:
            found = list(self.splits)
        elif self.table is not None and (values := self.table.values()):
            found = values
        elif "{split}" in self.images or (self.table is not None and self.table.by_file):
            found = [split for split in ("train", "val", "test", *self._folders()) if self._exists(split)]
        else:
            found = ["train"]
        held = [] if self.hold_out is None else ["val"]
        return sorted(dict.fromkeys([*found, *held]), key=lambda split: split != "train")

    def taken_from(self, split: str) -> str:
        """The split whose folder or list holds the pictures of a split: "train" for a "val" that is held out."""
        return "train" if self.hold_out is not None and split == "val" else split

    def has_split(self, split: str) -> bool:
        """Whether a split is named, held out or has pictures or a folder, so that an error in it must be told."""
        if split in self.splits or (self.hold_out is not None and split == "val"):
            return True
        if self.splits:
            return False
        by_folder = "{split}" in self.images and self.table is None
        return (self.root / self.images.split("{split}")[0] / split).is_dir() if by_folder else self._exists(split)

    def label_places(self, task: str, split: str, name: str) -> list[Path]:
        """Where the label of a picture may be, of each template one path; fewer where cells of its row are empty."""
        values = {"split": self._folder(split), "name": name}
        texts: list[str | None] = [filled(template, **values) for template in self.tasks[task].labels.labels]
        if self.table is not None:
            row = self._rows(self.taken_from(split))[name][1]
            texts = [self.table.path(text, row) for text in texts if text is not None]
        return [self.root / text for text in texts if text is not None]

    def label_file(self, task: str, split: str, name: str, file: Path) -> Path | None:
        """The first of :meth:`label_places` that holds the label of a picture; None: it has none.

        Raises:
            DataError: a file of the labels of many pictures that cannot be read; a row of the table that names a label
                that does not exist.
        """
        templates, places = self.tasks[task].labels.labels, self.label_places(task, split, name)
        word = self.word(task, name, file)
        found = next((place for place in places if self.tasks[task].labels.holds(place, word)), None)
        if found is None and places and self.table is not None and all(map(columns_of, templates)):
            row = self._rows(self.taken_from(split))[name][1]
            columns = ", ".join(dict.fromkeys(column for t in templates for column in columns_of(t)))
            raise DataError(
                f"{row.where}, column {columns}: no file {places[0]} (tasks.{task}); restore it, or empty the cell"
            )
        return found

    def word(self, task: str, name: str, file: Path) -> str:
        """What the reader of a task is told of a picture: its name, or its path where one file has many pictures."""
        if not self.tasks[task].labels.shared or self.of_bands or not file.is_relative_to(self.root):
            return name
        return file.relative_to(self.root).with_suffix("").as_posix()

    def picture_files(self, split: str, name: str, file: Path) -> tuple[Path, ...]:
        """All files of a picture of which :meth:`pictures` gave name and file: one, or one a band, in their order.

        Raises:
            DataError: the file of another band does not exist.
        """
        if not self.of_bands:
            return (file,)
        given = self._folder(split)
        found = {band: self.root / filled(pattern, split=given, name=name) for band, pattern in self.of_bands.items()}
        for band, path in found.items():
            if not path.is_file():
                raise DataError(f"{self.source}: picture {name!r}: no file {path} of band {band!r}; restore it")
        return tuple(found.values())

    def _of(self, split: str) -> list[tuple[str, Path]]:
        """(name, file) of the pictures that a split's folder or list holds, sorted."""
        try:
            found = self._found(split)
        except OSError as error:  # a name that is too long for a file, a loop of links
            raise DataError(f"{self.source}: {error.strerror}; correct `path`, `images` or `splits`") from None
        found.sort()
        for (name, one), (other_name, other) in pairwise(found):
            if name == other_name:
                raise DataError(f"{self.source}: {of_one_name(name, one, other, self.images)}")
        return found

    def _found(self, split: str) -> list[tuple[str, Path]]:
        if not self.root.is_dir():
            raise DataError(f"{self.source}: no folder {self.root}; correct `path`")
        value = self.splits.get(split, split)
        listed = not isinstance(value, str) or is_list(value)
        if self.splits and split not in self.splits:
            raise DataError(f"{self.source}: no split {shown(split)}{suggest(split, self.splits)}{self._remedy(split)}")
        if self.table is not None:
            return [(name, path) for name, (path, _) in self._rows(split).items()]
        if not listed and "{split}" not in self.images and not self.splits and split not in ("train", "all"):
            held = "" if self.hold_out is None else "'val' (held out of them) or "
            raise DataError(
                f"{self.source}: `images: {self.images}` has no {{split}}, so {split!r} would hold the training "
                f"pictures; ask for split {held}'all' (--split), or list names under `splits: {{{split}: {split}.txt}}`"
                f"{self._remedy(split)}"
            )
        if listed:
            found = listed_pictures(self._names(split), self.root, filled(self.images, split=split), self.suffixes)
        else:
            found = globbed_pictures(self.root, filled(self.images, split=str(value)), self.suffixes, self.source)
            found = self._without_labels(split, found)
        if not found:
            raise DataError(
                f"{self.source}: split {split!r} is empty: no picture fits {self.root / self._pattern(split)}; "
                + (
                    f"correct `path` or fetch {self.layout.origin}"
                    if self.layout
                    else f"correct `images` or ask for another split{self._remedy(split)}"
                )
            )
        return found

    def _remedy(self, split: str) -> str:
        """What helps who has no validation pictures; empty for other splits."""
        return ", or hold out training pictures by `hold_out: 0.2`" if split == "val" and not self.layout else ""

    def _names(self, split: str) -> tuple[ListedName, ...]:
        """The names that a split's list holds."""
        value = self.splits[split]
        if not isinstance(value, str):
            return value
        file = self.root / value
        try:
            return tuple(names_of_split(read_lists(file), split, file))
        except DataError as error:
            raise DataError(f"{self.source}: splits.{split}: {error}") from None

    def _rows(self, split: str) -> Mapping[str, tuple[Path, TableRow]]:
        """Name → file and row of the pictures of a split."""
        assert self.table is not None
        if split not in self._tabled:
            value = self.splits.get(split, split)
            listed = not isinstance(value, str) or is_list(value)
            alone = not listed and not self.table.by_file and not self.table.values()
            if alone and (self.splits or split not in ("train", "all")):
                raise DataError(
                    f"{self.source}: {self.root / self.table.file} has no column `split`, so {split!r} would hold the"
                    f" training pictures; ask for split 'all', or name lists under `splits`{self._remedy(split)}"
                )
            rows = self.table.rows(None if listed or (split == "all" and not self.splits) else str(value))
            found = self.table.pictures(rows, self._folder(split), self.suffixes)
            if listed:
                wanted = {without_suffix(one.text.removeprefix("./"), self.suffixes): one for one in self._names(split)}
                if absent := [one for name, one in wanted.items() if name not in found]:
                    raise DataError(f"{absent[0].where}: the table has no picture {shown(absent[0].text)}; remove it")
                found = {name: found[name] for name in wanted}
            self._tabled[split] = found
        return self._tabled[split]

    @cached_property
    def _tabled(self) -> dict[str, Mapping[str, tuple[Path, TableRow]]]:
        return {}

    def _folder(self, split: str) -> str:
        """What ``{split}`` stands for: the folder of a split, or its name where a list gives its pictures."""
        split = self.taken_from(split)
        value = self.splits.get(split, split)
        return value if isinstance(value, str) and not is_list(value) else split

    def _folders(self) -> list[str]:
        """Names of the folders that stand where the pattern has ``{split}``."""
        parts = self.images.split("/")
        before = parts[: parts.index("{split}")] if "{split}" in parts else ["*"]
        if any("*" in part or "?" in part or "{" in part for part in before):
            return []
        place = self.root.joinpath(*before)
        there = [path.name for path in place.iterdir() if path.is_dir()] if place.is_dir() else []
        return sorted(name for name in there if not name.startswith("."))

    def _exists(self, split: str) -> bool:
        """Whether a split is named, or has pictures."""
        if self.splits:
            return split in self.splits
        if self.table is not None:
            return self.table.has(split)
        return "{split}" in self.images and any(
            is_picture_file(path, self.suffixes)
            for path in files_that_fit(self.root, as_glob(filled(self.images, split=split)))
        )

    def _pattern(self, split: str) -> str:
        return filled(self.images, split=self._folder(split))

    def _without_labels(self, split: str, found: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
        """Pictures without those that are the label of another one, as ``a_mask.png`` beside ``a.png`` is."""
        files = {path for _, path in found}
        labels = {
            place
            for name, path in found
            for task in self.tasks
            for place in self.label_places(task, split, name)
            if place in files and place != path
        }
        return [one for one in found if one[1] not in labels]
