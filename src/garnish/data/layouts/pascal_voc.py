"""Layout of Pascal VOC 2012, segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

from garnish.checking.plain_data import Json
from garnish.data.layouts.layout import Layout
from garnish.data.layouts.voc_names import VOC_CLASSES


@final
@dataclass(frozen=True, kw_only=True)
class PascalVOC(Layout):
    """Pascal VOC 2012: ``seg``, 21 classes with background; 255 (borders and difficult objects) has no label.

    ``JPEGImages/ID.jpg``, ``SegmentationClass/ID.png`` (palette), ``ImageSets/Segmentation/{train,val}.txt``.

    Attributes:
        augmented: the split train is ``trainaug.txt``; labels that ``SegmentationClass`` lacks are read from
            ``SegmentationClassAug``.
    """

    folder: ClassVar[str] = "VOCdevkit/VOC2012"
    origin: ClassVar[str] = "VOCtrainval_11-May-2012.tar, host.robots.ox.ac.uk/pascal/VOC/voc2012"
    marks: ClassVar[tuple[str, ...]] = ("JPEGImages", "ImageSets/Segmentation", "SegmentationClass")

    augmented: bool = False

    @classmethod
    def recognised(cls, folder: Path) -> bool:
        """Whether it is Pascal VOC, and not another set in its layout, whose tools write a list of classes."""
        own = ("labelmap.txt", "class_names.txt")
        return super().recognised(folder) and not any((folder / name).exists() for name in own)

    def described(self, root: Path) -> dict[str, Json]:
        """Description of Pascal VOC: one task, ``seg``, with more training labels if ``augmented``."""
        lists = "ImageSets/Segmentation"
        labels = ["SegmentationClass/{name}.png"] + ["SegmentationClassAug/{name}.png"] * self.augmented
        return {
            "images": "JPEGImages/{name}.jpg",
            "splits": {"train": f"{lists}/{'trainaug' if self.augmented else 'train'}.txt", "val": f"{lists}/val.txt"},
            "tasks": {"seg": {"task": "Semantic", "labels": labels, "classes": list(VOC_CLASSES)}},
        }
