"""Check "sentinels": numbers in depth files that mean "not measured", and are read as depths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np

from garnish.checking.plain_data import Json
from garnish.doctor.check import Check, Seen
from garnish.doctor.depth_planes import measured_depth, stored_depth
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_of
from garnish.targets.distances import Distances
from garnish.tasks.task import Task

#: A pile: this share of the measured pixels, and so many; how far from the next number, as a factor, and from the
#: largest (or smallest) of nearly all other labels.
_SHARE, _LEAST, _GAP = 0.002, 16, 1.5


@final
class Sentinels(Check):
    """One number at the end of the range that many pixels have, with a gap to all others.

    A wall that faces the camera has one depth too; but the floor leads up to it without a gap, and others of the set
    are as far away. The largest number of a file's type (65535) needs no comparison.
    """

    name: ClassVar[str] = "sentinels"
    finds: ClassVar[str] = (
        "depths that mean 'not measured': one number (65535, 100000, 0.001), far from all others, that many pixels"
        " have; NaN and infinity that are not listed"
    )
    level: ClassVar[Level] = "hint"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task of distances."""
        return [(name,) for name, task in tasks.items() if task.target is Distances]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """(Words for numbers that are none, the end of the range of the type, piles at both ends, ``invalid``)."""
        found, values = stored_depth(seen, tasks[0]), measured_depth(seen, tasks[0])
        if found is None or values is None:
            return None
        numbers, reader = found
        listed = [str(value) for value in reader.invalid]
        odd = {}
        if numbers.dtype.kind == "f":
            odd = {"nan": int(np.isnan(numbers).sum()), "inf": int(np.isposinf(numbers).sum())}
        most = np.iinfo(numbers.dtype).max if numbers.dtype.kind in "ui" else None
        ends = (_pile(values, 1), _pile(values, -1)) if len(values) else None
        return {name: n for name, n in odd.items() if n and name not in listed}, most, ends, reader.invalid

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for each such number."""
        listed: list[Json] = list(dict.fromkeys(value for one in seen for value in one.kept[3]))
        key = f"tasks.{tasks[0]}.invalid"
        for name in ("nan", "inf"):
            if those := [(float(one.kept[0][name]), one) for one in seen if name in one.kept[0]]:
                what = f"{int(max(those, key=lambda x: x[0])[0])} depths are {name.upper()}, which is no distance"
                remedy = f"write `invalid: {name}` ({key}) if that means 'not measured'"
                yield fault_of(
                    cls, those, what, remedy, of=len(seen), tasks=tasks, level="error", write={key: [*listed, name]}
                )
        for end, words in ((0, ("beyond", "largest")), (1, ("below", "smallest"))):
            yield from cls._piles(seen, tasks, end, words, key, listed)

    @classmethod
    def _piles(
        cls,
        seen: Sequence[Seen],
        tasks: tuple[str, ...],
        end: int,
        words: tuple[str, str],
        key: str,
        listed: Sequence[Json],
    ) -> Iterator[Fault]:
        ends = [(one.kept[2][end], one.kept[1], one) for one in seen if one.kept[2] is not None]
        if not ends:
            return
        # the next number where there is a pile: so a pile in every label is told as well
        usual = [second if _is_pile(number, share, second) else number for (number, share, second), _, _ in ends]
        bound = float(np.quantile(usual, 0.05 if end else 0.95))
        found: dict[float, list[tuple[float, Seen]]] = {}
        for (number, share, second), most, one in ends:
            far = number * _GAP <= bound if end else number >= _GAP * bound
            if _is_pile(number, share, second) and (far or number == most):
                found.setdefault(number, []).append((share, one))
        for number, those in found.items():
            share = max(those, key=lambda x: x[0])[0]
            yield fault_of(
                cls,
                those,
                f"{share:.1%} of its depths are exactly {number:g}, far {words[0]} the {words[1]} of all others",
                f"write `invalid: [{number:g}]` ({key}) if that means 'not measured'",
                of=len(seen),
                tasks=tasks,
                write={key: [*listed, int(number) if float(number).is_integer() else number]},
            )


def _pile(values: np.ndarray, sign: int) -> tuple[float, float, float]:
    """The number at one end, the share of pixels that have it (0 if they are few), and the number next to it.

    Where the share is too small for a pile, the number itself stands for the next one.
    """
    number = values.max() if sign > 0 else values.min()
    count = int(np.count_nonzero(values == number))
    share = count / len(values) if count >= _LEAST and count < len(values) else 0.0
    if share < _SHARE:
        return float(number), share, float(number)
    others = values[values != number]
    return float(number), share, float(others.max() if sign > 0 else others.min())


def _is_pile(number: float, share: float, second: float) -> bool:
    return share >= _SHARE and max(number, second) >= _GAP * min(number, second)
