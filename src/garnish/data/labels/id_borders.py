"""Edges where the numbers of a map change, two pixels wide.

Shape letters: H W pixels.
"""

from __future__ import annotations

import numpy as np

from garnish.targets.target import IGNORE


def id_borders(ids: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """(1, H, W) float32 in {0, 1, 255 = no label} of (H, W) numbers.

    A pixel is an edge if its left, right, upper or lower neighbour has another number. Ignored pixels, and pixels next
    to one that are not edges otherwise, have no label, as it is unknown whether they are edges.

    Args:
        ids: (H, W).
        ignored: (H, W) bool.
    """
    edge, unknown = np.zeros(ids.shape, bool), ignored.copy()
    for one, other in (
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:, :], np.s_[:-1, :]),
    ):
        known = ~(ignored[one] | ignored[other])
        change = (ids[one] != ids[other]) & known
        edge[one] |= change
        edge[other] |= change
        unknown[one] |= ignored[other]
        unknown[other] |= ignored[one]
    target = edge.astype(np.float32)
    target[unknown & ~edge] = IGNORE
    return target[None]
