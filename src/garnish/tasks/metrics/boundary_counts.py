"""Counts of one picture for the boundary benchmark, without torch, so that worker processes start quickly.

Shape letters: H W pixels, T thresholds.
"""

from __future__ import annotations

import functools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from garnish.tasks.metrics.boundary_matching import num_matched, reach_px
from garnish.tasks.metrics.non_maximum_suppression import suppress
from garnish.tasks.metrics.thinning import thin, thin_levels

Counts = tuple[NDArray[np.int64], NDArray[np.int64], int]


def count_picture(
    probability: NDArray[np.float32],
    true: NDArray[np.bool_],
    thresholds: tuple[float, ...],
    max_distance: float,
    nms: bool,
    thin_target: bool,
) -> Counts:
    """Numbers of matched pairs (T,) and of predicted pixels (T,) at each threshold, and of true pixels.

    Args:
        probability: (H, W) float32, 0 for pixels without a label.
        true: (H, W) boundary pixels of the target.
        thresholds: T ascending numbers; a pixel is predicted where its probability is above, compared in float32.
        max_distance: largest distance of a pair as a share of the picture's diagonal.
        nms: suppress non-maxima first.
        thin_target: thin ``true`` too.
    """
    if nms:
        probability = suppress(probability)
    if thin_target:
        true = thin(true)
    # The number of thresholds strictly below each value.
    levels = np.searchsorted(np.array(thresholds, np.float32), probability)
    pixels, kept = thin_levels(levels, len(thresholds))
    matched = num_matched(pixels, kept, true, reach_px((true.shape[0], true.shape[1]), max_distance))
    return matched, kept.sum(1), int(true.sum())


@functools.cache
def workers(processes: int) -> ProcessPoolExecutor:
    """A pool of processes kept until the program ends; threads would wait for each other in many short calls."""
    # Spawned, as a forked process would inherit torch's threads and devices.
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
