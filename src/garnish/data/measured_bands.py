"""What is counted over the bands of a data set, by which a model normalises them ever after.

Shape letters: C bands, H W pixels.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import torch
from torch import Tensor

from garnish.checking.arguments import checked
from garnish.data.dataset import Dataset
from garnish.data.subset import chosen
from garnish.errors import DataError
from garnish.pictures.band_counts import BandCounts, add_band_counts, count_bands
from garnish.pictures.band_statistics import BandStatistics

#: Pictures that are read at most, evenly spaced by their order; pixels of each that are counted at most, of a grid.
MOST_PICTURES, MOST_PIXELS = 2000, 2**20


@checked
def band_statistics(dataset: Dataset) -> BandStatistics:
    """Mean, standard deviation, ends and share of no data of each band, over the training pictures as they are.

    Of a set of more than 2,000 pictures 2,000 are read, evenly spaced; of a picture of more than 2²⁰ pixels every k-th
    row and column is counted, with the smallest k that leaves no more. Nothing is drawn, so the same files give the
    same numbers. Sums are in float64; the order of the pictures matters to rounding alone.

    Args:
        dataset: the training split.

    Raises:
        DataError: no pictures, one that cannot be read, a band without any data or of one number only.

    Example:
        >>> found = gn.band_statistics(gn.Scenes(2, size=32))
        >>> len(found.mean), found.missing
        (3, (0.0, 0.0, 0.0))
    """
    read = chosen(len(dataset), MOST_PICTURES)
    if not read:
        raise DataError(f"{dataset.name}: no pictures; check its folders and split")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        counts = reduce(add_band_counts, pool.map(lambda index: count_image(dataset.image(index)), read))
    return counts.statistics(dataset.bands.names, dataset.name)


def count_image(image: Tensor) -> BandCounts:
    """Count a picture of a sample, (3, H, W) uint8 or (C, H, W) float32, on a grid if it is large."""
    step = max(1, math.ceil(math.sqrt(image.shape[-2] * image.shape[-1] / MOST_PIXELS)))
    values = image.as_subclass(Tensor)[:, ::step, ::step]
    return count_bands((values.float() / 255 if values.dtype == torch.uint8 else values).numpy())
