"""Picture files of decoded maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def with_suffix(path: Path, suffix: str) -> Path:
    """``path`` plus ``suffix``; dots in the name stay (``a.b`` → ``a.b.png``)."""
    return path.with_name(path.name + suffix)


def write_png(pixels: NDArray[np.uint8] | NDArray[np.uint16], path: Path) -> Path:
    """Write (H, W) uint8 or uint16, or (H, W, 3) uint8, without loss; returns ``path``."""
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG")
    return path
