"""Writing a data set as a plain folder: ``SPLIT/images``, a folder of labels for each task, and a description."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import final

from garnish import registry
from garnish.checking.plain_data import Json
from garnish.data.conversion.label_forms import LabelForm, label_forms
from garnish.data.conversion.write_picture import PlacedPicture, write_picture
from garnish.data.description import Description
from garnish.data.folder import FolderDataset, description_of
from garnish.data.patterns import is_list
from garnish.errors import DataError, OptionError, plural, shown, suggest
from garnish.files.atomic import write_file, writing
from garnish.files.growing_folder import growing_folder
from garnish.files.path_text import given_path
from garnish.files.strict_yaml import write_yaml
from garnish.tasks.task import Task

#: Class of a task → the folder of its labels, by which folders without a description are known.
_FOLDERS = {"Semantic": "masks", "Depth": "depth", "Normals": "normals", "Edges": "edges", "Saliency": "saliency"}


@final
@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        out: the folder.
        pictures: split → number of pictures.
        labels: task → number of label files.
        forms: task → what its files hold.
        turned: pictures that an EXIF tag turned, written upright as PNG.
        linked: whether pictures are links.
    """

    out: Path
    pictures: Mapping[str, int]
    labels: Mapping[str, int]
    forms: Mapping[str, str]
    turned: int
    linked: bool


def convert(
    source: str | Path | Mapping[str, Json],
    out: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    link: bool = False,
    rounds_depth: bool = False,
    jobs: int | None = None,
    started: Callable[[int], None] = lambda total: None,
    done: Callable[[], None] = lambda: None,
) -> Converted:
    """Write all splits of a data set as a folder whose description reads the same pictures and targets.

    Pictures are copied byte by byte, and labels written as files that other tools read (:mod:`label_forms`). The folder
    appears when it is complete.

    Args:
        source: as :func:`garnish.data.folder.folder` takes it.
        out: the folder to write; must not exist.
        tasks: names of the tasks; None: all.
        splits: names of the splits; None: all there are.
        link: pictures are hard links to those of the source, symbolic ones where it lies on another disk.
        rounds_depth: write depth in whole millimetres where that is off by half a millimetre at most.
        jobs: threads; None: one for each core, eight at most.
        started: called with the number of pictures before the first.
        done: called after each picture, by any thread.

    Raises:
        DataError: a set that cannot be read, a label that its task rejects, ``out`` exists or cannot be written.
        OptionError: an unknown task or split.
    """
    folder = given_path(out, "out")
    if os.path.lexists(folder):
        raise DataError(f"{folder}: exists already; name another folder, or move it away")
    description = description_of(source)
    known = description.known_splits()
    for split in splits or ():
        if split not in known:
            raise OptionError(f"{description.source}: no split {shown(split)}{suggest(split, known)}")
    if not known:
        description.pictures("train")  # raises what is not there
        raise DataError(f"{description.source}: has no split; write `splits`")
    sets = {split: FolderDataset(description, split, tasks) for split in splits or known}
    named = next(iter(sets.values())).tasks
    folders = _folders_of(named)
    with growing_folder(folder, DataError) as made:
        places = [place for split, data in sets.items() for place in _places(data, made / _folder_name(split))]
        started(len(places))
        forms = {
            name: list(
                label_forms(description.tasks[name], name, suffix=_suffix(sets, name), rounds_depth=rounds_depth)
            )
            for name in named
        }
        with ThreadPoolExecutor(jobs or min(8, os.cpu_count() or 1)) as pool:
            turned = _write_all(pool, places, forms, folders, link=link, done=done)
        told = _description(description, named, sets, folders, {name: left[0] for name, left in forms.items()})
        with writing(folder, "", DataError):
            write_file(made / "data.yaml", write_yaml(told).encode(), synced=False)
        for split, data in sets.items():  # what was written is what is read
            back = FolderDataset(description_of(made / "data.yaml"), split)
            if back.describe() != data.describe() or len(back) != len(data):
                raise DataError(f"{folder}: split {split!r} reads back as {back.describe()}, not {data.describe()}")
    counts = {name: sum(data.describe()[name] for data in sets.values()) for name in named}
    return Converted(
        folder,
        {split: len(data) for split, data in sets.items()},
        counts,
        {name: left[0].told for name, left in forms.items()},
        turned,
        link,
    )


def _write_all(
    pool: ThreadPoolExecutor,
    places: Sequence[PlacedPicture],
    forms: Mapping[str, list[LabelForm]],
    folders: Mapping[str, str],
    *,
    link: bool,
    done: Callable[[], None],
) -> int:
    """Write pictures and labels; forms that cannot hold all labels of a task are taken off. Returns pictures turned."""

    def first(place: PlacedPicture) -> tuple[int, set[str]]:
        found = write_picture(place, {name: left[0] for name, left in forms.items()}, folders, link, with_picture=True)
        done()
        return found

    turned, failed = 0, set[str]()
    for count, unfit in pool.map(first, places):
        turned += count
        failed |= unfit
    while failed:
        for name in failed:
            forms[name].pop(0)
            if not forms[name]:
                raise DataError(f"convert: tasks.{name}: labels read back otherwise; leave the task out by --tasks")
            for place in places:
                shutil.rmtree(place.folder / folders[name], ignore_errors=True)
        again = {name: forms[name][0] for name in failed}
        failed = set()
        for _, unfit in pool.map(lambda p, now=again: write_picture(p, now, folders, link, with_picture=False), places):
            failed |= unfit
    return turned


def _description(
    source: Description,
    tasks: Mapping[str, Task],
    sets: Mapping[str, FolderDataset],
    folders: Mapping[str, str],
    forms: Mapping[str, LabelForm],
) -> dict[str, Json]:
    """The description of what was written."""
    told: dict[str, Json] = {"images": "{split}/images/*"}
    if source.of_bands:
        told["images"] = {
            band: f"{{split}}/images/{number}/{{name}}{Path(pattern).suffix}"
            for number, (band, pattern) in enumerate(source.of_bands.items(), 1)
        }
    if source.bands is not None:
        told["channels"] = registry.options_of(source.bands)
    told["splits"] = {split: _folder_name(split) for split in sets}
    told["tasks"] = {
        name: {
            "task": type(task).__name__,
            "labels": f"{{split}}/{folders[name]}/{{name}}{forms[name].suffix}",
            **_given(task),
            **forms[name].options,
        }
        for name, task in tasks.items()
    }
    return told


def _given(task: Task) -> dict[str, Json]:
    """The options of a task that are not the usual ones."""
    usual = {f.name: registry.plain(f.default) for f in fields(task)}
    return {name: value for name, value in registry.options_of(task).items() if value != usual.get(name)}


def _folders_of(tasks: Mapping[str, Task]) -> dict[str, str]:
    """Task → the folder of its labels, each another one."""
    found: dict[str, str] = {}
    for name, task in tasks.items():
        usual = _FOLDERS.get(type(task).__name__, "")
        plain = usual if usual and usual not in found.values() else _plain(name)
        while plain in (*found.values(), "images"):
            plain += "_"
        found[name] = plain
    return found


def _places(data: FolderDataset, folder: Path) -> list[PlacedPicture]:
    """The pictures of a split with names without folders, each another one."""
    found: dict[str, PlacedPicture] = {}
    for index in range(len(data)):
        flat = name = re.sub(r"^\.", "_", data.picture_name(index).replace("/", "__"))
        number = 2
        while name in found:
            name, number = f"{flat}-{number}", number + 1
        found[name] = PlacedPicture(data, index, folder, name)
    return list(found.values())


def _folder_name(split: str) -> str:
    plain = _plain(split)
    return f"{plain}_" if is_list(plain) else plain


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text).lstrip(".") or "_"


def _suffix(sets: Mapping[str, FolderDataset], task: str) -> str | None:
    """Suffix of the first label file of a task, None in a published layout, whose files have formats of their own."""
    for data in sets.values():
        for index in range(len(data)):
            if data.description.layout is None and task in data.label_files(index):
                return data.label_files(index)[task].suffix
    return None


def conversion_lines(made: Converted) -> list[str]:
    """What people are told of a conversion."""
    splits = ", ".join(f"{split} {count}" for split, count in made.pictures.items())
    lines = [f"{made.out}: {plural(sum(made.pictures.values()), 'picture')} ({splits})"]
    if made.turned:
        lines.append(f"{plural(made.turned, 'picture')} turned upright and written as PNG: EXIF had them on their side")
    lines += [f"{name}: {plural(made.labels[name], 'label')}, {told}" for name, told in made.forms.items()]
    return lines
