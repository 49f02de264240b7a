"""The description of a set: which pictures belong to a split, and where the labels of each task lie.

It stands in a YAML file or inside a recipe; ``docs/data.md`` lists the keys.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from garnish import registry
from garnish.data.labels.labelled import Labelled, labelled
from garnish.data.layouts.layout import Layout
from garnish.errors import DataError, OptionError, one_line, suggest
from garnish.files.pictures import PICTURE_SUFFIXES, is_picture_file
from garnish.files.strict_yaml import read_yaml

_log = logging.getLogger(__name__)

_KEYS = ("path", "images", "splits", "every", "tasks")


@dataclass(frozen=True)
class Description:
    """A set of pictures on disk, not yet a split of it.

    Attributes:
        source: the YAML file or folder, named in messages.
        root: the folder that patterns are relative to.
        images: pattern of the pictures, with ``{split}`` and either ``*`` or ``{name}``.
        splits: split → its folder's name, or a text file (relative to ``root``) that lists names.
        every: split → n, to keep every n-th picture by name.
        tasks: what is labelled, by task name.
        layout: the published layout that the rest follows from, None where it was written out.
    """

    source: str
    root: Path
    images: str
    splits: Mapping[str, str]
    every: Mapping[str, int]
    tasks: Mapping[str, Labelled]
    layout: Layout | None = None

    def pictures(self, split: str) -> list[tuple[str, Path]]:
        """(name, file) of every picture of a split, by name.

        Raises:
            DataError: no such folder, list or split; a listed picture that does not exist; two pictures of one name.
        """
        if not self.root.is_dir():
            raise DataError(f"{self.source}: no folder {self.root}; correct `path`")
        value = self.splits.get(split, split)
        listed = _is_list(value)
        if self.splits and split not in self.splits:
            raise DataError(f"{self.source}: no split {split!r}{suggest(split, self.splits)}")
        if not listed and "{split}" not in self.images and not self.splits and split not in ("train", "all"):
            raise DataError(
                f"{self.source}: `images: {self.images}` has no {{split}}, so {split!r} would hold the training "
                "pictures; ask for split 'all', or list names under `splits: {" + split + ": " + split + ".txt}`"
            )
        found = self._listed(split, value) if listed else self._globbed(value)
        if not found:
            raise DataError(
                f"{self.source}: split {split!r} is empty: no picture fits {self._pattern(value)}; "
                + (f"correct `path` or fetch {self.layout.origin}" if self.layout else "correct `images`")
            )
        found.sort()
        for (name, one), (other_name, other) in pairwise(found):
            if name == other_name:
                raise DataError(f"{self.source}: {_of_one_name(name, one, other, self.images)}")
        return found[:: self.every.get(split, 1)]

    def label_path(self, task: str, split: str, name: str) -> Path:
        """Where the label of a picture lies; of several templates the first that leads to a file, else the first."""
        value = self.splits.get(split, split)
        given = split if _is_list(value) else value
        places = [self.root / _fill(template, split=given, name=name) for template in self.tasks[task].labels.labels]
        return places[0] if len(places) == 1 else next((p for p in places if p.is_file()), places[0])

    def _pattern(self, value: str) -> Path:
        return self.root / _fill(self.images, split=value)

    def _globbed(self, value: str) -> list[tuple[str, Path]]:
        pattern = _fill(self.images, split=value)
        glob = pattern.replace("{name}", "**/*" if pattern.split("{name}")[0].endswith("/") else "*")
        regex = re.compile(_as_regex(pattern)) if "{name}" in pattern else None
        found, others = [], set()
        for path in self.root.glob(glob):
            if not is_picture_file(path):
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
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.source}: splits.{split}: cannot read {file} ({one_line(error, 100)})") from None
        pattern = _fill(self.images, split=split)
        if "{name}" not in pattern:
            head, _, tail = pattern.rpartition("*")
            pattern = f"{head}{{name}}{tail}"
        found = []
        for number, line in enumerate(lines, 1):
            name = line.strip()
            if not name:
                continue
            if not _is_plain(name):
                raise DataError(
                    f"{file}, line {number}: {name!r} is not a plain relative name; write names without '..' or a"
                    " '/' in front"
                )
            ending = PurePosixPath(name).suffix
            if ending.lower() in PICTURE_SUFFIXES:
                name = str(PurePosixPath(name).with_suffix(""))
            places = [self.root / _fill(pattern, name=name)]
            if places[0].suffix.lower() not in PICTURE_SUFFIXES:
                endings = (*PICTURE_SUFFIXES, *map(str.upper, PICTURE_SUFFIXES))
                places = [places[0].with_name(places[0].name + ending) for ending in endings]
            there = [p for p in places if p.is_file()]
            if not there:
                raise DataError(f"{file}, line {number}: no picture {places[0]}; restore it or remove the line")
            if len(there) > 1 and not there[0].samefile(there[1]):
                raise DataError(f"{file}, line {number}: {_of_one_name(name, there[0], there[1], self.images)}")
            found.append((name, there[0]))
        return found


def read_description(source: str | Path | Mapping[str, Any], root: Path | None = None) -> Description:
    """A description from a YAML file, or from a mapping whose relative paths start at ``root`` (default: here).

    Raises:
        DataError: the file is missing or not YAML.
        OptionError: an unknown or missing key, or an option that a task or label does not have.
    """
    if isinstance(source, Mapping):
        return parse_description(source, "data", Path() if root is None else root)
    file = Path(source)
    return parse_description(read_yaml(file, DataError), str(file), file.parent)


def parse_description(given: Any, source: str, base: Path) -> Description:
    """Check a description that was read from ``source``; its ``path`` is relative to the folder ``base``."""
    if not isinstance(given, Mapping):
        raise OptionError(f"{source}: expected keys {', '.join(_KEYS)}; got {one_line(repr(given), 60)}")
    if "layout" in given:
        return _laid_out(given, source, base)
    for key in given:
        if key not in _KEYS:
            raise OptionError(f"{source}: unknown key {key!r}{suggest(str(key), _KEYS)}")
    images = given.get("images")
    if not isinstance(images, str) or not ("*" in images or "{name}" in images):
        raise OptionError(f'{source}: `images` must be a pattern such as "images/{{split}}/*.jpg"; got {images!r}')
    splits = _mapping(given, "splits", source)
    every = _mapping(given, "every", source)
    for split, step in every.items():
        if isinstance(step, bool) or not isinstance(step, int) or step < 1:
            raise OptionError(f"{source}: every.{split}: expected a whole number above 0, got {step!r}")
        if splits and split not in splits:
            raise OptionError(f"{source}: every.{split}: no such split{suggest(split, splits)}")
    for split, value in splits.items():
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise OptionError(
                f"{source}: splits.{split}: {one_line(repr(value), 60)}; write the name of a folder, or of a text file"
                f" with a name a line such as {split}.txt"
            )
        if not _is_list(str(value)) and "{split}" not in images and split != "all":
            raise OptionError(
                f"{source}: splits.{split}: {value!r} is no list (.txt), and `images: {images}` has no {{split}} for a"
                f" folder's name, so it would hold every picture; put {{split}} into `images`, or list the names in"
                f" {split}.txt"
            )
    entries = _mapping(given, "tasks", source)
    if not entries:
        raise OptionError(
            f'{source}: `tasks` is empty; write e.g. `tasks: {{depth: {{task: Depth, labels: "depth/{{name}}.png", '
            "unit: mm}}`"
        )
    tasks = {name: labelled(entry, f"{source}: tasks.{name}") for name, entry in entries.items()}
    for name, entry in tasks.items():
        for template in entry.labels.labels:
            _checked(template, f"{source}: tasks.{name}.labels")
    root = Path(os.path.expandvars(str(given.get("path", ".")))).expanduser()
    return Description(
        source=source,
        root=base / root,
        images=_checked(images, f"{source}: images"),
        splits={name: _checked(str(value), f"{source}: splits.{name}") for name, value in splits.items()},
        every=every,
        tasks=tasks,
    )


def _laid_out(given: Mapping[str, Any], source: str, base: Path) -> Description:
    """The description that a published layout stands for."""
    name = given["layout"]
    if not isinstance(name, str):
        raise OptionError(f"{source}.layout: {name!r}; name one of {', '.join(registry.classes('layouts'))}")
    options = {key: value for key, value in given.items() if key != "layout"}
    if isinstance(path := options.get("path"), str):
        options["path"] = str(Path(os.path.expandvars(path)).expanduser())
    layout: Layout = registry.build("layouts", name, options, where=source)
    root = layout.root(base)
    if not root.is_dir():
        raise DataError(f"{source}: no folder {root}; correct `path`, or fetch {layout.origin}")
    told = layout.described(root)
    told["tasks"] = layout.chosen(told["tasks"], source)
    named = f"{root} ({name})" if source == "data" else source
    return dataclasses.replace(parse_description({"path": str(root), **told}, named, Path()), layout=layout)


def _is_list(value: str) -> bool:
    return value.lower().endswith(".txt")


def _of_one_name(name: str, one: Path, other: Path, images: str) -> str:
    """What is wrong with two pictures that would have the same label, and what to do."""
    if one == other:
        return f"{one} stands twice in a list; remove one of the lines"
    told = f"{one} and {other} share the name {name!r}"
    if one.parent == other.parent:
        return f"{told}; write the ending into `images`, or move one of them away"
    # one {name} from the first to the last of what varies, so that folders are part of the name
    longer = re.sub(r"(\*|\{name\}).*(\*|\{name\})", "{name}", images)
    if longer == images or ("{split}" in images and "{split}" not in longer):
        return f"{told}; give one of them another name"
    return f"{told}; write `images: {longer}`, and labels by such names"


def _mapping(given: Mapping[str, Any], key: str, source: str) -> dict[str, Any]:
    value = given.get(key) or {}
    if not isinstance(value, Mapping):
        raise OptionError(f"{source}: `{key}` must be a mapping, got {one_line(repr(value), 60)}")
    return {str(name): item for name, item in value.items()}


def _checked(pattern: str, where: str) -> str:
    """A pattern that stays below ``path`` and has only fields we fill."""
    for field in re.findall(r"\{[^}]*\}?", pattern):
        if field not in ("{split}", "{name}"):
            raise OptionError(f"{where}: {pattern!r} has {field}; only {{split}} and {{name}} are filled")
    if not _is_plain(pattern):
        raise OptionError(f"{where}: {pattern!r} must be relative to `path`, without '..'; set `path` instead")
    return pattern


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    return not (name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or re.match(r"[A-Za-z]:", name))


def _fill(pattern: str, **values: str) -> str:
    # str.format would read attributes of what it fills ("{name.x}"); a description is data
    for field, value in values.items():
        pattern = pattern.replace("{" + field + "}", value)
    return pattern


def _as_regex(pattern: str) -> str:
    tokens = {"{name}": "(?P<name>.+)", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\{name\}|\*\*/|\*|\?)", pattern)
    first = parts.index("{name}")
    again = {**tokens, "{name}": "(?P=name)"}  # a name that stands twice is the same name
    return "".join((tokens if k <= first else again).get(part, re.escape(part)) for k, part in enumerate(parts))
