"""The input of a trunk where pictures have bands of their own: read, put into the trunk's order, normalised and padded.

Shape letters: I pictures, C bands, E bands beside red, green and blue, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.engine.open_sizes import rounded_up
from garnish.errors import DataError, OptionError
from garnish.pictures.given_bands import GivenBands

#: Integers that hold the numbers of picture files; NumPy calls them as torch does.
_INTEGERS = (torch.uint8, torch.uint16, torch.int16, torch.int32, torch.int64)
#: Bits from which the numbers of files are read in float64.
_WIDE = 32


@final
class Planes(nn.Module):
    """Pictures of some bands → the planes red, green and blue, then the other bands.

    Red, green and blue are normalised by the trunk's own mean and std; where one is not among the bands, its plane is
    0: the trunk's mean colour. The others are normalised by their statistics. What has no data (NaN, in every band by
    itself) becomes 0, the band's mean.

    Args:
        given: the bands.
        mean: of the trunk, of red, green and blue.
        std: likewise.
    """

    def __init__(self, given: GivenBands, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.given = given
        bands, known = given.bands, given.statistics
        order = [*bands.rgb, *bands.others]
        means = [*mean, *(known.mean[place] for place in bands.others if known is not None)]
        stds = [*std, *(known.std[place] for place in bands.others if known is not None)]
        for name, made in (
            ("order", torch.tensor([place or 0 for place in order])),
            ("absent", torch.tensor([place is None for place in order]).view(1, -1, 1, 1)),
            ("mean", torch.tensor(means, dtype=torch.float32).view(1, -1, 1, 1)),
            ("std", torch.tensor(stds, dtype=torch.float32).view(1, -1, 1, 1)),
        ):
            self.register_buffer(name, made, persistent=False)

    def check(self, images: Tensor, tasks: str) -> None:
        """Raise :class:`OptionError` unless pictures have these bands; ``tasks`` are those that take them."""
        names = self.given.bands.names
        if images.ndim != 4 or images.shape[1] != len(names) or 0 in images.shape[2:]:
            raise OptionError(
                f"pictures must be (N, {len(names)}, H, W), got {tuple(images.shape)}; {tasks} takes the bands"
                f" {named_bands(names)}"
            )
        if images.dtype not in _INTEGERS and not images.is_floating_point():
            raise OptionError(
                f"pictures are {images.dtype}; give the numbers of files, or floats of Bands.values (NaN: no data)"
            )
        self._ends(images.dtype)

    def forward(self, images: Tensor, multiple: int) -> Tensor:
        """(I, C, H, W) → (I, 3 + E, H', W').

        Args:
            images: floats as :meth:`garnish.pictures.bands.Bands.values` gives them, NaN where there are no data; or
                integers as files hold them, which are read by the bands.
            multiple: H' and W' are the next multiples of this many pixels.
        """
        mean: Tensor = self.mean  # type: ignore[assignment]
        x = self._values(images).to(mean.dtype).index_select(1, self.order)  # type: ignore[arg-type]
        x = (x - mean) / self.std  # type: ignore[operator]
        x = torch.where(torch.isnan(x) | self.absent, x.new_zeros(()), x)  # type: ignore[operator]
        height, width = x.shape[-2:]
        return F.pad(x, (0, rounded_up(width, multiple) - width, 0, rounded_up(height, multiple) - height))

    def _values(self, images: Tensor) -> Tensor:
        """What :meth:`garnish.pictures.bands.Bands.values` makes of integers; floats themselves."""
        ends = self._ends(images.dtype)
        if ends is None:
            return images
        bands, bits = self.given.bands, images.dtype.itemsize * 8
        wide = torch.float64 if bits >= _WIDE else torch.float32
        stored = images.to(torch.int64 if bits >= _WIDE else torch.int32)  # torch compares no unsigned ones

        def each(numbers: object) -> Tensor:
            found = torch.as_tensor(np.asarray(numbers, np.float64), dtype=wide, device=images.device)
            return found.view(-1, 1, 1) if found.ndim else found

        low, high = ends
        x = stored.to(wide)
        if np.any(np.asarray(bands.scale) != 1) or np.any(np.asarray(bands.offset) != 0):
            x = x * each(bands.scale) + each(bands.offset)
        x = (x - each(low)) / each(np.asarray(high) - np.asarray(low))
        if bands.nodata is None or bands.nodata != int_or_none(bands.nodata):
            return x
        return torch.where(stored == int(bands.nodata), x.new_full((), torch.nan), x)

    def _ends(self, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray] | None:
        """The stored numbers that become 0 and 1; None for floats, which are values already."""
        if dtype not in _INTEGERS:
            return None
        try:
            return self.given.bands.ends(np.dtype(str(dtype).removeprefix("torch.")), "pictures")
        except DataError as error:
            raise OptionError(str(error)) from None


def int_or_none(number: float) -> int | None:
    """A whole number as one; None: it is not whole, or infinite, so that no integer equals it."""
    return int(number) if np.isfinite(number) and number == int(number) else None


def named_bands(names: Sequence[str]) -> str:
    """Names of bands; of many the first four and the last."""
    return ", ".join(names if len(names) <= 6 else [*names[:4], "…", names[-1]])
