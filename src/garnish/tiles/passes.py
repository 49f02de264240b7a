"""Runs a model over the windows of a picture, and hands on finished rows; the picture and its maps are never held.

Shape letters: C bands of the picture or channels of an output, H W pixels of the picture, h w of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import numpy as np

from garnish.decodings.decoding import Decoding
from garnish.output import logger
from garnish.pictures.raster import Window
from garnish.tiles.blending import Finishing, TaskBlender
from garnish.tiles.plan import TilePlan, window_of
from garnish.tiles.stopping import check_stopped

_log = logger(__name__)

#: A window → (C, h, w), as the model takes it.
Reader = Callable[[Window], np.ndarray]
#: (C, h, w) → task → raw output (C, h, w) float32, finite.
Runner = Callable[[np.ndarray], dict[str, np.ndarray]]
#: Takes the finished rows (…, rows, W) of a task, in order from the top.
Sink = Callable[[str, np.ndarray], None]


def run_windows(
    plan: TilePlan,
    read: Reader,
    run: Runner,
    tasks: Mapping[str, tuple[Decoding, Finishing]],
    sink: Sink,
    *,
    flip: bool = False,
) -> None:
    """Run all windows of a plan, row by row, one at a time, with all tasks in one pass.

    (Several windows in a batch take their multiple of memory; at the sizes of windows that are meant, one fills a
    machine, so they gain no time.)

    Args:
        plan: the windows.
        read: gives their pixels.
        run: runs one.
        tasks: what the outputs of each task mean, and what becomes of finished pixels.
        sink: takes finished rows.
        flip: run the mirror image of each window as well, and take the mean.
    """
    for task, (decoding, _) in tasks.items():
        if plan.count > 1 and not decoding.same_scale:
            _log.warning(
                "task %s has a scale of its own in each of %d windows, so its map has steps where they meet; run the "
                "picture whole (tile none), or smaller",
                *(task, plan.count),
            )
    blenders = {task: TaskBlender(decoding, plan, finishing) for task, (decoding, finishing) in tasks.items()}
    for row in plan.rows:
        for column in plan.columns:
            check_stopped()
            pixels = read(window_of(row, column))
            found = [run(pixels)]
            if flip:
                found.append(run(pixels[..., ::-1].copy()))
            for task, blender in blenders.items():
                blender.add(row, column, [raws.pop(task) for raws in found])  # freed one by one
        for task, blender in blenders.items():
            sink(task, blender.finished())


@final
class WholeMaps:
    """A sink that holds whole maps.

    Attributes:
        maps: task → (…, H, W).
    """

    def __init__(self, height: int) -> None:
        self._height, self._done = height, dict[str, int]()
        self.maps: dict[str, np.ndarray] = {}

    def __call__(self, task: str, rows: np.ndarray) -> None:
        """Take the next rows of a task."""
        if rows.shape[-2] == self._height:
            self.maps[task] = rows
            return
        if task not in self.maps:
            self.maps[task] = np.empty((*rows.shape[:-2], self._height, rows.shape[-1]), rows.dtype)
        done = self._done.get(task, 0)
        self.maps[task][..., done : done + rows.shape[-2], :] = rows
        self._done[task] = done + rows.shape[-2]


def planes_reader(planes: np.ndarray) -> Reader:
    """Windows (C, h, w) of a picture (C, H, W) that is held."""

    def read(window: Window) -> np.ndarray:
        top, left, height, width = window
        return np.ascontiguousarray(planes[:, top : top + height, left : left + width])

    return read
