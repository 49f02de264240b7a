"""The labels beside the pictures of a folder: each series with what it is, and what is left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from garnish.data.guessing.evidence import Guess
from garnish.data.guessing.gathering import evidence_of, training_files
from garnish.data.guessing.judging import SURE, judged
from garnish.data.guessing.name_lists import ClassList
from garnish.data.guessing.pairing import Pairs
from garnish.data.guessing.pictures import looks_like_photographs
from garnish.data.guessing.series import FileSeries
from garnish.data.guessing.words import is_view, meaning_of
from garnish.errors import DataError, plural
from garnish.files.label_files import read_array
from garnish.files.pictures import picture_size


@final
@dataclass(frozen=True)
class FoundLabels:
    """Labels of one task.

    Attributes:
        template: of the files, with ``{name}`` and perhaps ``{split}``.
        pairs: how they pair with the pictures.
        guess: what they are.
    """

    template: str
    pairs: Pairs
    guess: Guess

    @property
    def told(self) -> str:
        """One line: which files, which task, how sure and why."""
        n, of = self.pairs.paired, self.pairs.pictures
        lonely = f", {self.pairs.lonely} without a picture" if self.pairs.lonely else ""
        pairs = f"{n} of {plural(of, 'picture')}{lonely}"
        return f"{self.template}: {self.guess.task}, {self.guess.sure:.0%} sure ({self.guess.why}); {pairs}"


def labels_seen(
    pairs: Pairs, pictures: FileSeries, root: Path, split: str, listed: ClassList | None
) -> FoundLabels | str | None:
    """What a series that pairs with the pictures is.

    Args:
        pairs: the series.
        pictures: the pictures.
        root: their folder.
        split: the word of the training split, "" if there is none.
        listed: names of classes that lie in the folder.

    Returns:
        The labels, also where the guess is unsure; text that says why they are left out; None: nothing says that these
        files are labels.
    """
    series = pairs.series
    meaning = meaning_of(series.pattern)
    if is_view(series.pattern):
        return f"{series.pattern} left out: pictures to look at, by its name"
    if meaning is not None and meaning.task == "Instances":
        return (
            f"{series.pattern} left out: numbers of objects, which no task learns as they are; edges of them are `task:"
            " Edges` with `from: boundaries`; `task: Semantic` with `divide: 1000` reads class × 1000 + number"
        )
    files = training_files(series, root, split)
    template = series.pattern
    if len(series.endings) > 1 and series.template is None:
        inside = root / series.base.replace("{split}", split)
        two = f"{inside} holds files that end in {' and '.join(sorted(series.endings))}"
        if len(series.endings) > 3:
            return f"{template} left out: {two}"
        asked = _question(series, f"{two}; `labels` names one ending")
        return FoundLabels(template, pairs, asked) if meaning is not None else f"{template} left out: {two}"
    try:
        if looks_like_photographs(series, root):
            why = f"{template} holds photographs, or labels whose colours a lossy compression changed"
            return FoundLabels(template, pairs, _question(series, why)) if meaning is not None else f"{why}; left out"
        evidence = evidence_of(template, files, series.count, listed)
        if (told := _other_size(pairs, pictures, root)) is not None:
            return FoundLabels(template, pairs, _question(series, told)) if meaning is not None else None
        known = judged(evidence)
    except DataError as error:
        return FoundLabels(template, pairs, _question(series, str(error))) if meaning is not None else None
    if known is None and meaning is None:
        return f"{template} left out: nothing that a reader of labels knows"
    guess = known or _question(series, f"{template}: no reader of labels knows what these files are; see docs/data.md")
    if guess.sure < SURE and meaning is None:
        return f"{template} left out: {guess.question or guess.why}"
    return FoundLabels(template, pairs, guess)


def _question(series: FileSeries, question: str) -> Guess:
    """A guess that says nothing but why there is none."""
    meaning = meaning_of(series.pattern)
    options = {"classes": ["background", "thing"]} if meaning is None or meaning.task == "Semantic" else {}
    task, name = ("Semantic", "seg") if meaning is None else (meaning.task, meaning.name)
    if task == "RelativeDepth":
        return Guess(task, name, {"larger": "nearer"}, 0.0, "", question)
    return Guess(task, name, options, 0.0, "", question)


def _other_size(pairs: Pairs, pictures: FileSeries, root: Path) -> str | None:
    """A line about a label of another size than its picture, None where those that were opened fit."""
    checked = []
    for split, names in pictures.names.items():
        beside = pairs.series.names.get(split if pairs.series.has_split else "", {})
        checked += [(root / file, root / beside[name]) for name, file in sorted(names.items()) if name in beside][:2]
    wrong = []
    for picture, label in checked[:4]:
        try:
            height, width = picture_size(picture)
            shape = read_array(label).shape
        except DataError:  # of other bands; what is damaged is told where it is read
            return None
        if (height, width) not in (shape[:2], shape[-2:]):
            wrong.append(f"{label} has {shape[1]}x{shape[0]} pixels and its picture {picture.name} {width}x{height}")
    return f"{wrong[0]}; labels have the size of their picture" if wrong and len(wrong) == len(checked[:4]) else None


def tasks_of(found: Sequence[FoundLabels], root: Path) -> tuple[dict[str, FoundLabels], list[str], list[str]]:
    """The labels of each task by its name; lines about what is left out; questions where two may be the same."""
    tasks: dict[str, FoundLabels] = {}
    left, questions = [], []
    for one in sorted(found, key=lambda labels: (-labels.pairs.paired, -labels.guess.sure, labels.template)):
        name = one.guess.name
        if name not in tasks:
            tasks[name] = one
            continue
        first = tasks[name]
        if first.guess.task != one.guess.task:
            name = next(free for n in range(2, 99) if (free := f"{name}{n}") not in tasks)
            tasks[name] = one
        elif 2 * one.pairs.paired < first.pairs.paired:
            left.append(
                f"folders {one.pairs.series.folder} are left out; {first.pairs.series.folder} are the labels of {name}"
            )
        elif (drawn := _same_labels(first, one, root)) is not None:
            kept, other = drawn
            tasks[name] = kept
            left.append(f"{other.template} left out: the same labels as {kept.template} in colours")
        else:
            questions.append(
                f"{first.template} ({first.guess.why}) and {one.template} ({one.guess.why}) are both {one.guess.task};"
                " which of them is meant? Write one of them under `tasks`, or both under two names"
            )
    return tasks, left, questions


def _same_labels(one: FoundLabels, other: FoundLabels, root: Path) -> tuple[FoundLabels, FoundLabels] | None:
    """Labels in numbers and the same in colours, if one of two is a drawing of the other; None: they differ."""
    numbers, drawn = (one, other) if "colours" in other.guess.options else (other, one)
    if "colours" not in drawn.guess.options or "colours" in numbers.guess.options:
        return None
    compared = 0
    for split, names in numbers.pairs.series.names.items():
        for name, file in sorted(names.items())[:4]:
            if (beside := drawn.pairs.series.names.get(split, {}).get(name)) is None:
                continue
            ids, colours = read_array(root / file), read_array(root / beside)
            if ids.ndim != 2 or colours.ndim != 3 or ids.shape != colours.shape[:2]:
                return None
            codes = colours.astype(np.int64)[..., :3] @ np.array([65536, 256, 1])
            both = len(np.unique(np.stack([ids.ravel().astype(np.int64), codes.ravel()]), axis=1)[0])
            if both != len(np.unique(ids)) or both < len(np.unique(codes)):
                return None
            compared += 1
    return (numbers, drawn) if compared else None
