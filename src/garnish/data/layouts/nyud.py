"""Layout of NYUD-v2 for multi-task learning, in its two published variants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, final

from garnish.checking.plain_data import Json
from garnish.data.layouts.layout import Layout
from garnish.output import logger

_log = logger(__name__)

#: Classes 1 to 40 of the label files; ids 0 to 39.
_CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture"),
    *("counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes"),
    *("ceiling", "books", "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard"),
    *("person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag"),
    *("other structure", "other furniture", "other prop"),
)

#: Variant → endings of pictures, normals and edges.
_ENDINGS = {"A": ("jpg", "npy", "npy"), "B": ("png", "png", "png")}


@final
@dataclass(frozen=True, kw_only=True)
class NYUDMultiTask(Layout):
    """NYUD-v2: ``seg`` (40 classes, background ignored), ``depth`` (metres, 255: none), ``normals``, ``edges``.

    ``images/ID``, ``segmentation/ID.png``, ``depth/ID.npy``, ``normals/ID``, ``edge/ID``, ``gt_sets/{train,val}.txt``.
    Weight of the edges' positives: 0.95 in variant A (as in the survey), 0.8 in variant B (as in ATRC).

    Attributes:
        variant: A (``NYUD_MT``: pictures .jpg, normals and edges .npy), B (``NYUDv2``: .png, normals as 8-bit RGB), or
            null: detected from the folder ``images``.
    """

    folder: ClassVar[str] = "NYUD_MT"
    origin: ClassVar[str] = "A: github.com/SimonVandenhende/Multi-Task-Learning-PyTorch; B: github.com/brdav/atrc"
    marks: ClassVar[tuple[str, ...]] = ("gt_sets", "images", "segmentation")

    variant: Literal["A", "B"] | None = None

    def root(self, base: Path) -> Path:
        """As :meth:`Layout.root`; variant B's folder is ``NYUDv2``."""
        inner = base / self.path / "NYUDv2"
        return inner if self.variant != "A" and inner.is_dir() else super().root(base)

    def described(self, root: Path) -> dict[str, Json]:
        """Description of NYUD-v2: four tasks, with the file endings of the variant."""
        variant = self.variant
        if variant is None:
            images = root / "images"
            variant = "B" if next(images.glob("*.png"), None) and not next(images.glob("*.jpg"), None) else "A"
            _log.info("%s: read as variant %s of NYUDMultiTask", root, variant)
        picture, normals, edges = _ENDINGS[variant]
        return {
            "images": f"images/{{name}}.{picture}",
            "splits": {"train": "gt_sets/train.txt", "val": "gt_sets/val.txt"},
            "tasks": {
                "seg": {
                    "task": "Semantic",
                    "labels": "segmentation/{name}.png",
                    "classes": list(_CLASSES),
                    "offset": -1,
                },
                "depth": {"task": "Depth", "labels": "depth/{name}.npy", "invalid": 255, "max_metres": 10.0},
                "normals": {"task": "Normals", "labels": f"normals/{{name}}.{normals}"},
                "edges": {
                    "task": "Edges",
                    "labels": f"edge/{{name}}.{edges}",
                    "positive_weight": {"A": 0.95, "B": 0.8}[variant],
                    "max_distance": 0.011,  # for the boundary benchmark: tasks: {edges: {protocol: ods}}
                },
            },
        }
