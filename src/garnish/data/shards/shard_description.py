"""What a description of a data set in shards says: ``shards``, ``images``, ``tasks``, ``channels``, ``window``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.checking.plain_data import Json
from garnish.data.channels import BAND_SUFFIXES, read_channels
from garnish.data.labels.labelled import Labelled, labelled
from garnish.errors import DataError, OptionError, shown, suggest
from garnish.files.path_text import given_path
from garnish.files.pictures import PICTURE_SUFFIXES
from garnish.files.strict_yaml import read_yaml
from garnish.pictures.bands import Bands
from garnish.stores.address_text import is_address

KEY = "shards"
_KEYS = ("path", KEY, "images", "channels", "tasks", "window", "fetch")
_ENDING = re.compile(r"\{name\}\.([A-Za-z0-9_.-]{1,100})")
#: Shards whose pictures are shuffled together, where nothing is stated.
_WINDOW, _MOST_WINDOW = 16, 100_000


@final
@dataclass(frozen=True)
class ShardDescription:
    """Where the shards of a data set are, and what of a sample is what.

    Attributes:
        source: the YAML file, for messages.
        base: folder that patterns without an address are relative to, or an address.
        shards: split → patterns.
        images: endings of pictures, the first that a sample has is read.
        tasks: tasks and the readers of their labels, by task name.
        endings: task → endings of its labels, as of pictures.
        bands: what ``channels`` states; None: pictures are 8-bit RGB.
        window: shards whose pictures are shuffled together.
        fetches: whether shards are fetched whole, into the cache; else each file of a sample is a request.
    """

    source: str
    base: Path | str
    shards: Mapping[str, tuple[str, ...]]
    images: tuple[str, ...]
    tasks: Mapping[str, Labelled]
    endings: Mapping[str, tuple[str, ...]]
    bands: Bands | None
    window: int
    fetches: bool

    def has_split(self, split: str) -> bool:
        """Whether shards of a split are named."""
        return split in self.shards

    def patterns(self, split: str) -> list[str]:
        """Addresses or paths of a split's shards; raises DataError where there is no such split."""
        if split not in self.shards:
            raise DataError(f"{self.source}: no split {shown(split)}{suggest(split, self.shards)}")
        if isinstance(self.base, Path):
            return list(self.shards[split])
        return [p if is_address(p) else f"{self.base.rstrip('/')}/{p}" for p in self.shards[split]]


def in_shards(given: Json | Path, base: Path | None) -> tuple[Mapping[str, Json], str, Path] | None:
    """The content, the name and the folder of a description that has ``shards``; None: it has none, or is none.

    Args:
        given: the section ``data``: a YAML file, or its content.
        base: folder that a mapping's paths are relative to; None: the working directory.
    """
    if isinstance(given, Mapping):
        return (given, "data", base or Path()) if KEY in given else None
    if not isinstance(given, str | Path) or not str(given) or Path(given).suffix.lower() not in (".yaml", ".yml"):
        return None
    file = given_path(given, "data", DataError)
    content = read_yaml(file, DataError) if file.is_file() else None
    return (content, str(file), file.parent) if isinstance(content, Mapping) and KEY in content else None


def shard_description(given: Mapping[str, Json], source: str, folder: Path) -> ShardDescription:
    """Check a description.

    Args:
        given: its content.
        source: its file, for messages.
        folder: that its ``path`` is relative to.

    Raises:
        OptionError: an unknown or missing key, or an option that a task or label does not have.
    """
    for key in given:
        if key not in _KEYS:
            raise OptionError(f"{source}: unknown key {shown(key)} beside `shards`{suggest(str(key), _KEYS)}")
    entries = given.get("tasks")
    if not isinstance(entries, Mapping) or not entries:
        raise OptionError(
            f'{source}: `tasks` is empty; write e.g. `tasks: {{seg: {{task: Semantic, labels: "{{name}}.seg.png",'
            " classes: [road, sky]}}`"
        )
    bands = None if given.get("channels") is None else read_channels(given["channels"], f"{source}: channels")
    tasks = {str(name): labelled(entry, f"{source}: tasks.{name}") for name, entry in entries.items()}
    for name, entry in tasks.items():
        if entry.labels.shared:
            raise OptionError(f"{source}: tasks.{name}: labels of many pictures in one file cannot lie in shards")
    images = _endings(given.get("images", "{name}.jpg"), f"{source}: images")
    known = PICTURE_SUFFIXES if bands is None else BAND_SUFFIXES
    for ending in images:
        if not f".{ending}".endswith(tuple(known)):
            raise OptionError(f"{source}: images: {shown(ending)} is no ending of a picture ({', '.join(known)})")
    window, fetches = given.get("window", _WINDOW), given.get("fetch", True)
    if isinstance(window, bool) or not isinstance(window, int) or not 1 <= window <= _MOST_WINDOW:
        raise OptionError(f"{source}: window: {shown(window)}; give a number of shards from 1 to {_MOST_WINDOW:,}")
    if not isinstance(fetches, bool):
        raise OptionError(f"{source}: fetch: {shown(fetches)}; write true or false")
    return ShardDescription(
        source=source,
        base=_base(given.get("path", "."), source, folder),
        shards=_patterns(given[KEY], source),
        images=images,
        tasks=tasks,
        endings={
            name: _endings(list(entry.labels.labels), f"{source}: tasks.{name}.labels") for name, entry in tasks.items()
        },
        bands=bands,
        window=window,
        fetches=fetches,
    )


def _base(given: Json, source: str, folder: Path) -> Path | str:
    if isinstance(given, str) and is_address(given):
        return given
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise OptionError(f"{source}: path: expected a folder or an address, got {shown(given)}")
    return folder / given_path(os.path.expandvars(str(given)), f"{source}: path", DataError)


def _patterns(given: Json, source: str) -> dict[str, tuple[str, ...]]:
    """Split → patterns; a pattern alone is the split train."""
    splits = given if isinstance(given, Mapping) else {"train": given}
    found = {}
    for split, value in splits.items():
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not several or not all(isinstance(one, str) and one for one in several):
            raise OptionError(
                f"{source}: shards.{split}: {shown(value)}; write an address or a path such as"
                " s3://bucket/{000..099}.tar, or a list of these"
            )
        found[str(split)] = tuple(str(one) for one in several)
    if not found:
        raise OptionError(f"{source}: shards: names no split; write {{train: PATTERN, val: PATTERN}}")
    return found


def _endings(given: Json, where: str) -> tuple[str, ...]:
    """``seg.png`` of ``{name}.seg.png``."""
    found = []
    for one in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
        matched = _ENDING.fullmatch(one) if isinstance(one, str) else None
        if matched is None:
            raise OptionError(f'{where}: {shown(one)}; files of a sample have one stem: write "{{name}}.ENDING"')
        found.append(matched[1].lower())
    return tuple(found)
