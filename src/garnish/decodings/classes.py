"""Scores of classes → the class of each pixel.

Shape letters: C classes, H W pixels. A value a class: its probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import numpy as np

from garnish.checking.plain_data import lengths
from garnish.decodings.decoding import Decoding
from garnish.drawing.colours import class_colours
from garnish.drawing.painting import paint_classes

#: Ids of a byte, of which 255 means "no label".
_MOST = 255


@final
@dataclass(frozen=True, kw_only=True)
class Classes(Decoding):
    """One score a class; the map holds the id of the largest, the first of equal ones.

    Attributes:
        names: of the classes, in the order of their ids.
    """

    are_shares: ClassVar[bool] = True
    nothing: ClassVar[float | None] = _MOST
    nothing_stored: ClassVar[float | None] = _MOST

    names: Annotated[tuple[str, ...], lengths(2, _MOST)]

    @property
    def channels(self) -> int:
        """Number of classes."""
        return len(self.names)

    def decode(self, raw: np.ndarray) -> np.ndarray:
        """(C, H, W) → ids (H, W) uint8."""
        ids: np.ndarray = raw.argmax(0).astype(np.uint8)
        return ids

    def values(self, raw: np.ndarray) -> np.ndarray:
        """(C, H, W) scores → their softmax, (C, H, W) float32: probabilities that add up to 1."""
        shares = raw.astype(np.float32)
        shares -= shares.max(0)  # so that nothing overflows
        np.exp(shares, out=shares)
        shares /= shares.sum(0)
        return shares

    def of_values(self, values: np.ndarray) -> np.ndarray:
        """(C, H, W) probabilities → ids (H, W) uint8; scores that differ in their last digit alone may tie."""
        return self.decode(values)

    def raw_of(self, values: np.ndarray) -> np.ndarray:
        """(C, H, W) probabilities → their logarithms, of which they are the softmax; 0 counts as 1e-38."""
        scores: np.ndarray = np.log(np.maximum(values, np.finfo(np.float32).tiny))
        return scores

    def paint(self, decoded: np.ndarray) -> np.ndarray:
        """(H, W) ids → (H, W, 3) the colours of :meth:`legend`; black where there is no label."""
        return paint_classes(decoded.astype(np.int64), class_colours(self.names))

    def stored(self, decoded: np.ndarray) -> np.ndarray:
        """Ids as uint8, (H, W); its file is a PNG of 8 bits with :meth:`palette`."""
        return decoded.astype(np.uint8)

    def palette(self) -> Sequence[tuple[int, int, int]]:
        """The colour of each id."""
        return class_colours(self.names)

    def legend(self) -> Mapping[str, tuple[int, int, int]]:
        """Class names and their colours."""
        return dict(zip(self.names, class_colours(self.names), strict=True))

    def class_ids(self, decoded: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """The map itself, and the names."""
        return decoded, self.names

    def cover(self, decoded: np.ndarray) -> np.ndarray:
        """1 where there is a class, 0 elsewhere."""
        return (decoded < len(self.names)).astype(np.float32)
