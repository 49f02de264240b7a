"""A painted map over its picture.

Shape letters: H W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def blended(picture: NDArray[np.uint8], colours: NDArray[np.uint8], cover: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: ``picture`` where ``cover`` is 0, ``colours`` where it is 1, and the mean by it between.

    Args:
        picture: (H, W, 3).
        colours: (H, W, 3).
        cover: (H, W), in [0, 1].
    """
    share = cover.astype(np.float32)[..., None]
    mixed = picture * (np.float32(1) - share) + colours * share
    rounded: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return rounded
