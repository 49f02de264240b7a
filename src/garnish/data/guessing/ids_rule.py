"""Whether label files are maps of class ids: which ids, from 0 or 1, with gaps, which of them means no label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.guessing.evidence import Guess, LabelEvidence, Levels
from garnish.data.guessing.measuring import border, change_share, planes_of, smooth_share
from garnish.errors import plural
from garnish.targets.target import IGNORE

#: A "no label" that outlines objects: most of its pixels touch another id, and it is rare.
_OUTLINE, _RARE = 0.6, 0.1
#: Names of a first class that masks need not have a pixel of.
_NO_CLASS = ("background", "_background_", "bg", "unlabelled", "unlabeled", "void", "ignore", "none", "other")
#: What class ids are multiplied by to number objects, the share of neighbours that may differ in such, the question.
_THOUSAND, _CALM = 1000, 0.1
#: Largest number of two bytes, which many tools write for "no label".
_FULL = 65535
_DIVIDED = (
    "class × 1000 + number of an object, as Cityscapes' instanceIds? Write `divide: 1000` (and `below: same` where ids"
    " below 1000 are classes, `ignore: 65` where 65535 is no label), or list what they become under `map`"
)
#: Options to start from where the ids do not tell.
_START: dict[str, Json] = {"classes": ["background", "thing"], "map": {0: 0, 7: 1}}


def guessed_ids(evidence: LabelEvidence) -> Guess | None:
    """Semantic with the options of an id map, None where the files are none."""
    planes, levels = planes_of(evidence), evidence.levels
    if planes is None or levels is None or levels.coloured:
        return None
    meaning = evidence.meaning
    if levels.values is None:
        return None if meaning is None or meaning.task != "Semantic" else _too_many(planes, meaning.name)
    if meaning is not None and meaning.task != "Semantic":
        return None  # the word is believed: ids of objects, depth in few steps
    name = "seg" if meaning is None else meaning.name
    indexed = all(palette is not None for palette in evidence.palettes)
    if evidence.lossy:
        told = f"numbers are changed by {evidence.lossy} compression; save the labels as PNG or .npy"
        return Guess("Semantic", name, _START, 0.3, f"{_few(levels.values)}, as {evidence.lossy}", told)
    changes, smooth = change_share(planes), smooth_share(planes)
    if not indexed and meaning is None and (changes > 0.4 or (len(levels.values) > 24 and smooth > 0.6)):
        return None  # levels of a picture or of depth
    return _classes(evidence, planes, levels, name, indexed, changes, smooth)


def _classes(
    evidence: LabelEvidence,
    planes: Sequence[np.ndarray],
    levels: Levels,
    name: str,
    indexed: bool,
    changes: float,
    smooth: float,
) -> Guess:
    assert levels.values is not None
    ids = [value for value in levels.values if value != IGNORE]
    writing = "palette, " if indexed else ""
    read = f"{len(ids)} classes read from {plural(levels.files, 'training mask')}"
    why = f"{writing}{_few(levels.values)}, {read}, {changes:.1%} of neighbours differ"
    given = evidence.meaning is not None
    sure = (0.9 if given and not _is_generic(evidence) else 0.85 if given or indexed else 0.7) + (
        0.05 if indexed else 0
    )

    def asked(question: str, options: dict[str, Json] | None = None) -> Guess:
        return Guess("Semantic", name, options or _START, 0.4, why, question)

    if set(levels.values) == {0, IGNORE}:  # one class and "no label" would make no sense, so this is white on black
        names = _two_names(evidence)
        return Guess(
            "Semantic", name, {"classes": names, "map": {0: 0, IGNORE: 1}}, sure - 0.1, f"{why}: white on black"
        )
    if not ids or min(ids) < 0:
        return asked(f"the masks hold ids {_first(levels.values)}; list what they become under `map`")
    count = max(ids) + 1
    names = list(evidence.listed)
    numbers = evidence.numbers
    if numbers and set(ids) <= set(numbers.values()) and sorted(numbers.values()) != list(range(len(numbers))):
        ordered = sorted(numbers, key=numbers.__getitem__)
        table: dict[str | int, Json] = {numbers[one]: new for new, one in enumerate(ordered)}
        told = f"{why}; {plural(len(names), 'name')} with numbers in {evidence.list_file}"
        return Guess("Semantic", name, {"classes": [*ordered], "map": table}, min(sure + 0.1, 0.97), told)
    if numbers:
        names = sorted(numbers, key=numbers.__getitem__)
    if names and len(names) == count and min(ids) == 1 and names[0].lower() not in _NO_CLASS:
        return asked(
            f"ids from 1 to {max(ids)} and {plural(len(names), 'name')} in {evidence.list_file}: is 0 {names[0]!r},"
            " which no mask has, or is 1? Write `classes` in the order of the ids, and `offset: -1` if 1 is the first",
            {"classes": [*names]},
        )
    if names and len(names) + 1 == count and min(ids) == 0:
        started = names if names[0].lower() in _NO_CLASS else ["background", *names]
        lacks = f"is 0 the background, which the list lacks (`classes: [{_told(started)}]`), or is"
        return asked(
            f"ids 0 to {max(ids)} and {plural(len(names), 'name')} in {evidence.list_file} ({_told(names)}):"
            f" {lacks if started is not names else 'is'} {max(ids)} no label (`ignore: {max(ids)}`), or a class without"
            " a name? Write `classes` in the order of the ids",
            {"classes": [*started]} if started is not names else {"classes": [*names], "ignore": [max(ids)]},
        )
    if names and len(names) >= count >= len(names) / 2:
        told = f"{why}; {plural(len(names), 'name')} in {evidence.list_file}"
        return Guess("Semantic", name, {"classes": [*names]}, min(sure + 0.1, 0.97), told)
    if count < 2:
        return asked("the masks hold nothing but id 0; a class count cannot be read from them")
    if min(ids) == 1 and max(ids) == len(ids) and len(ids) > 1:
        if names and len(names) == len(ids):
            why += f"; {plural(len(names), 'name')} in {evidence.list_file}"
        classes: Json = names if len(names) == len(ids) else len(ids)
        return Guess("Semantic", name, {"classes": classes, "offset": -1}, sure - 0.05, f"{why}; numbered from 1")
    if max(ids) > IGNORE - 1 or (count > 20 and len(ids) < count / 2):
        return _sparse(evidence, planes, levels, name, why, sure, smooth)
    options: dict[str, Json] = {"classes": count}
    if not indexed and len(ids) > 8 and (ladder := _ladder(planes, levels.values)) > 0.8:
        question = (
            f"{_few(levels.values)}, and {ladder:.0%} of the neighbours that differ do so by one step: classes or"
            f" levels of another kind (depth)? Write `task: Semantic` with `classes: {count}`, or"
            " `task: RelativeDepth` with `larger`"
        )
        return asked(question, options)
    if (outline := _outline(planes, ids)) is not None:
        value, share, edge = outline
        told = f"{value} is {share:.1%} of the pixels, {edge:.0%} of them between other ids: no label"
        if value == max(ids) and count > 2:
            return Guess("Semantic", name, {"classes": count - 1, "ignore": [value]}, sure - 0.1, f"{why}; {told}")
        if value == 0 and count > 2:
            return Guess(
                "Semantic", name, {"classes": count - 1, "ignore": [0], "offset": -1}, sure - 0.1, f"{why}; {told}"
            )
    lacking = count - len(ids)
    why += f"; ids that none holds: {lacking}" if lacking else ""
    return Guess("Semantic", name, options, sure, why)


def _sparse(
    evidence: LabelEvidence,
    planes: Sequence[np.ndarray],
    levels: Levels,
    name: str,
    why: str,
    sure: float,
    smooth: float,
) -> Guess:
    """Ids with gaps, which are put together by ``map``."""
    assert levels.values is not None
    ids = [value for value in levels.values if value != IGNORE]
    count = max(ids) + 1
    told = f"the masks hold only {len(ids)} of the ids 0 to {count - 1} ({_first(ids, 12)})"
    if len(ids) < 2:
        return Guess("Semantic", name, _START, 0.3, why, f"{told}; list them under `map`")
    table: dict[str | int, Json] = {value: new for new, value in enumerate(ids)}
    options: dict[str, Json] = {"classes": [f"id {value}" for value in ids], "map": table}
    if (divided := _divided(levels.values)) is not None:
        return Guess("Semantic", name, divided, 0.4, why, f"{told}: {_DIVIDED}")
    if max(ids) > 1000 or len(ids) > 64 or min(ids) < 0:
        question = f"{told}: class × K + number of an object, or depth? List what they become under `map`"
        return Guess("Semantic", name, options, 0.4, why, question)
    if IGNORE in levels.values:
        share = _border_of(planes, IGNORE)
        if max(ids) <= 128 and len(ids) <= 3 and share < _OUTLINE:
            question = (
                f"{told} and 255: three classes, or grey levels with 255 for the object? Write `map: {{0: 0, 255: 1}}`"
                " with what the others become, or `task: Saliency` with `threshold: 127`"
            )
            return Guess("Semantic", name, options, 0.4, why, question)
        if len(ids) > 2 and len({*np.diff([*ids, IGNORE]).tolist()}) == 1:  # classes that were stretched to white
            question = f"{told} and 255, in equal steps: is 255 one more class, or no label? List all under `map`"
            return Guess("Semantic", name, options, 0.4, why, question)
        table[IGNORE] = IGNORE
    return Guess("Semantic", name, options, min(sure, 0.7), f"{why}; with gaps, so each gets the next free id")


def _too_many(planes: Sequence[np.ndarray], name: str) -> Guess | None:
    """A question about files of more numbers than classes: numbers of objects with their class, or None."""
    if any(plane.dtype.kind not in "ui" for plane in planes) or change_share(planes) > _CALM:
        return None
    values = sorted({int(value) for plane in planes for value in np.unique(plane)})
    if (divided := _divided(values)) is None:
        return None
    told = f"ids {_first(values)}"
    return Guess("Semantic", name, divided, 0.4, told, f"the masks hold {told}: {_DIVIDED}")


def _divided(values: Sequence[int]) -> dict[str, Json] | None:
    """Options of ids that are class × 1000 + number of an object, as in Cityscapes; None: they are none."""
    void = values[-1] == _FULL
    values = [value for value in values if value != _FULL]
    objects = [value for value in values if value >= _THOUSAND]
    classes = {value // _THOUSAND for value in objects} | {value for value in values if 0 <= value < _THOUSAND}
    numbered = len(objects) > len({value // _THOUSAND for value in objects})
    if not numbered or min(values) < 0 or max(classes - {IGNORE}, default=IGNORE) >= IGNORE:
        return None
    if max(value % _THOUSAND for value in objects) >= _THOUSAND // 2:
        return None
    below: dict[str, Json] = {"below": "same"} if any(0 < value < _THOUSAND for value in values) else {}
    without: dict[str, Json] = {"ignore": [_FULL // _THOUSAND]} if void else {}  # `ignore` then means classes
    return {"classes": max(classes - {IGNORE}) + 1, "divide": _THOUSAND, **below, **without}


def _ladder(planes: Sequence[np.ndarray], values: Sequence[int]) -> float:
    """Share of the pairs of neighbours of different ids of which the second is the next larger or smaller one."""
    known = np.array(values)
    steps = [
        np.abs(np.diff(np.searchsorted(known, plane.astype(np.int64)), axis=axis))
        for plane in planes
        for axis in (0, 1)
    ]
    changes = sum(int((step > 0).sum()) for step in steps)
    return sum(int((step == 1).sum()) for step in steps) / max(changes, 1)


def _outline(planes: Sequence[np.ndarray], ids: Sequence[int]) -> tuple[int, float, float] | None:
    """The id that is but a line between others: it, its share of the pixels, and how much of it touches another."""
    total = sum(plane.size for plane in planes)
    for value in (max(ids), 0):
        share = sum(int((plane == value).sum()) for plane in planes) / max(total, 1)
        if len(ids) > 2 and 0 < share < _RARE and (edge := _border_of(planes, value)) > _OUTLINE:
            others = [_border_of(planes, one) for one in ids if one != value]
            if sum(one > _OUTLINE for one in others) <= len(others) // 4:  # else all regions are small
                return value, share, edge
    return None


def _border_of(planes: Sequence[np.ndarray], value: int) -> float:
    """Share of an id's pixels that touch another id."""
    masks = [plane == value for plane in planes]
    return sum(int(border(mask).sum()) for mask in masks) / max(1, sum(int(mask.sum()) for mask in masks))


def _two_names(evidence: LabelEvidence) -> list[Json]:
    names = list(evidence.listed)
    return [*names] if len(names) == 2 else ["background", "foreground"]


def _is_generic(evidence: LabelEvidence) -> bool:
    return evidence.meaning is not None and evidence.meaning.generic


def _told(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _few(values: Sequence[int]) -> str:
    """``ids 0 to 11`` or the first of them."""
    if len(values) > 3 and values[-1] - values[0] == len(values) - 1:
        return f"ids {values[0]} to {values[-1]}"
    return f"{plural(len(values), 'id')} {_first(values)}"


def _first(values: Sequence[int], most: int = 8) -> str:
    return ", ".join(map(str, values[:most])) + (f", … {values[-1]}" if len(values) > most else "")
