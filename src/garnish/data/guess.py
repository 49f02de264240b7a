"""Guessing the description of a folder that has none from the usual folder names.

Supported are ``SPLIT/images`` + ``SPLIT/masks``, ``images/SPLIT`` + ``masks/SPLIT``, and ``images`` + ``masks`` without
splits; instead of or beside ``masks`` also ``labels``, ``depth``, ``normals``, ``edges`` and ``saliency``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.channels import BAND_SUFFIXES
from garnish.data.labels.binary import middle_level
from garnish.errors import DataError, GarnishError
from garnish.files.label_files import read_array, refuse_lossy
from garnish.files.pictures import PICTURE_SUFFIXES, is_picture_file, opened
from garnish.output import logger
from garnish.pictures.open_raster import open_raster

_log = logger(__name__)

_IMAGES = ("images", "imgs", "rgb", "image")
_LABELS = {
    "masks": "Semantic",
    "mask": "Semantic",
    "labels": "Semantic",
    "annotations": "Semantic",
    "semantic": "Semantic",
    "depth": "Depth",
    "normals": "Normals",
    "edges": "Edges",
    "saliency": "Saliency",
}
_TASK_NAMES = {"Semantic": "seg", "Depth": "depth", "Normals": "normals", "Edges": "edges", "Saliency": "saliency"}
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_MAX_READ = 2000  # most labels read to count classes or to find the largest depth


def plain_description(root: Path) -> dict[str, Json]:
    """Guess the description (as in a data.yaml) of a folder with the usual names.

    The class count is the largest id of the training masks plus one; depth in 16-bit files is taken as millimetres and
    ``max_metres`` as the largest training depth. The guess is logged in one line.

    Raises:
        DataError: unknown folder names, pictures that are no 8-bit RGB, or labels that need an option from the user;
            the message gives a YAML to edit.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give a folder of pictures or a YAML file that describes one")
    images, beside, splits = _layout(root)
    found = {name: task for name, task in _LABELS.items() if _label_folder(root, beside, splits, name)}
    if not found:
        why = f"no labels beside {images}; looked for folders {', '.join(_LABELS)}"
        raise _ask(root, images, {}, why, splits)
    _refuse_bands(root, images, splits)
    tasks: dict[str, dict[str, Json]] = {}
    for name, task in found.items():
        if _TASK_NAMES[task] in tasks:
            _log.warning("%s: folders %s are left out; %s are the labels of %s", root, name, *_taken(found, task))
            continue
        folder = _label_folder(root, beside, splits, name)
        assert folder is not None
        files = _labels(folder)
        if not files:
            raise _ask(root, images, tasks, f"{folder} holds no .png, .npy or .tif labels", splits)
        endings = sorted({file.suffix for file in files})
        template = beside.format(kind=name) + "/{name}" + endings[0]
        try:
            if len(endings) > 1:
                raise DataError(f"{folder} holds files that end in {' and '.join(endings)}; `labels` names one ending")
            options = _options(task, files)
        except DataError as error:
            guess = {"task": task, "labels": template} | _guess(task, files[0])
            raise _ask(root, images, tasks | {_TASK_NAMES[task]: guess}, str(error), splits) from None
        tasks[_TASK_NAMES[task]] = {"task": task, "labels": template, **options}
    description: dict[str, Json] = {"path": ".", "images": images, "tasks": tasks}
    if splits:
        description["splits"] = splits
    _log.info("%s: no description; read as %s", root, _flow(description))
    return description


def _refuse_bands(root: Path, images: str, splits: dict[str, str]) -> None:
    """Raise DataError, with a description to edit, if the first picture of the training folder is no 8-bit RGB."""
    folder = root / images.rpartition("/")[0].format(split=splits.get("train") or next(iter(splits.values()), ""))
    there = sorted(path for path in folder.iterdir() if is_picture_file(path, BAND_SUFFIXES))
    first = next((path for path in there if path.suffix.lower() in PICTURE_SUFFIXES), next(iter(there), None))
    if first is None:
        return  # an empty split, which is told when it is opened
    refused = "an array"
    if first.suffix.lower() in PICTURE_SUFFIXES:
        try:
            with opened(first) as (_, facts):
                refused = facts.refused(label=False) or ""
        except DataError:  # of bands that no ordinary reader knows, or damaged, which is told where it is read
            refused = "" if _channels(first) is None else "of other bands"
    if refused:
        told = _channels(first) or {"names": 4, "range": [0, 10000]}
        raise _ask(root, images, {}, f"{first} is no 8-bit RGB ({refused})", splits, told)


def _channels(path: Path) -> dict[str, Json] | None:
    """What ``channels`` may say of a file, as far as its header tells; None: damaged, or a library is missing."""
    try:
        with open_raster(path) as raster:
            count, kind = len(raster.facts.bands), np.dtype(raster.facts.dtype)
    except GarnishError:
        return None
    if kind == np.uint8:
        return {"names": count}
    return {"names": count, "range": [0, 1 if kind.kind == "f" else 10000]}


_GUESSES: dict[tuple[str, bool], dict[str, Json]] = {
    ("Semantic", False): {"classes": ["background", "thing"], "map": {0: 0, 7: 1}},
    ("Semantic", True): {
        "classes": ["background", "thing"],
        "colours": {"background": [0, 0, 0], "thing": [255, 0, 0]},
    },
    ("Depth", False): {"scale": 0.001, "max_metres": 10},
    ("Depth", True): {"packed": [1, 256, 65536], "scale": 0.001, "max_metres": 10},
    ("Edges", False): {"threshold": 127},
    ("Saliency", False): {"threshold": 127},
}


def _guess(task: str, file: Path) -> dict[str, Json]:
    """Example options for label files such as ``file``, for an error message."""
    try:
        coloured = _is_coloured(read_array(file))
    except DataError:
        coloured = False
    return _GUESSES.get((task, coloured), {})


def _is_coloured(raw: np.ndarray) -> bool:
    return raw.ndim == 3 and raw.shape[-1] == 3 and bool((raw != raw[..., :1]).any())


def _layout(root: Path) -> tuple[str, str, dict[str, str]]:
    """The pattern of pictures, the template of label folders, and split → folder name."""
    found: list[tuple[str, str, dict[str, str]]] = []
    for name in _IMAGES:
        if splits := _splits(root, f"{{split}}/{name}"):
            found.append((f"{{split}}/{name}/*", "{{split}}/{kind}", splits))
    for name in _IMAGES:
        if splits := _splits(root, f"{name}/{{split}}"):
            found.append((f"{name}/{{split}}/*", "{kind}/{{split}}", splits))
    for name in _IMAGES:
        if (root / name).is_dir() and not _splits(root, f"{name}/{{split}}"):
            found.append((f"{name}/*", "{kind}", {}))
    if len(found) > 1:
        _log.warning("%s: pictures are those of %s; %s left out", root, found[0][0], ", ".join(f[0] for f in found[1:]))
    if found:
        return found[0]
    raise _ask(root, "images/{split}/*.jpg", {}, "no folder images, images/train or train/images in it")


def _splits(root: Path, place: str) -> dict[str, str]:
    """Split → the name of its folder, for the folders that exist.

    Raises:
        DataError: two folders match the same split.
    """
    found: dict[str, str] = {}
    for split, names in _SPLITS.items():
        there = [name for name in names if (root / place.format(split=name)).is_dir()]
        if len(there) > 1:
            raise DataError(
                f"{root}: folders {' and '.join(there)} may both be the split {split!r}; rename or join them, or write"
                " `splits` in a data.yaml"
            )
        if there:
            found[split] = there[0]
    return found


def _taken(found: dict[str, str], task: str) -> tuple[str, str]:
    """The folder that the labels of a kind of task are read from, and the task's name."""
    return next(name for name, kind in found.items() if kind == task), _TASK_NAMES[task]


def _label_folder(root: Path, beside: str, splits: dict[str, str], name: str) -> Path | None:
    """The folder ``name`` of the training labels, None if it does not exist."""
    split = splits.get("train") or next(iter(splits.values()), "")
    folder = root / beside.format(kind=name).format(split=split)
    return folder if folder.is_dir() else None


def _labels(folder: Path) -> list[Path]:
    endings = (".npy", *PICTURE_SUFFIXES)
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in endings and not p.name.startswith(".") and p.is_file()
    )


def _options(task: str, files: list[Path]) -> dict[str, Json]:
    """The options that can be inferred from the label files."""
    if task == "Normals":
        return {}
    chosen = files[:: math.ceil(len(files) / _MAX_READ)]
    with ThreadPoolExecutor() as pool:
        if task == "Semantic":
            return _semantic_options(pool.map(_ids, chosen), len(chosen))
        if task == "Depth":
            return _depth_options(chosen[0], pool.map(_largest, chosen))
    levels = set(np.unique(read_array(chosen[0])).tolist())
    return {} if levels <= {0, 1} or levels <= {0, 255} else {"threshold": middle_level(max(levels))}


def _semantic_options(found: Iterable[set[int]], num_files: int) -> dict[str, Json]:
    ids: set[int] = set().union(*found)
    classes = ids - {255}
    if ids == {0, 255}:  # a single class plus "ignore" makes no sense, so this is white on black
        return {"classes": ["background", "foreground"], "map": {0: 0, 255: 1}}
    if not classes or min(classes) < 0 or max(classes) > 254:
        raise DataError(f"the masks hold ids {sorted(ids)[:8]}; list what they become under `map`")
    count = max(classes) + 1
    if count < 2:
        raise DataError("the masks hold nothing but id 0; a class count cannot be read from them")
    if count > 20 and len(classes) < count / 2:
        shown = ", ".join(map(str, sorted(classes)[:12]))
        raise DataError(
            f"the masks hold only {len(classes)} of the ids 0 to {count - 1} ({shown}); list them under `map`"
        )
    _log.info("%d classes read from %d training masks; ids that none holds: %d", count, num_files, count - len(classes))
    return {"classes": count}


def _depth_options(first: Path, largest: Iterable[float]) -> dict[str, Json]:
    raw = read_array(first)
    deepest = max(largest)
    if raw.dtype.kind == "f":
        return {"unit": "m", "max_metres": float(math.ceil(max(deepest, 1e-3)))}
    if _is_coloured(raw):
        raise DataError(f"{first} holds colours; write the weights of red, green and blue in the depth under `packed`")
    if raw.dtype == np.uint8:
        raise DataError(
            f"{first} holds 8-bit depth, whose unit cannot be guessed; write `scale: metres per step`,"
            " or `task: RelativeDepth` where it has none"
        )
    return {"unit": "mm", "max_metres": float(max(1, math.ceil(deepest / 1000)))}


def _ids(path: Path) -> set[int]:
    refuse_lossy(path)
    raw = read_array(path)
    if _is_coloured(raw):
        raise DataError(f"{path} holds colours; give each class its colour under `colours`")
    if raw.dtype.kind not in "bui":
        raise DataError(f"{path} holds {raw.dtype} numbers; save ids as whole numbers")
    return set(np.unique(raw).tolist())


def _largest(path: Path) -> float:
    raw = read_array(path)
    finite = raw[np.isfinite(raw)] if raw.dtype.kind == "f" else raw
    return float(finite.max()) if finite.size else 0.0


def _ask(
    root: Path,
    images: str,
    tasks: dict[str, dict[str, Json]],
    why: str,
    splits: dict[str, str] | None = None,
    channels: dict[str, Json] | None = None,
) -> DataError:
    labels = "masks/{split}/{name}.png" if "{split}" in images else "masks/{name}.png"
    example = {"seg": {"task": "Semantic", "labels": labels, "classes": ["background", "thing"]}}
    ready: dict[str, Json] = {"path": ".", "images": images, "tasks": tasks or example}
    if channels:
        ready["channels"] = channels
    if splits:
        ready["splits"] = splits
    return DataError(f"{root}: {why}; save this as {root / 'data.yaml'}, correct it and give that file: {_flow(ready)}")


def _flow(value: object) -> str:
    """YAML on one line; text is quoted where needed."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(v) for v in value) + "]"
    if isinstance(value, str):
        return value if value.replace("_", "").replace("-", "").isalnum() and not value.isdigit() else f'"{value}"'
    return str(value)
