"""Making a sample of an item: its picture, then the labels of the tasks that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from garnish.data.dataset import Sample
from garnish.data.held.columns import Columns
from garnish.data.held.images import image_of
from garnish.data.held.targets import target_of
from garnish.data.held.values import kind_of
from garnish.data.labels.reader import Reader
from garnish.data.labels.written import written
from garnish.pictures.bands import Bands
from garnish.tasks.task import Task


@final
@dataclass(frozen=True)
class ItemReading:
    """How items are read.

    Attributes:
        tasks: by name.
        readers: of their labels.
        columns: where pictures and labels stand.
        bands: of the pictures.
    """

    tasks: Mapping[str, Task]
    readers: Mapping[str, Reader]
    columns: Columns
    bands: Bands

    def sample(self, item: Any, where: str) -> Sample:
        """The picture of an item with its labels, all checked; ``where`` is its name.

        Raises:
            DataError: an item of another form; a picture or label that cannot be taken, or of different sizes.
        """
        image, orientation = image_of(self.columns.picture(item, where), self.bands, where)
        targets = {
            task: target_of(value, self.tasks[task], self.readers[task], where, task, orientation)
            for task, value in self.columns.labels(item, where).items()
        }
        return Sample(image=image, targets=targets, name=where)

    def kinds(self, item: Any, where: str) -> dict[str, str]:
        """``image`` and task → how an item holds it, in a few words."""
        held = {"image": self.columns.picture(item, where), **self.columns.labels(item, where)}
        return {name: kind_of(value) for name, value in held.items()}

    def facts(self) -> dict[str, str]:
        """Aspect → the way of reading, as text that is equal where the same numbers are made of an item."""
        ways = [f"{task}: {written(self.readers[task], self.tasks[task])}" for task in sorted(self.tasks)]
        told = {} if self.bands.is_rgb else {"bands of pictures": repr(self.bands)}
        return {"ways of reading labels": "; ".join(ways), "columns": str(sorted(self.columns.given.items())), **told}
