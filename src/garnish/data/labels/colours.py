"""Reader of colour-coded class maps: RGB or palette colours to class ids by a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, final

import numpy as np

from garnish.checking.bounds import ClassId
from garnish.checking.plain_data import Json
from garnish.data.labels.option_values import several, whole_number
from garnish.data.labels.planes import colour_codes
from garnish.data.labels.reader import Reader
from garnish.errors import DataError, OptionError, shown, suggest
from garnish.files.label_files import open_label
from garnish.targets.class_ids import ClassIds
from garnish.targets.target import IGNORE, Target
from garnish.tasks.task import Task


@final
@dataclass(frozen=True, kw_only=True)
class ColoursReader(Reader):
    """RGB or palette colours, mapped to classes by a table.

    Attributes:
        colours: class name → [r, g, b] or several [[r, g, b], …]; the name ``ignore`` means no label.
        others: the id of colours that are not listed; null: they are an error.
    """

    kind: ClassVar[str] = "colours"
    target: ClassVar[type[Target]] = ClassIds
    chosen_by: ClassVar[str | None] = "colours"

    colours: Mapping[Json, Json] | None = None
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
            is_list = isinstance(colour, list | tuple) and colour and isinstance(colour[0], list | tuple)
            for one in colour if is_list else [colour]:
                rgb = [whole_number(level, "colours") for level in several(one)]
                if len(rgb) != 3 or not all(0 <= level <= 255 for level in rgb):
                    raise OptionError(f"colours: class {name!r} has {one!r}; expected three numbers from 0 to 255")
                if table.setdefault((rgb[0], rgb[1], rgb[2]), new) != new:
                    raise OptionError(f"colours: {rgb} stands for two classes; give each its own colour")
        return table

    def load(self, file: Path, picture: str, size: tuple[int, int] | None) -> tuple[np.ndarray, int]:
        """As :meth:`Reader.load`, but palette pictures give their colours."""
        raw, facts = open_label(file, colours=True, upright=self.orientation != "stored")
        return raw, 1 if facts is None else facts.orientation

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
