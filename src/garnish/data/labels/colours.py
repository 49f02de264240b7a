"""Reader of colour-coded class maps: RGB or palette colours to class ids by a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, final

import numpy as np

from garnish.checking.bounds import ClassId
from garnish.checking.plain_data import Json
from garnish.data.guessing.colours_rule import guessed_colours
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.labels.colour_text import colours_of, pascal_colours
from garnish.data.labels.planes import colour_codes
from garnish.data.labels.reader import Reader
from garnish.errors import DataError, OptionError, shown, suggest
from garnish.targets.class_ids import ClassIds
from garnish.targets.target import IGNORE, Target
from garnish.tasks.task import Task


@final
@dataclass(frozen=True, kw_only=True)
class ColoursReader(Reader):
    """RGB or palette colours, mapped to classes by a table.

    Attributes:
        colours: class name → [r, g, b], "#ff8000", "#f80" or "255 128 0", or several in a list; the name ``ignore``
            means no label. "voc": class k has the k-th colour of Pascal's palette, and its last one means no label.
        others: the id of colours that are not listed; null: they are an error.
    """

    kind: ClassVar[str] = "colours"
    target: ClassVar[type[Target]] = ClassIds
    chosen_by: ClassVar[str | None] = "colours"
    palette_colours: ClassVar[bool] = True

    colours: Mapping[Json, Json] | Literal["voc"] | None = None
    others: ClassId | Literal["same"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.others == "same":
            raise OptionError("others: a colour that is not listed has no id to keep; write an id, or 255")
        if self.colours is not None and not self.colours:
            raise OptionError("colours: expected class name: [r, g, b], got {}")

    @property
    def exact(self) -> bool:
        """True: a slightly different colour is another class."""
        return True

    def check_task(self, task: Task) -> None:
        """Raise OptionError for a class that the task does not have, or an invalid colour."""
        self.table(task)

    def resolved(self, task: Task) -> Mapping[str, Json]:
        """The options, with the table of colours by class id."""
        return {**super().resolved(task), "colours": self.table(task)}

    def table(self, task: Task) -> Mapping[tuple[int, int, int], int] | None:
        """(R, G, B) → id by the task's class names, or by the order of ``colours`` if it has only their number."""
        if self.colours is None:
            return None
        if isinstance(self.colours, str):
            palette = pascal_colours(256)
            return {**{colour: k for k, colour in enumerate(palette[: task.channels])}, palette[IGNORE]: IGNORE}
        given = {str(name): colour for name, colour in self.colours.items()}
        names = tuple(name for name in given if name != "ignore")
        if task.label_names is not None or set(names) <= set(task.legend()):
            names = tuple(task.legend())
        table: dict[tuple[int, int, int], int] = {}
        for name, colour in given.items():
            if name != "ignore" and name not in names:
                raise OptionError(f"colours: unknown class {shown(name)}{suggest(name, (*names, 'ignore'))}")
            new = IGNORE if name == "ignore" else names.index(name)
            if name != "ignore" and new >= task.channels:
                raise OptionError(
                    f"colours: {len(names)} classes have colours, but the task has {task.channels}; correct `classes`"
                )
            for rgb in colours_of(colour, f"colours: class {name!r}"):
                if table.setdefault(rgb, new) != new:
                    raise OptionError(f"colours: {list(rgb)} stands for two classes; give each its own colour")
        return table

    @classmethod
    def guess(cls, evidence: LabelEvidence) -> Guess | None:
        """Semantic from few colours, named by a list beside the files."""
        return guessed_colours(evidence)

    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """(H, W) int64 class ids by the table."""
        listed = self.table(task)
        if listed is None:
            raise DataError(
                f"{file}: colours need a table; give `colours: {{class name: [r, g, b]}}` in the data description"
            )
        codes = colour_codes(raw, file)
        values, places = np.unique(codes, return_inverse=True)
        table = {r << 16 | g << 8 | b: new for (r, g, b), new in listed.items()}
        if self.others is None:
            unknown = [int(v) for v in values if int(v) not in table]
            if unknown:
                rgb = [unknown[0] >> 16, unknown[0] >> 8 & 255, unknown[0] & 255]
                count = int((codes == unknown[0]).sum())
                raise DataError(
                    f"{file}: {count} pixels have the colour {rgb}, which `colours` does not list "
                    f"({len(unknown)} such colours); "
                    "list it, or write `others: 255` to ignore what is not listed"
                )
        other = self.others if isinstance(self.others, int) else IGNORE
        ids = np.array([table.get(int(v), other) for v in values], dtype=np.int64)[places.reshape(codes.shape)]
        return ids
