"""One-to-one matching of boundary pixels within a distance, as the boundary benchmarks count hits.

BSDS's ``correspondPixels`` (SEISM calls the same file): two pixels may be matched if their Euclidean
distance is at most ``maxDist`` times the picture's diagonal; pixels without a partner in reach are left out; the rest
is one assignment problem, in which each side gets as many outlier nodes as the other side has pixels. A pair costs
its distance, in hundredths of a pixel and rounded; a link from a pixel to an outlier, or from outlier to outlier,
costs 100 times the largest distance; a node is linked to only six outliers, drawn at random, plus one at 100 times
that cost so that a solution exists; Goldberg's cost-scaling solver finds the cheapest assignment. One more pair
saves one outlier link, and no rearrangement costs as much unless it moves a hundred pairs by the whole tolerance. So
the result is a matching with as many pairs as possible, up to the randomness of the six links, and of least total
distance among those.

This file: precision and recall need only the number of pairs of such a matching with all outlier links (without
randomness), which does not depend on distances, and :func:`num_matched` counts these exactly, at all thresholds of a
map: a maximum-cardinality matching, kept from threshold to threshold and repaired along shortest augmenting paths. With
several annotators BSDS takes the union of the matched predictions, for which the pairs themselves would matter; the
tasks here have one target per picture.

Shape letters: H W pixels, T thresholds, N predicted pixels (at some threshold), M true pixels, E candidate pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]


def reach_px(size: tuple[int, int], max_distance: float) -> float:
    """Largest distance of a pair in pixels: ``max_distance`` times the diagonal of a picture of (height, width)."""
    return float(max_distance * np.hypot(*size))


def num_matched(pixels: Indices, kept: Mask, true: Mask, radius_px: float) -> NDArray[np.int64]:
    """Number of pairs of a maximum one-to-one matching, at each threshold.

    Args:
        pixels: (N,) indices into the flattened picture of all pixels predicted at any threshold, without repeats.
        kept: (T, N) which of them are predicted at each threshold; faster if neighbouring thresholds are similar.
        true: (H, W) the true boundary pixels.
        radius_px: largest distance of a pair (Euclidean, between centres).

    Returns:
        (T,) number of pairs.
    """
    row, column, bounds = _candidates(pixels, true, radius_px)
    counts = np.zeros(len(kept), np.int64)
    if not len(row):
        return counts
    matching = _Matching(len(bounds) - 1, len(pixels))
    # From the highest threshold down: few pixels at first, most of which are kept.
    for k in range(len(kept) - 1, -1, -1):
        if k + 1 < len(kept) and np.array_equal(kept[k], kept[k + 1]):
            counts[k] = counts[k + 1]
            continue
        matching.drop(kept[k])
        here = np.flatnonzero(kept[k].take(column))
        starts = np.searchsorted(here, bounds)
        matching.extend(row.take(here), column.take(here), starts)
        counts[k] = matching.size
    return counts


def _candidates(pixels: Indices, true: Mask, radius_px: float) -> tuple[Indices, Indices, Indices]:
    """All pairs in reach: (E,) index of the true pixel, ascending; (E,) of the predicted, near ones first; (M + 1,)
    start of each true pixel's pairs.
    """
    height, width = true.shape
    reach = int(radius_px)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    squared = dy**2 + dx**2
    inside = np.flatnonzero(squared <= radius_px**2)
    inside = inside[np.argsort(squared.reshape(-1)[inside], kind="stable")]
    stride = width + 2 * reach
    number = np.full((height + 2 * reach) * stride, -1)
    y, x = np.divmod(pixels, width)
    number[(y + reach) * stride + x + reach] = np.arange(len(pixels))
    y, x = np.nonzero(true)
    steps = dy.reshape(-1)[inside] * stride + dx.reshape(-1)[inside]
    found = number.take(((y + reach) * stride + x + reach)[:, None] + steps)
    there = found >= 0
    degree = there.sum(1)
    bounds = np.concatenate([[0], degree.cumsum()])
    return np.repeat(np.arange(len(y)), degree), found[there], bounds


class _Matching:
    """A one-to-one matching of M true with N predicted pixels, updated as the graph changes."""

    def __init__(self, num_true: int, num_predicted: int) -> None:
        self.num_true = num_true
        # Partner of each true pixel (−1: none) and of each predicted one (M: none).
        self.of_true = np.full(num_true, -1)
        self.of_predicted = np.full(num_predicted, num_true, np.int32)

    @property
    def size(self) -> int:
        """Number of pairs."""
        return int((self.of_true >= 0).sum())

    def drop(self, present: Mask) -> None:
        """Remove the pairs of predicted pixels that are not ``present``, (N,) bool."""
        lost = (self.of_true >= 0) & ~present.take(self.of_true)
        self.of_predicted[self.of_true[lost]] = self.num_true
        self.of_true[lost] = -1

    def extend(self, row: Indices, column: Indices, starts: Indices) -> None:
        """Extend the matching to a maximum one of the graph with (E,) edges ``row``–``column``, sorted by row.

        In rounds (a relaxed Hopcroft & Karp 1973): a breadth-first search from all unmatched true pixels at once,
        along any edge to a predicted pixel and from there along its matched edge back, grows one tree per root. A path
        of a tree to an unmatched predicted pixel is augmenting; paths of different trees share at most
        the last pixel, so one of each tree is flipped. If no tree reaches an unmatched pixel, no augmenting path is
        left, and the matching is maximum (Berge 1957).
        """
        self._pair_singles(row, column)
        n = self.num_true
        source = n + 1
        starts = starts.astype(np.int32)
        weights = np.ones(len(row) + n)
        while True:
            single = np.flatnonzero(self.of_true < 0)
            onward = self.of_predicted.take(column)
            ends = np.flatnonzero(onward == n)
            if not len(single) or not len(ends):
                return
            # Nodes: the true pixels; n for unmatched predicted ones; a source with edges to the unmatched true ones.
            targets = np.concatenate([onward, single], dtype=np.int32)
            pointer = np.concatenate([starts, [len(onward), len(targets)]], dtype=np.int32)
            graph = csr_array((weights[: len(targets)], targets, pointer), shape=(n + 2, n + 2))
            order, before = breadth_first_order(graph, source, directed=True, return_predecessors=True)
            if before[n] < 0:
                return
            rank = np.full(n + 2, n + 2)
            rank[order] = np.arange(len(order))
            # Pixels that no tree reaches now are never reached later, as flipping stays inside the trees.
            degree = np.diff(starts) * (rank[:n] < n + 2)
            if 2 * degree.sum() < len(row):
                inside = np.flatnonzero(rank.take(row) < n + 2)
                row, column = row.take(inside), column.take(inside)
                starts = np.concatenate([[0], degree.cumsum()], dtype=np.int32)
                ends = np.flatnonzero(self.of_predicted.take(column) == n)
            # The first unmatched partner of a true pixel is enough for one round.
            last = row.take(ends)
            ends = ends[np.concatenate([[True], last[1:] != last[:-1]])]
            ends = ends[rank.take(row.take(ends)) < n + 2]
            ends = ends[np.argsort(rank.take(row.take(ends)), kind="stable")]
            root = _roots(before, single)
            self._flip(row.take(ends), column.take(ends), root, before)

    def _pair_singles(self, row: Indices, column: Indices) -> None:
        """Greedily pair unmatched pixels with each other, the nearest of each true pixel first."""
        while True:
            both = (self.of_true.take(row) < 0) & (self.of_predicted.take(column) == self.num_true)
            row, column = row[both], column[both]
            if not len(row):
                return
            true, first = np.unique(row, return_index=True)
            predicted, chosen = np.unique(column[first], return_index=True)
            self.of_true[true[chosen]] = predicted
            self.of_predicted[predicted] = true[chosen]

    def _flip(self, last: Indices, single: Indices, root: Indices, before: NDArray[np.int32]) -> None:
        """Augment along paths that end in ``last`` then ``single``: at most one per root and per unmatched pixel."""
        while len(last):
            _, first = np.unique(root[last], return_index=True)
            new, chosen = np.unique(single[first], return_index=True)
            at = last[first[chosen]]
            used_root, used_single = np.zeros(len(root), bool), np.zeros(len(self.of_predicted), bool)
            used_root[root[at]] = True
            used_single[new] = True
            while len(at):
                old = self.of_true[at]
                self.of_true[at] = new
                self.of_predicted[new] = at
                further = old >= 0
                at, new = before[at[further]].astype(np.intp), old[further]
            left = ~used_root[root[last]] & ~used_single[single]
            last, single = last[left], single[left]


def _roots(before: NDArray[np.int32], single: Indices) -> Indices:
    """The root of each node's tree, by pointer doubling; meaningless for nodes outside the trees."""
    root = np.where(before >= 0, before, np.arange(len(before)))
    root[single] = single
    while True:
        further = root.take(root)
        if np.array_equal(further, root):
            return further
        root = further
