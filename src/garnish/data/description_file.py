"""Reading the description of a data set from a YAML file, a recipe or a published layout.

``docs/data.md`` lists the keys.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from garnish import registry
from garnish.checking.plain_data import Json
from garnish.data.channels import band_patterns, read_channels
from garnish.data.description import Description
from garnish.data.labels.labelled import labelled
from garnish.data.layouts.layout import Layout
from garnish.data.patterns import checked_pattern, checked_split, is_list
from garnish.errors import DataError, OptionError, shown, suggest
from garnish.files.path_text import given_path
from garnish.files.strict_yaml import read_yaml

_KEYS = ("path", "images", "channels", "splits", "every", "tasks")


def read_description(source: str | Path | Mapping[str, Json], root: Path | None = None) -> Description:
    """Read a description from a YAML file, or a mapping with paths relative to ``root`` (None: working directory).

    Raises:
        DataError: the file is missing or not YAML.
        OptionError: an unknown or missing key, or an option that a task or label does not have.
    """
    if isinstance(source, Mapping):
        return parse_description(source, "data", Path() if root is None else root)
    file = Path(source)
    return parse_description(read_yaml(file, DataError), str(file), file.parent)


def parse_description(given: Json, source: str, base: Path) -> Description:
    """Check a description that was read from ``source``; its ``path`` is relative to the folder ``base``."""
    if not isinstance(given, Mapping):
        raise OptionError(f"{source}: expected keys {', '.join(_KEYS)}; got {shown(given)}")
    if "layout" in given:
        return _laid_out(given, source, base)
    for key in given:
        if key not in _KEYS and "data" in given and "images" not in given:
            raise OptionError(f"{source}: is a recipe and no data set; give a file of what stands under its `data`")
        if key not in _KEYS:
            raise OptionError(f"{source}: unknown key {shown(key)}{suggest(str(key), _KEYS)}")
    bands = None if given.get("channels") is None else read_channels(given["channels"], f"{source}: channels")
    images = given.get("images")
    of_bands = band_patterns(images, bands, f"{source}: images")
    if of_bands:
        images = next(iter(of_bands.values()))
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
                f"{source}: splits.{split}: {shown(value)}; write the name of a folder, or of a text file"
                f" with one name per line such as {split}.txt"
            )
        if not is_list(str(value)) and "{split}" not in images and split != "all":
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
            checked_pattern(template, f"{source}: tasks.{name}.labels")
    if bands is not None and not bands.is_rgb:
        for name, entry in tasks.items():
            if entry.labels.orientation == "stored":
                raise OptionError(
                    f"{source}: tasks.{name}.orientation: 'stored' is for 8-bit RGB; pictures with `channels` are"
                    " turned upright when they are read, so save their labels upright"
                )
    root = _path(given.get("path", "."), source)
    return Description(
        source=source,
        root=base / root,
        images=checked_pattern(images, f"{source}: images"),
        splits={name: checked_split(str(value), f"{source}: splits.{name}") for name, value in splits.items()},
        every=every,
        tasks=tasks,
        bands=bands,
        of_bands=of_bands,
    )


def _laid_out(given: Mapping[str, Json], source: str, base: Path) -> Description:
    """Build the description of a data set in a published layout."""
    name = given["layout"]
    if not isinstance(name, str):
        raise OptionError(f"{source}.layout: {name!r}; name one of {', '.join(registry.classes('layouts'))}")
    options = {key: value for key, value in given.items() if key != "layout"}
    if isinstance(path := options.get("path"), str):
        options["path"] = str(_path(path, source))
    layout: Layout = registry.build("layouts", name, options, where=source)
    root = layout.root(base)
    if not root.is_dir():
        raise DataError(f"{source}: no folder {root}; correct `path`, or fetch {layout.origin}")
    told = layout.described(root)
    told["tasks"] = layout.chosen(told["tasks"], source)
    named = f"{root} ({name})" if source == "data" else source
    return dataclasses.replace(parse_description({"path": str(root), **told}, named, Path()), layout=layout)


def _path(given: Json, source: str) -> Path:
    """The folder that ``path`` names, ``~`` and ``$NAME`` replaced."""
    # a number is a folder's name, too; YAML reads `path: 2017` as one
    if isinstance(given, bool) or not isinstance(given, str | int | Path):
        raise OptionError(f"{source}: path: expected the name of a folder, got {shown(given)}")
    text = shown(given, 4096) if isinstance(given, int) else str(given)
    return given_path(os.path.expandvars(text), f"{source}: path", DataError)


def _mapping(given: Mapping[str, Json], key: str, source: str) -> dict[str, Json]:
    value = given.get(key) or {}
    if not isinstance(value, Mapping):
        raise OptionError(f"{source}: `{key}` must be a mapping, got {shown(value)}")
    return {str(name): item for name, item in value.items()}
