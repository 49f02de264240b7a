"""Layout of Cityscapes with fine annotations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, final

from garnish.checking.plain_data import Json
from garnish.data.layouts.layout import Layout
from garnish.targets.target import IGNORE

#: Class → its id in ``labelIds`` files, in the order of the train ids; the other 15 of the ids 0 to 33 have no label.
_CLASSES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
_NUM_LABEL_IDS = 34


@final
@dataclass(frozen=True, kw_only=True)
class Cityscapes(Layout):
    """Cityscapes, fine: ``seg``, the 19 classes that are evaluated; all other labels are ignored.

    ``leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png``, ``gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png``.

    Attributes:
        ids: which label files: ``labelIds`` (0 to 33, mapped to 19) or ``labelTrainIds`` (0 to 18, 255: none).
    """

    folder: ClassVar[str] = "cityscapes"
    origin: ClassVar[str] = "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, cityscapes-dataset.com"
    marks: ClassVar[tuple[str, ...]] = ("leftImg8bit", "gtFine")

    ids: Literal["labelIds", "labelTrainIds"] = "labelIds"

    def described(self, root: Path) -> dict[str, Json]:
        """Description of Cityscapes: one task, ``seg``, from the label files that ``ids`` names."""
        entry: dict[str, Json] = {
            "task": "Semantic",
            "labels": f"gtFine/{{split}}/{{name}}_gtFine_{self.ids}.png",
            "classes": list(_CLASSES),
        }
        if self.ids == "labelIds":
            # every known id is listed, so that an unknown one is an error instead of being ignored
            trained = {raw: new for new, raw in enumerate(_CLASSES.values())}
            entry["map"] = {raw: trained.get(raw, IGNORE) for raw in range(_NUM_LABEL_IDS)}
        return {
            "images": "leftImg8bit/{split}/{name}_leftImg8bit.png",
            "splits": {"train": "train", "val": "val"},
            "tasks": {"seg": entry},
        }
