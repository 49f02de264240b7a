"""The map of one task from the outputs of overlapping windows, as a weighted mean of their values.

Where windows meet, one fades out while the other fades in. The weight w is sin² over the band: 0 at a window's border,
where it knows nothing of what lies beyond, and flat at both ends, so that no crease begins where a band does; and as
sin² + cos² = 1, weights of two neighbours add up to 1, and none are summed and divided by. The mean is computed as
a + w·(b − a), so that of equal values it is the value, exactly. A pixel is at most three such means of float32: float64
would change its last digits alone, and take twice the memory.

Only bands are kept: those between two rows of windows across the picture, and between two windows.

Shape letters: C channels of a raw output, K values a pixel, H W pixels of the picture, h w of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, final

import numpy as np

from garnish.decodings.decoding import Decoding
from garnish.tiles.plan import Stretch, TilePlan


class Finishing(Protocol):
    """What becomes of finished pixels: (…, H, W) of any dtype, the same in both ways."""

    def of_raw(self, raw: np.ndarray) -> np.ndarray:
        """Of the raw output (C, H, W) of one window."""

    def of_mean(self, values: np.ndarray) -> np.ndarray:
        """Of mean values (K, H, W)."""


@final
@dataclass(frozen=True)
class FinishedMaps:
    """Finished pixels are those of the decoded map; as its file holds them, if ``stored``."""

    decoding: Decoding
    stored: bool = False

    def of_raw(self, raw: np.ndarray) -> np.ndarray:
        """The decoded map."""
        return self._as_asked(self.decoding.decode(raw))

    def of_mean(self, values: np.ndarray) -> np.ndarray:
        """Likewise."""
        return self._as_asked(self.decoding.of_values(values))

    def _as_asked(self, decoded: np.ndarray) -> np.ndarray:
        if not self.stored:
            return decoded
        held = self.decoding.stored(decoded)
        return held if held.ndim == 2 else np.moveaxis(held, -1, 0)


@final
@dataclass(frozen=True)
class FinishedRaws:
    """Finished pixels are a raw output (C, H, W), for metrics: the window's own, or one that has the mean values."""

    decoding: Decoding

    def of_raw(self, raw: np.ndarray) -> np.ndarray:
        """The output itself."""
        return raw

    def of_mean(self, values: np.ndarray) -> np.ndarray:
        """A raw output of these values."""
        return self.decoding.raw_of(values)


@final
class TaskBlender:
    """Takes the outputs of one task window by window, left to right and top to bottom, and gives finished rows.

    Args:
        decoding: what the outputs mean.
        plan: the windows.
        finishing: what becomes of finished pixels.
    """

    def __init__(self, decoding: Decoding, plan: TilePlan, finishing: Finishing) -> None:
        self._decoding, self._plan, self._finishing = decoding, plan, finishing
        self._below: np.ndarray | None = None  # (K, band, W): values of the band under the row of windows
        self._right: dict[int, np.ndarray] = {}  # first row of a part of a window → (K, rows, band) of its right band
        self._rows: np.ndarray | None = None  # finished rows of this row of windows, (…, rows, W)

    def add(self, row: Stretch, column: Stretch, raws: Sequence[np.ndarray]) -> None:
        """Add the outputs of one window.

        Args:
            row: of the plan.
            column: likewise.
            raws: (C, h, w) float32 of the window, and of its mirror image, if that was run as well.
        """
        right: dict[int, np.ndarray] = {}
        for top, bottom, down in _parts(row):
            for left, end, across in _parts(column):
                place = slice(top - row.start, bottom - row.start), slice(left - column.start, end - column.start)
                if down is None and across is None and len(raws) == 1:
                    self._finish(row, top, left, self._finishing.of_raw(raws[0][:, *place]))
                    continue
                values = self._mean(raws, *place)
                if across == "in":
                    values = _faded(self._right[top], values, fading_in(end - left))
                if across == "out":
                    right[top] = values  # not whole before the next window
                elif down == "out":
                    self._keep_below(left, values)
                else:
                    if down == "in":
                        assert self._below is not None, "every row of windows but the last leaves a band"
                        values = _faded(self._below[:, :, left:end], values, fading_in(bottom - top)[:, None])
                    self._finish(row, top, left, self._finishing.of_mean(values))
        self._right = right

    def finished(self) -> np.ndarray:
        """(…, rows, W): what the row of windows that was added last has completed; call it after each."""
        assert self._rows is not None, "windows were added"
        found, self._rows = self._rows, None
        return found

    def _mean(self, raws: Sequence[np.ndarray], rows: slice, columns: slice) -> np.ndarray:
        """(K, …) float32 values of a part of a window, of one pass or of two; an array of its own."""
        values = np.array(self._decoding.values(raws[0][:, rows, columns]), np.float32)
        for raw in raws[1:]:
            width = raw.shape[-1]
            there = raw[:, rows, width - columns.stop : width - columns.start]
            values += self._decoding.mirrored(self._decoding.values(there))
            values *= np.float32(0.5)
        return values

    def _keep_below(self, left: int, values: np.ndarray) -> None:
        if self._below is None:
            self._below = np.empty((*values.shape[:2], self._plan.size[1]), np.float32)
        self._below[:, :, left : left + values.shape[2]] = values

    def _finish(self, row: Stretch, top: int, left: int, pixels: np.ndarray) -> None:
        if self._rows is None:
            self._rows = np.empty((*pixels.shape[:-2], row.shared - row.begin, self._plan.size[1]), pixels.dtype)
        down, across = slice(top - row.begin, top - row.begin + pixels.shape[-2]), slice(left, left + pixels.shape[-1])
        self._rows[..., down, across] = pixels


def _parts(stretch: Stretch) -> Iterator[tuple[int, int, Literal["in", "out"] | None]]:
    """(first, end, how it fades) of the parts of a window: shared with the one before, its own, shared behind."""
    if stretch.begin < stretch.alone:
        yield stretch.begin, stretch.alone, "in"
    if stretch.alone < stretch.shared:
        yield stretch.alone, stretch.shared, None
    if stretch.shared < stretch.end:
        yield stretch.shared, stretch.end, "out"


def _faded(before: np.ndarray, behind: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of two windows, by the weight of the later one, which is overwritten."""
    behind -= before
    behind *= weights
    behind += before
    return behind


def fading_in(width: int) -> np.ndarray:
    """(width,) float32 sin² weights of a window over a band at its beginning; of the one before it, 1 less these."""
    found: np.ndarray = (np.sin(np.pi / 2 * (np.arange(width) + 0.5) / width) ** 2).astype(np.float32)
    return found
