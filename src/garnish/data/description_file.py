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
from garnish.data.description import Description, SplitValue
from garnish.data.foreign_descriptions import translated
from garnish.data.held_out import read_hold_out
from garnish.data.labels.choosing import label_options
from garnish.data.labels.labelled import labelled
from garnish.data.layouts.layout import Layout
from garnish.data.name_lists import inline_names, read_lists
from garnish.data.patterns import LIST_SUFFIXES, checked_pattern, checked_split, is_list
from garnish.data.table import read_table
from garnish.errors import DataError, OptionError, shown, suggest
from garnish.files.path_text import given_path
from garnish.files.strict_yaml import read_yaml

_KEYS = ("path", "images", "table", "channels", "splits", "every", "hold_out", "tasks")

_HIGHER = "write `%s:` at the top level, beside `tasks`"


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
    given = translated(given, source, base)
    if "shards" in given:
        raise OptionError(f"{source}: its pictures lie in shards; look at one split: garnish check --data {source}")
    if "layout" in given:
        return _laid_out(given, source, base)
    for key in given:
        if key not in _KEYS and "data" in given and "images" not in given:
            raise OptionError(f"{source}: is a recipe and no data set; give a file of what stands under its `data`")
        if key not in _KEYS and key in ("task", *label_options()):
            raise OptionError(
                f"{source}: {key} stands beside `tasks` and is an option of one task; write `tasks: {{NAME: {{task: …,"
                f" {key}: …}}}}`"
            )
        if key not in _KEYS:
            raise OptionError(f"{source}: unknown key {shown(key)}{suggest(str(key), _KEYS)}")
    bands = None if given.get("channels") is None else read_channels(given["channels"], f"{source}: channels")
    has_table = given.get("table") is not None
    root = base / _path(given.get("path", "."), source)
    images = _column(given.get("images")) if has_table else given.get("images")
    of_bands = band_patterns(images, bands, f"{source}: images")
    if of_bands:
        images = next(iter(of_bands.values()))
    if not isinstance(images, str) or not (has_table or "*" in images or "{name}" in images):
        raise OptionError(f'{source}: `images` must be a pattern such as "images/{{split}}/*.jpg"; got {images!r}')
    splits = _splits(given, source, root, in_folders="{split}" in images or has_table, images=images)
    hold_out = None if given.get("hold_out") is None else read_hold_out(given["hold_out"], f"{source}: hold_out")
    if hold_out is not None and "val" in splits:
        raise OptionError(f"{source}: hold_out: `splits` names a split 'val' already; leave one of them out")
    every = _mapping(given, "every", source)
    named = [*splits, *([] if hold_out is None else ["val"])]
    for split, step in every.items():
        if isinstance(step, bool) or not isinstance(step, int) or step < 1:
            raise OptionError(f"{source}: every.{split}: expected a whole number above 0, got {step!r}")
        if splits and split not in named:
            raise OptionError(f"{source}: every.{split}: no such split{suggest(split, named)}")
    entries = _mapping(given, "tasks", source)
    if has_table:
        entries = {
            name: {**entry, "labels": _column(entry.get("labels"))} if isinstance(entry, Mapping) else entry
            for name, entry in entries.items()
        }
    if not entries:
        raise OptionError(
            f'{source}: `tasks` is empty; write e.g. `tasks: {{depth: {{task: Depth, labels: "depth/{{name}}.png", '
            "unit: mm}}`"
        )
    _check_level(entries, source)
    tasks = {name: labelled(entry, f"{source}: tasks.{name}", has_table) for name, entry in entries.items()}
    templates = []
    for name, entry in tasks.items():
        for template in entry.labels.labels:
            templates.append(checked_pattern(template, f"{source}: tasks.{name}.labels", has_table=has_table))
    if bands is not None and not bands.is_rgb:
        for name, entry in tasks.items():
            if entry.labels.orientation == "stored":
                raise OptionError(
                    f"{source}: tasks.{name}.orientation: 'stored' is for 8-bit RGB; pictures with `channels` are"
                    " turned upright when they are read, so save their labels upright"
                )
    images = checked_pattern(images, f"{source}: images", has_table=has_table)
    if has_table and of_bands:
        raise OptionError(f"{source}: table: pictures in one file a band are found by names; leave `table` out")
    return Description(
        source=source,
        root=root,
        images=images,
        splits=splits,
        every=every,
        tasks=tasks,
        bands=bands,
        of_bands=of_bands,
        hold_out=hold_out,
        table=read_table(given["table"], source, root, images, templates) if has_table else None,
    )


def _check_level(entries: Mapping[str, Json], source: str) -> None:
    """Raise OptionError for a key of the whole description that is written among the tasks, or in one of them."""
    for name, entry in entries.items():
        task = entry.get("task") if isinstance(entry, Mapping) else None
        if name in _KEYS and task is None:
            raise OptionError(f"{source}: tasks.{name}: is no task but a key of the description; {_HIGHER % name}")
        taken = [f.name for f in dataclasses.fields(registry.find("tasks", task))] if isinstance(task, str) else []
        for key in entry if isinstance(entry, Mapping) else ():
            if key in _KEYS and key not in (*taken, *label_options()):
                raise OptionError(f"{source}: tasks.{name}.{key}: is for all tasks together; {_HIGHER % key}")


def _splits(given: Mapping[str, Json], source: str, root: Path, in_folders: bool, images: str) -> dict[str, SplitValue]:
    """What ``splits`` says: a mapping, or a file that holds the names of several splits, which is read here."""
    value = given.get("splits")
    if isinstance(value, str):
        if not is_list(value) or value.lower().endswith(".txt"):
            raise OptionError(
                f"{source}: splits: {value!r}; write {{train: …, val: …}}, or a .json, .yaml or .csv file of all splits"
            )
        file = root / checked_split(value, f"{source}: splits")
        found = read_lists(file)
        if None in found:
            raise DataError(
                f"{file}: says of no name to which split it belongs; write split: [names], or in a CSV with a head a"
                f" column `split`; or name the file under one split of {source}"
            )
        return {str(split): names for split, names in found.items()}
    made: dict[str, SplitValue] = {}
    for split, one in _mapping(given, "splits", source).items():
        at = f"{source}: splits.{split}"
        if isinstance(one, list | tuple):
            made[split] = inline_names(one, at)
            continue
        if isinstance(one, bool) or not isinstance(one, str | int):
            raise OptionError(
                f"{at}: {shown(one)}; write the name of a folder, a file with names such as {split}.txt, or"
                " [name, name, …]"
            )
        if not is_list(str(one)) and not in_folders and split != "all":
            raise OptionError(
                f"{at}: {one!r} is no list ({', '.join(LIST_SUFFIXES)}), and `images: {images}` has no {{split}} for a"
                f" folder's name, so it would hold every picture; put {{split}} into `images`, or list the names in"
                f" {split}.txt"
            )
        made[split] = checked_split(str(one), at)
    return made


def _column(given: Json) -> Json:
    """``{column: mask}``, which with a table is another way to write ``"{mask}"``; anything else unchanged."""
    if isinstance(given, Mapping) and list(given) == ["column"] and isinstance(given["column"], str):
        return "{" + given["column"] + "}"
    return given


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
