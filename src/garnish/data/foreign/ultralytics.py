"""Data descriptions of Ultralytics: outlines in text (YOLO), masks of ids, depth.

The format: docs.ultralytics.com/datasets/segment, /semantic and /depth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.finding import files_that_fit
from garnish.data.foreign.foreign_description import ForeignDescription
from garnish.data.ultralytics_places import PicturePlaces, placed
from garnish.errors import DataError, OptionError, shown
from garnish.files.label_files import read_array
from garnish.output import logger

_log = logger(__name__)

#: Keys that are read here; ``flip_idx`` and the like mean nothing where no keypoints are.
_READ = ("path", "train", "val", "validation", "test", "names", "nc", "masks_dir", "label_mapping", "depth_scale")
_ALSO = ("channels", "hold_out", "every")
#: Millimetres, Ultralytics' own default.
_DEPTH_SCALE = 1000
#: Most depth maps that are read for the largest depth.
_MOST_READ = 50
_BACKGROUND = "background"


@final
class UltralyticsYaml(ForeignDescription):
    """``path``, ``train``, ``val``, ``test`` and ``names`` or ``nc``; with ``masks_dir`` or ``depth_scale`` if any."""

    tool: ClassVar[str] = "Ultralytics"

    @classmethod
    def recognised(cls, given: Mapping[str, Json]) -> bool:
        """Whether it names classes and where the pictures of a split are."""
        return ("names" in given or "nc" in given) and any(key in given for key in ("train", "val", "validation"))

    @classmethod
    def described(cls, given: Mapping[str, Json], source: str, base: Path) -> dict[str, Json]:
        """One task: ``depth``, or ``seg`` from masks or from outlines, as Ultralytics would train it."""
        if given.get("kpt_shape") is not None:
            raise OptionError(
                f"{source}: kpt_shape: key points are learnt by no task here; name a set of outlines or masks"
            )
        if given.get("channels", 3) not in (1, 3):
            raise OptionError(
                f"{source}: channels: {shown(given['channels'])}; pictures of other bands need what their numbers mean:"
                " write a description with `channels` (docs/data.md)"
            )
        names = class_names(given, source)
        where = placed(given, source, base)
        is_depth = "depth_scale" in given or names == ["depth"]
        masks = given.get("masks_dir")
        if masks is None and not is_depth and (where.root / "masks").is_dir():
            masks = "masks"
        if masks is not None and not isinstance(masks, str):
            raise OptionError(f"{source}: masks_dir: expected the name of a folder, got {shown(masks)}")
        if is_depth:
            tasks = {"depth": _depth(given.get("depth_scale", _DEPTH_SCALE), where, source)}
        elif masks is not None:
            tasks = {"seg": _masks(names, masks.strip("/"), given.get("label_mapping"), where, source)}
        else:
            tasks = {"seg": _outlines(names, where)}
        _tell(source, tuple(str(key) for key in given if key not in (*_READ, *_ALSO)), "download" in given)
        kept = {key: given[key] for key in ("hold_out", "every") if key in given}
        return {"path": str(where.root), "images": where.images, "splits": dict(where.splits), **kept, "tasks": tasks}


def class_names(given: Mapping[str, Json], source: str) -> list[str]:
    """The names of the classes in the order of their numbers, from ``names`` (a list, or number → name) and ``nc``.

    Raises:
        OptionError: none, other numbers than 0, 1, 2, …, or another count than ``nc``.
    """
    names, count = given.get("names"), given.get("nc")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 65_536):
        raise OptionError(f"{source}: nc: expected the number of classes, got {shown(count)}")
    if names is None and isinstance(count, int):
        return [f"class_{number}" for number in range(count)]
    if isinstance(names, Mapping):
        numbered = {str(key): value for key, value in names.items()}
        if set(numbered) != {str(number) for number in range(len(numbered))}:
            raise OptionError(
                f"{source}: names: expected the numbers 0 to {len(numbered) - 1}, got {shown(list(names))}"
            )
        names = [numbered[str(number)] for number in range(len(numbered))]
    if not isinstance(names, Sequence) or isinstance(names, str) or not names:
        raise OptionError(f"{source}: names: expected a list of names or number: name, got {shown(names)}")
    if isinstance(count, int) and count != len(names):
        raise OptionError(f"{source}: names: {len(names)} names, and nc is {count}; correct one of them")
    return [str(name) for name in names]


def _outlines(names: Sequence[str], where: PicturePlaces) -> dict[str, Json]:
    """Outlines in text; what none covers is a class of its own: the last, or the first of two."""
    classes = _with_background(names)
    return {
        "task": "Semantic",
        "kind": "shapes",
        "format": "yolo",
        "labels": where.labels("labels", ".txt"),
        "classes": classes,
        "unlabelled": _BACKGROUND,
        "map": {str(number): name for number, name in enumerate(names)},
    }


def _with_background(names: Sequence[str]) -> list[str]:
    if _BACKGROUND in names:
        return list(names)
    return [_BACKGROUND, *names] if len(names) == 1 else [*names, _BACKGROUND]


def _masks(names: Sequence[str], folder: str, mapping: Json, where: PicturePlaces, source: str) -> dict[str, Json]:
    """Masks of ids; 255 is no label, and ids that ``label_mapping`` does not list stay as they are."""
    found: dict[str, Json] = {
        "task": "Semantic",
        "labels": [where.labels(folder, ending) for ending in (".png", ".PNG", ".bmp", ".tif")],
        "classes": [_BACKGROUND, *names] if len(names) == 1 else list(names),
    }
    if mapping is None:
        return found
    if not isinstance(mapping, Mapping):
        raise OptionError(f"{source}: label_mapping: expected id: class, got {shown(mapping)}")
    ids: dict[Json, Json] = {}
    for key, value in mapping.items():
        to = 255 if value in (None, "ignore_label") else value
        if isinstance(to, bool) or not str(to).strip().isdigit():
            raise OptionError(
                f"{source}: label_mapping.{shown(key)}: expected a number or ignore_label, got {shown(value)}"
            )
        ids[key] = int(str(to))
    return {**found, "map": ids, "others": "same"}


def _depth(scale: Json, where: PicturePlaces, source: str) -> dict[str, Json]:
    """Depth: PNG of 16 bits that are divided by ``depth_scale``, or metres in ``.npy``."""
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise OptionError(f"{source}: depth_scale: expected steps per metre above 0, got {shown(scale)}")
    if not where.has_folders:
        raise DataError(f"{source}: depth lies beside a folder `images`, and pictures lie in none; rename their folder")
    folder = where.folder("depth")
    files = {ending: sorted(files_that_fit(folder, f"**/*{ending}")) for ending in (".png", ".npy")}
    if all(files.values()) or not any(files.values()):
        found = "both .png and .npy" if all(files.values()) else "neither .png nor .npy"
        raise DataError(f"{source}: {folder} holds {found}; write a description that says where the depth maps are")
    ending = ".png" if files[".png"] else ".npy"
    chosen = files[ending][:: math.ceil(len(files[ending]) / _MOST_READ)]
    per_step = 1 / scale if ending == ".png" else 1.0
    deepest = max(_deepest(file) for file in chosen) * per_step
    metres = float(max(1, math.ceil(deepest)))
    _tell_depth(source, f"max_metres: {metres:g} is the largest depth of {len(chosen)} maps, rounded up")
    made: dict[str, Json] = {"task": "Depth", "labels": where.labels("depth", ending), "max_metres": metres}
    if ending == ".png":
        return {**made, "scale": per_step}
    return {**made, "unit": "m", "invalid": ["nan", "inf", "-inf"]}


def _deepest(file: Path) -> float:
    raw = read_array(file)
    finite = raw[np.isfinite(raw)]
    return float(finite.max()) if finite.size else 0.0


# a set is opened once a split, and again by checks
@cache
def _tell(source: str, unread: tuple[str, ...], download: bool) -> None:
    """Say once how a file is read, and what of it is not."""
    rest = ", ".join(shown(key, 30)[1:-1] for key in unread)
    _log.info("%s: read as a description of Ultralytics%s", source, f"; not read: {rest}" if rest else "")
    if download:
        _log.info("%s: download: nothing is fetched or run; fetch the set yourself if it is not there", source)


@cache
def _tell_depth(source: str, text: str) -> None:
    _log.info("%s: %s", source, text)
