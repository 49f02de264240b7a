"""Base class of the readers of id maps: the options that map raw ids to class ids.

Shape letters: H W pixels.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from garnish.checking.bounds import ChannelWeight, ClassId, RawId
from garnish.checking.plain_data import integers
from garnish.data.labels.planes import check_packed, plane, unpacked, whole
from garnish.data.labels.reader import Reader
from garnish.errors import DataError, OptionError
from garnish.targets.target import IGNORE


@dataclass(frozen=True, kw_only=True)
class IdMapReader(Reader, ABC):
    """An id map: grey, palette, 16-bit or ``.npy``.

    Attributes:
        ignore: raw ids that mean "no label"; so does 255 unless ``map`` lists it.
        map: raw id → id; ids that it does not list become ``others``, or are an error if that is null.
        others: the id of raw ids that are not listed; "same" keeps them.
        offset: added to raw ids; negative results have no label (−1 is "reduce zero label").
        packed: weights of red, green and blue, whose weighted sum is a pixel's id; null: one number per pixel.
        divide: K of ids that are class × K + instance; the other options then mean the class.
        below: what an id below ``divide`` is: "same", a class without instances (as in Cityscapes), or "instance", the
            number of an instance of class 0; null: ids from 1 to K − 1 are an error.
    """

    ignore: tuple[RawId, ...] = ()
    map: Mapping[RawId, ClassId] | None = None
    others: ClassId | Literal["same"] | None = None
    offset: RawId = 0
    packed: tuple[ChannelWeight, ...] | None = None
    divide: Annotated[int, integers(2, 10**9)] | None = None
    below: Literal["same", "instance"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_packed(self.packed)
        if self.map is not None and not self.map:
            raise OptionError("map: expected a mapping from raw id to id such as {7: 0, 8: 1}, got {}")
        if both := sorted(set(self.ignore) & set(self.map or ())):
            raise OptionError(f"{both[0]} is listed under 'ignore' and under 'map'; take it out of one")
        if self.others is not None and self.map is None:
            raise OptionError("others: needs 'map', which says what the listed ids become")
        if self.below is not None and self.divide is None:
            raise OptionError("below: needs 'divide', which says how many instances a class may have")

    @property
    def exact(self) -> bool:
        """True: an id that is off by one is another class."""
        return True

    def raw_ids(self, raw: np.ndarray, file: Path) -> np.ndarray:
        """(H, W) int64 ids as stored, before mapping; of class × K + instance the class."""
        remedy = (
            "write `colours: {class name: [r, g, b]}`, or `packed: [1, 256, 65536]` where red, green and blue make up"
            " one id"
        )
        ids = whole(plane(unpacked(raw, self.packed, file), file, remedy), file)
        return ids if self.divide is None else self._divided(ids, self.divide, file)

    def _divided(self, ids: np.ndarray, by: int, file: Path) -> np.ndarray:
        """The classes of ids that are class × ``by`` + instance; ids below 0 stay."""
        small = (ids >= 0) & (ids < by)
        if self.below is None and (odd := ids[small & (ids > 0)]).size:
            raise DataError(
                f"{file}: {odd.size} pixels have ids from {int(odd.min())} to {int(odd.max())}, below `divide: {by}`;"
                " write `below: same` if these are classes without instances, or `below: instance` if they are"
                " instances of class 0"
            )
        kept = (ids < 0) | small if self.below == "same" else ids < 0
        divided: np.ndarray = np.where(kept, ids, ids // by)
        return divided

    def mapped(self, ids: np.ndarray, file: Path) -> np.ndarray:
        """Raw ids → ids by ``ignore``, ``map``, ``others`` and ``offset``, in this order; may modify ``ids``."""
        listed = self.map or {}
        ignore = {*self.ignore, *({IGNORE} - set(listed))}
        if not listed and not self.offset:
            for value in ignore - {IGNORE}:
                ids[ids == value] = IGNORE
            return ids
        values, places = _distinct(ids)
        new: list[int] = []
        for value in values.tolist():
            if value in ignore:
                new.append(IGNORE)
                continue
            if listed and value not in listed and self.others is None:
                count = int((ids == value).sum())
                raise DataError(
                    f"{file}: {count} pixels have id {value}, which `map` does not list; list it, add it to `ignore`, "
                    "or write `others: 255` (`others: same` keeps such ids)"
                )
            if value in listed:
                value = listed[value]
            elif listed and isinstance(self.others, int):
                value = self.others
            if value != IGNORE:
                value += self.offset
                if not -(2**63) <= value < 2**63:
                    raise DataError(f"{file}: `offset` makes id {value} of one; correct it, or save smaller ids")
                if value < 0 and self.offset < 0:
                    value = IGNORE
            new.append(value)
        remapped: np.ndarray = np.array(new, dtype=np.int64)[places]
        return remapped


def _distinct(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of an integer map, ascending, and the index of each pixel's value among them."""
    largest = int(ids.max())
    if ids.min() < 0 or largest > 0xFFFF:
        values, places = np.unique(ids, return_inverse=True)
        return values, places.reshape(ids.shape)
    values = np.flatnonzero(np.bincount(ids.ravel()))  # many times faster than sorting all pixels
    rank = np.zeros(largest + 1, np.int64)
    rank[values] = np.arange(len(values))
    return values, rank[ids]
