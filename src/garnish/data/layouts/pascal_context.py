"""Layout of PASCAL-Context for multi-task learning (``PASCAL_MT``), as used in the multi-task literature.

Shape letters: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.layouts.layout import Layout
from garnish.data.layouts.voc_names import VOC_CLASSES
from garnish.errors import DataError, shown
from garnish.files.label_files import read_array
from garnish.files.matlab import read_mat
from garnish.files.pictures import picture_size
from garnish.targets.target import IGNORE
from garnish.tasks.metrics.thinning import thin

#: Longest side of a label map, pixels; the set's own have 500 at most.
_MAX_SIDE = 1024
_PERSON = VOC_CLASSES.index("person")

#: Groups of human parts by id; Pascal-Part's names of the parts in each.
_GROUPS: dict[str, tuple[str, ...]] = {
    "background": (),
    "head": ("head", "hair", "leye", "reye", "lebrow", "rebrow", "lear", "rear", "nose", "mouth"),
    "torso": ("torso", "neck"),
    "upper arm": ("luarm", "ruarm"),
    "lower arm": ("llarm", "rlarm", "lhand", "rhand"),
    "upper leg": ("luleg", "ruleg"),
    "lower leg": ("llleg", "rlleg", "lfoot", "rfoot"),
}
_GROUP_OF = {part: group for group, parts in enumerate(_GROUPS.values()) for part in parts}

#: The largest id of PASCAL-Context's 459 classes.
_MAX_CLASS = 459

#: Ids of those of PASCAL-Context's 459 classes (1 "accordion" to 459 "wool") whose name is also among NYUD-v2's 894,
#: and of "tvmonitor": normals are used only there, as the network that predicted them was trained indoors.
_INDOOR_IDS = (
    *(3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50, 51, 53, 55, 56),
    *(59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104, 105, 107, 111, 113, 115, 122, 124),
    *(135, 141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172, 174, 181, 183, 184, 191, 193, 195, 197, 199, 202),
    *(213, 215, 216, 219, 220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261),
    *(263, 269, 272, 273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314),
    *(315, 319, 323, 329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383),
    *(384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432, 440, 441, 442),
    *(443, 444, 446, 454, 457),
)


@final
@dataclass(frozen=True, kw_only=True)
class PascalContextMultiTask(Layout):
    """PASCAL-Context multi-task: ``seg`` (21 classes), ``parts`` (7), ``saliency``, ``normals``, ``edges``.

    ``JPEGImages/ID.jpg``, ``ImageSets/Context/{train,val}.txt``, and

    - ``semseg/VOC12/ID.png``, else ``semseg/pascal-context/ID.png``: 255 has no label;
    - ``human_parts/ID.mat`` (Pascal-Part): parts of persons in six groups; a picture without any has no label;
    - ``sal_distill/ID.png``: salient where grey / 255 > 0.5;
    - ``normals_distill/ID.png``: 2v/255 − 1, where the class in ``pascal-context/trainval/ID.mat`` occurs indoors;
    - edges: where the Laplacian of that file's ``LabelMap`` (459 classes) is not 0, thinned.
    """

    folder: ClassVar[str] = "PASCAL_MT"
    origin: ClassVar[str] = "PASCAL_MT.tgz, github.com/SimonVandenhende/Multi-Task-Learning-PyTorch"
    marks: ClassVar[tuple[str, ...]] = ("JPEGImages", "ImageSets/Context", "semseg")

    def described(self, root: Path) -> dict[str, Json]:
        """Description of PASCAL-Context: five tasks."""
        return {
            "images": "JPEGImages/{name}.jpg",
            "splits": {"train": "ImageSets/Context/train.txt", "val": "ImageSets/Context/val.txt"},
            "tasks": {
                "seg": {
                    "task": "Semantic",
                    "labels": ["semseg/VOC12/{name}.png", "semseg/pascal-context/{name}.png"],
                    "classes": list(VOC_CLASSES),
                },
                "parts": {
                    "task": "Semantic",
                    "labels": "human_parts/{name}.mat",
                    "classes": list(_GROUPS),
                    "weight": 2.0,
                    "void_if_only_background": True,  # also applies to crops and augmented pictures
                },
                "saliency": {"task": "Saliency", "labels": "sal_distill/{name}.png", "threshold": 127.5},
                "normals": {"task": "Normals", "labels": "normals_distill/{name}.png"},
                "edges": {
                    "task": "Edges",
                    "labels": "pascal-context/trainval/{name}.mat",
                    "max_distance": 0.0075,  # for the boundary benchmark: tasks: {edges: {protocol: ods}}
                    "thin_target": False,  # they are one pixel wide already
                },
            },
        }

    def read(self, task: str, file: Path) -> np.ndarray:
        """Raw values of a label file: ids of parts (255: none), normals (black: none), bool edges."""
        if task == "parts" and file.suffix == ".mat":
            return _parts(file)
        if task == "edges" and file.suffix == ".mat":
            return label_edges(_label_map(file))
        raw = read_array(file)
        if task != "normals":
            return raw
        classes = _label_map(file.parent.parent / "pascal-context" / "trainval" / f"{file.stem}.mat")
        if classes.shape != raw.shape[:2]:
            raise DataError(
                f"{file}: {raw.shape[1]}x{raw.shape[0]}, but its label map is {classes.shape[1]}x{classes.shape[0]}; "
                "fetch the set again"
            )
        kept = np.isin(classes, _INDOOR_IDS)
        return raw * (kept if raw.ndim == 2 else kept[..., None])


def label_edges(labels: np.ndarray) -> np.ndarray:
    """(H, W) whole-number labels → (H, W) bool, one pixel wide: thinned non-zeros of the Laplacian.

    The Laplacian is the sum of the four neighbours less four times the pixel; the picture is mirrored at its border
    pixels (as OpenCV does by default).
    """
    wide = np.pad(labels.astype(np.int64), 1, mode="reflect" if min(labels.shape) > 1 else "edge")
    around = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]
    return thin(around != 4 * wide[1:-1, 1:-1])


def _label_map(file: Path) -> np.ndarray:
    """(H, W) int64 ids of the 459 classes, 0: none."""
    labels = read_mat(file, "LabelMap")
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.size == 0 or max(labels.shape) > _MAX_SIDE:
        raise DataError(
            f"{file}: LabelMap is no map of (height, width) numbers, {_MAX_SIDE} at most; fetch the file again"
        )
    if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
        raise DataError(f"{file}: LabelMap holds numbers that are not whole; fetch the file again")
    if labels.min() < 0 or labels.max() > _MAX_CLASS:
        raise DataError(f"{file}: LabelMap holds more than the ids 0 to {_MAX_CLASS}; fetch the file again")
    return labels.astype(np.int64)


def _parts(file: Path) -> np.ndarray:
    """(H, W) uint8 groups of the parts of all persons, 255 everywhere if there are none."""
    groups: np.ndarray | None = None
    for note in _structures(read_mat(file, "anno"), "anno", file):
        for thing in _structures(_field(note, "objects", file), "objects", file):
            found = _field(thing, "class_ind", file)
            if not isinstance(found, np.ndarray) or found.size != 1:
                raise DataError(f"{file}: no Pascal-Part annotation, 'class_ind' is no number; fetch it again")
            if found.item() != _PERSON:
                continue
            for part in _structures(_field(thing, "parts", file), "parts", file):
                name, mask = _field(part, "part_name", file), _field(part, "mask", file)
                if not isinstance(name, str) or name not in _GROUP_OF:
                    raise DataError(f"{file}: a person with the part {shown(name)}; known: {', '.join(_GROUP_OF)}")
                shape = mask.shape if isinstance(mask, np.ndarray) else ()
                groups = np.zeros(shape if len(shape) == 2 else (0, 0), np.uint8) if groups is None else groups
                if len(shape) != 2 or shape != groups.shape or max(shape) > _MAX_SIDE:
                    raise DataError(
                        f"{file}: the mask of {name!r} has shape {shown(shape)}, not {shown(groups.shape)} (sides up to"
                        f" {_MAX_SIDE}); fetch it again"
                    )
                groups[mask != 0] = _GROUP_OF[name]
    if groups is None or not groups.any():
        size = picture_size(file.parent.parent / "JPEGImages" / f"{file.stem}.jpg") if groups is None else groups.shape
        return np.full(size, IGNORE, np.uint8)
    return groups


def _structures(value: object, name: str, file: Path) -> list[dict[str, Json]]:
    """The structures of a MATLAB value; an empty matrix means "no entries"."""
    if isinstance(value, np.ndarray) and value.size == 0:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise DataError(f"{file}: no Pascal-Part annotation, {name!r} is no structure; fetch it again")
    return value


def _field(value: dict[str, Json], name: str, file: Path) -> object:
    if name not in value:
        raise DataError(f"{file}: no Pascal-Part annotation, a field {name!r} is missing; fetch it again")
    return value[name]
