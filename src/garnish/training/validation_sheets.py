"""Sheets of a few validation pictures, the same at each evaluation: picture, label and prediction of every task.

What is drawn are outputs of the evaluation itself: nothing runs twice, and no random number is drawn.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from garnish.data.dataset import Batch
from garnish.drawing.map_sheet import MOST_LABELS
from garnish.drawing.sheet import contact_sheet
from garnish.pictures.bands import Bands
from garnish.pictures.given_picture import in_colour
from garnish.tasks.task import Task

#: Longer side of a cell in pixels, at most and at least, and the width of a sheet that is aimed at.
_CELL, _WIDTH = (96, 256), 1600
#: Pixels of a map in which the labels of its legend are looked for.
_LOOKED_AT = 2**16

RGB = tuple[int, int, int]


@final
@dataclass
class ValidationSheets:
    """Takes what it shows from the batches of one evaluation after the other.

    Args:
        tasks: the tasks that are evaluated.
        bands: of the pictures.
        wanted: indices of the pictures that are shown.
    """

    tasks: Mapping[str, Task]
    bands: Bands
    wanted: Sequence[int]
    _rows: dict[int, list[tuple[str, np.ndarray]]] = field(default_factory=dict)
    _seen: Counter[tuple[str, RGB]] = field(default_factory=Counter)
    names: dict[int, str] = field(default_factory=dict)

    def look(self, pictures: Sequence[int], batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Take the wanted pictures of a batch.

        Args:
            pictures: indices of the batch's pictures.
            batch: with their labels.
            outputs: task → raw outputs of the pictures that have its labels, at their size.
        """
        for row, index in enumerate(pictures):
            if index in self.wanted:
                self.names[index] = PurePath(batch.names[row]).name
                self._rows[index] = self._cells(row, batch, outputs)

    def drawn(self) -> Image.Image | None:
        """The sheet of the pictures taken since the last one, in their order; None: there were none."""
        rows = [self._rows[index] for index in sorted(self._rows)]
        seen = self._seen
        self._rows, self._seen = {}, Counter()
        return contact_sheet(rows, legend=self._legend(seen), cell_px=self._cell) if rows else None

    @property
    def _cell(self) -> int:
        return min(max((_WIDTH - 48) // (1 + 2 * len(self.tasks)) - 10, _CELL[0]), _CELL[1])

    def _cells(self, row: int, batch: Batch, outputs: Mapping[str, Tensor]) -> list[tuple[str, np.ndarray]]:
        cells = [("picture", self._reduced(_as_shown(batch.images[row], self.bands)))]
        for name, task in self.tasks.items():
            where = list(batch.where.get(name, ()))
            if name not in outputs or row not in where:
                continue
            place = where.index(row)
            target = batch.targets[name][place].as_subclass(Tensor)
            label, predicted = task.paint(target), task.paint(task.decode(outputs[name][place : place + 1])[0])
            for painted in (label, predicted) if task.legend() else ():
                self._seen.update(_colours(name, painted))
            cells += [(f"{name}: label", self._reduced(label)), (f"{name}: predicted", self._reduced(predicted))]
        return cells

    def _legend(self, seen: Counter[tuple[str, RGB]]) -> dict[str, RGB]:
        """The labels that are in the sheet, most pixels first where they are many."""
        several = sum(bool(task.legend()) for task in self.tasks.values()) > 1
        there = [
            (seen[name, (r, g, b)], f"{name}: {label}" if several else label, (r, g, b))
            for name, task in self.tasks.items()
            for label, (r, g, b) in task.legend().items()
            if seen[name, (r, g, b)]
        ]
        if len(there) > MOST_LABELS:
            there = sorted(there, key=lambda entry: -entry[0])[:MOST_LABELS]
        return {label: colour for _, label, colour in there}

    def _reduced(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3), no side longer than a cell's: what waits for the sheet must not be large."""
        height, width = pixels.shape[:2]
        scale = self._cell / max(height, width)
        if scale >= 1:
            return pixels
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.LANCZOS))


def _as_shown(image: Tensor, bands: Bands) -> NDArray[np.uint8]:
    """(H, W, 3) of a picture as batches have it."""
    held = image.as_subclass(Tensor).cpu()
    if not bands.is_rgb:
        return in_colour(held.float().numpy(), bands)
    if held.dtype != torch.uint8:
        held = (held.float() * 255).round().clamp(0, 255).to(torch.uint8)
    pixels: NDArray[np.uint8] = held.permute(1, 2, 0).contiguous().numpy()
    return pixels


def _colours(task: str, painted: NDArray[np.uint8]) -> Counter[tuple[str, RGB]]:
    """(task, colour) → pixels of a painted map, of every so-manieth of which."""
    flat = painted.reshape(-1, 3)
    flat = flat[:: max(1, len(flat) // _LOOKED_AT)].astype(np.int32)
    packed, counts = np.unique(flat @ np.array((65536, 256, 1)), return_counts=True)
    if len(packed) > 256:  # no map of classes
        return Counter()
    return Counter(
        {(task, (p >> 16, p >> 8 & 255, p & 255)): n for p, n in zip(packed.tolist(), counts.tolist(), strict=True)}
    )
