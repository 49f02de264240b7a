"""Files of annotation tools beside the pictures of a folder: one a picture, or one that tells of many."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import final

from garnish.checking.plain_data import Json
from garnish.data.annotation_files import AnnotationFile, format_of, formats, read_annotations
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.guessing.found_labels import FoundLabels
from garnish.data.guessing.judging import judged
from garnish.data.guessing.name_lists import ClassList
from garnish.data.guessing.pairing import Pairs
from garnish.data.guessing.scan import Scan
from garnish.data.guessing.series import FileSeries
from garnish.data.guessing.words import SPLITS
from garnish.data.listed import without_suffix
from garnish.errors import DataError, plural
from garnish.files.pictures import PICTURE_SUFFIXES

#: Most files of one picture each that are read for the names of classes, and most of many pictures that are opened.
_MOST_READ, _MOST_SHARED = 2000, 32
#: Where one tool writes several files, the one with areas.
_PREFERRED = "instances"


def suffixes_of_single_files() -> tuple[str, ...]:
    """Endings of the formats that have a file for each picture."""
    return tuple(sorted({ending for cls in formats().values() if cls.one_a_picture for ending in cls.suffixes}))


def single_files(pairs: Pairs, root: Path, split: str, listed: ClassList | None) -> FoundLabels | str | None:
    """Labels of a series with an annotation file for each picture; text: why they are left out; None: they are none."""
    names = pairs.series.names
    training = names.get(split) or {name: file for found in names.values() for name, file in found.items()}
    files = [root / file for _, file in sorted(training.items())]
    try:
        cls = next((found for file in files[:8] if (found := format_of(file)) is not None), None)
        if cls is None or not cls.one_a_picture:
            return None
        return _found(pairs.series.pattern, files[:: math.ceil(len(files) / _MOST_READ)], pairs, listed)
    except DataError as error:
        return FoundLabels(pairs.series.pattern, pairs, _asked(str(error)))


@final
@dataclass(frozen=True)
class SharedFiles:
    """Files that tell of many pictures.

    Attributes:
        found: the labels.
        left_out: lines about what is left out.
        splits: split → the file that names its pictures, where files tell of a split each and pictures lie in one
            folder; else empty.
    """

    found: list[FoundLabels]
    left_out: list[str]
    splits: Mapping[str, Json]


def shared_files(scan: Scan, pictures: FileSeries, listed: ClassList | None) -> SharedFiles:
    """What files that tell of many pictures hold."""
    endings = {ending for cls in formats().values() if not cls.one_a_picture for ending in cls.suffixes}
    there = [file for file in scan.files if PurePosixPath(file).suffix.lower() in endings and file.count("/") <= 3]
    if len(there) > _MOST_SHARED:
        there = [file for file in there if _PREFERRED in file or "annotations" in file.lower()][:_MOST_SHARED]
    opened: dict[str, AnnotationFile] = {}
    asked: list[FoundLabels] = []
    for file in there:
        try:
            cls = format_of(scan.root / file)
            if cls is None or cls.one_a_picture:
                continue
            opened[file] = read_annotations(scan.root / file)
        except DataError as error:
            asked.append(FoundLabels(file, Pairs(pictures, 0, pictures.count, 0), _asked(str(error))))
    found: list[FoundLabels] = []
    left: list[str] = []
    templates = _templates(opened, pictures.names)
    pairs = {template: _matched(template, files, opened, pictures) for template, files in templates.items()}
    parted = {} if set(pictures.names) != {""} else _parted(opened, pictures)
    for template, ordered in parted.items():
        templates = {one: those for one, those in templates.items() if not set(those.values()) & set(ordered.values())}
        templates[template] = ordered
        pairs[template] = _joined(template, [pairs[file] for file in ordered.values()])
    held = [template for template in templates if pairs[template].paired]
    left += [f"{template} left out: it names no picture that is here" for template in templates if template not in held]
    best = [template for template in held if _PREFERRED in template]
    if len(held) > 1 and len(best) == 1:
        left += [f"{template} left out: {best[0]} has the areas" for template in held if template not in best]
        held = best
    for template in held:
        files = [scan.root / file for file in templates[template].values()]
        found.append(_found(template, files, pairs[template], listed))
    splits: dict[str, Json] = {}
    for template in (one for one in held if one in parted):
        splits = {**parted[template]}
    return SharedFiles([*found, *asked] if found or not held else asked, left, splits)


def _parted(opened: Mapping[str, AnnotationFile], pictures: FileSeries) -> dict[str, dict[str, str]]:
    """Template → split → its file, where each picture that a file names is here, and is in one of the files alone."""
    here = Counter(name for found in pictures.names.values() for name in found)
    made: dict[str, dict[str, str]] = {}
    for template, files in _templates(opened, SPLITS).items():
        names = [
            without_suffix(name, PICTURE_SUFFIXES) for file in files.values() for name in opened[file].held.pictures
        ]
        ordered = {split: files[split] for split in SPLITS if split in files}
        if len(ordered) > 1 and "train" in ordered and "" not in files and len(set(names)) == len(names):
            made |= {template: ordered} if all(name in here for name in names) else {}
    return made


def _joined(template: str, pairs: Sequence[Pairs]) -> Pairs:
    """How several files of one template pair with pictures that have no split."""
    names = {name: file for one in pairs for name, file in one.series.names.get("", {}).items()}
    series = FileSeries(template, "", ("",), {"": names})
    return Pairs(series, len(names), pairs[0].pictures, sum(one.lonely for one in pairs))


def _templates(files: Collection[str], splits: Collection[str]) -> dict[str, dict[str, str]]:
    """Template → word of the split ("" of none) → the file that it then stands for."""
    made: dict[str, dict[str, str]] = defaultdict(dict)
    for file in sorted(files):
        word = next((w for w in sorted(splits, key=len, reverse=True) if w and _has_word(file, w)), "")
        made[re.sub(_word(word), "{split}", file) if word else file][word] = file
    return made


def _word(word: str) -> str:
    return rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])"


def _has_word(file: str, word: str) -> bool:
    return re.search(_word(word), file) is not None


def _matched(
    template: str, files: Mapping[str, str], opened: Mapping[str, AnnotationFile], pictures: FileSeries
) -> Pairs:
    """How the entries of annotation files pair with the pictures."""
    names: dict[str, dict[str, str]] = {}
    for split, found in pictures.names.items():
        file = files.get(split) or files.get("")
        if file is not None:
            held = opened[file]
            names[split] = {
                name: file for name, path in found.items() if held.entry(str(PurePosixPath(path).with_suffix("")))
            }
    count = sum(map(len, names.values()))
    entries = sum(len(opened[file].held.pictures) for file in files.values())
    series = FileSeries(template, "", ("",), names)
    return Pairs(series, count, pictures.count, max(0, entries - count))


def _found(template: str, files: Sequence[Path], pairs: Pairs, listed: ClassList | None) -> FoundLabels:
    evidence = LabelEvidence(
        place=template,
        files=files,
        count=pairs.series.count,
        arrays=(),
        palettes=(),
        listed={} if listed is None else listed.colours,
        numbers={} if listed is None else listed.numbers,
        list_file=None if listed is None else listed.file,
    )
    guess = judged(evidence)
    told = f"{plural(len(files), 'annotation file')} without areas; annotate polygons or masks, not boxes"
    return FoundLabels(template, pairs, guess or _asked(told))


def _asked(question: str) -> Guess:
    return Guess("Semantic", "seg", {"classes": ["background", "thing"]}, 0.0, "", question)
