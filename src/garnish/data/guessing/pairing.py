"""Pairing the pictures of a folder with files beside them by name, with or without words and parts that all share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from garnish.data.guessing.series import FileSeries, same_words


@final
@dataclass(frozen=True)
class Pairs:
    """How a series pairs with the pictures.

    Attributes:
        series: the labels, in the form of names that pairs best.
        paired: how many pictures have one.
        pictures: how many pictures there are in all.
        lonely: how many files of the series belong to no picture.
        near: a picture and a file whose names are alike but not equal; None: there are none.
    """

    series: FileSeries
    paired: int
    pictures: int
    lonely: int
    near: tuple[str, str] | None = None


def paired(
    pictures: FileSeries, others: Sequence[FileSeries], *, exact: bool = False
) -> tuple[FileSeries, list[Pairs]]:
    """The pictures in the form of names with which most labels pair, and how each series pairs with them.

    ``IMG_1.jpg`` pairs with ``IMG_1_mask.png`` as well as with ``mask_1.png``: a word, or a part that all names of a
    series share, belongs to the name or not, whichever gives more pairs. With ``exact`` names are as they are.
    """
    if exact:
        return pictures, [_pairs(pictures, one) for one in others]
    best: tuple[int, int, FileSeries, list[Pairs]] | None = None
    for rank, form in enumerate(_forms(pictures)):
        found = [max((_pairs(form, other) for other in _forms(one)), key=lambda p: p.paired) for one in others]
        total = sum(pairs.paired for pairs in found)
        if best is None or total > best[0]:
            best = (total, -rank, form, found)
    assert best is not None
    return best[2], [pairs if pairs.paired else replace(pairs, near=_near(best[2], pairs.series)) for pairs in best[3]]


def _pairs(pictures: FileSeries, series: FileSeries) -> Pairs:
    found = 0
    held = pictures.count
    for split, names in pictures.names.items():
        beside = series.names.get(split if series.has_split else "", {})
        found += sum(name in beside and beside[name] != file for name, file in names.items())
    return Pairs(series, found, held, max(0, series.count - found))


def _forms(series: FileSeries) -> list[FileSeries]:
    """A series as it is, with the words that were cut off put back, and without parts that all its names share."""
    forms = [series]
    if series.before or series.tail:
        forms.append(
            FileSeries(
                series.base,
                "",
                series.endings,
                {s: {_put(n, series): f for n, f in names.items()} for s, names in series.names.items()},
                series.nested,
            )
        )
    for form in list(forms):
        if (cut := _trimmed(form)) is not None:
            forms.append(cut)
    return forms


def _put(name: str, series: FileSeries) -> str:
    folder, _, stem = name.rpartition("/")
    return f"{folder}/" * bool(folder) + f"{series.before}{stem}{series.tail}"


def _trimmed(series: FileSeries) -> FileSeries | None:
    """The series without what all its names begin and end with, up to a separator or a digit; None: nothing."""
    stems = [name.rpartition("/")[2] for names in series.names.values() for name in names]
    if len(stems) < 2:
        return None
    start, end = _shared(stems), _shared([stem[::-1] for stem in stems])
    before = "" if series.nested else _matched(start, r".*[^0-9]")
    if not all(stem[len(before) : len(before) + 1].isdigit() for stem in stems):
        before = _matched(before, r".*[_\-. ]")
    after = _matched(end, r".*[_\-. ]")[::-1]
    if any(len(stem) <= len(before) + len(after) for stem in stems) or not (before or after):
        return None
    names: dict[str, dict[str, str]] = defaultdict(dict)
    for split, found in series.names.items():
        for name, file in found.items():
            folder, _, stem = name.rpartition("/")
            cut = stem[len(before) : len(stem) - len(after)]
            names[split][f"{folder}/" * bool(folder) + cut] = file
    return FileSeries(series.base, after + series.tail, series.endings, names, series.nested, series.before + before)


def _shared(texts: Sequence[str]) -> str:
    """What all of some texts begin with."""
    low, high = min(texts), max(texts)
    return low[: next((k for k, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]


def _matched(part: str, form: str) -> str:
    match = re.match(form, part)
    return match[0] if match else ""


def _near(pictures: FileSeries, series: FileSeries) -> tuple[str, str] | None:
    """A picture and a file whose names differ only by case, separators or leading zeros."""
    ours = [(name.rpartition("/")[2], file) for names in pictures.names.values() for name, file in names.items()]
    theirs = [(name.rpartition("/")[2], file) for names in series.names.values() for name, file in names.items()]
    for name, file in ours[:50]:
        for other, label in theirs[:200]:
            if same_words(name, other):
                return file, label
    return None


def labelled_splits(pictures: FileSeries, series: Sequence[FileSeries]) -> Mapping[str, int]:
    """The word of each split → how many of its pictures have a label in one of some series."""
    counts = {}
    for split, names in pictures.names.items():
        beside = [one.names.get(split if one.has_split else "", {}) for one in series]
        counts[split] = sum(any(name in found for found in beside) for name in names)
    return counts
