"""Guessing the description of a folder that has none: pictures, splits, and the labels of every task beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

from garnish.checking.plain_data import Json
from garnish.data.channels import BAND_SUFFIXES
from garnish.data.guessing.annotated_series import SharedFiles, shared_files, single_files, suffixes_of_single_files
from garnish.data.guessing.found_labels import FoundLabels, labels_seen, tasks_of
from garnish.data.guessing.judging import SURE
from garnish.data.guessing.name_lists import class_list, split_lists
from garnish.data.guessing.pairing import Pairs, labelled_splits, paired
from garnish.data.guessing.picture_bands import about_channels, channels_needed
from garnish.data.guessing.pictures import picture_candidates
from garnish.data.guessing.scan import Scan, scanned
from garnish.data.guessing.series import FileSeries, series_of
from garnish.data.guessing.tables import FoundTable, found_table
from garnish.data.guessing.words import SPLITS, picture_rank, split_of
from garnish.data.held_out import groups_of
from garnish.errors import DataError, plural
from garnish.files.pictures import PICTURE_SUFFIXES

#: Share of the training pictures that are held out where a set has no validation pictures, and the fewest to do so.
HOLD_OUT, _FEWEST = 0.2, 5
#: Folders that hold labels, for the message where there are none.
_USUAL = "masks, mask, labels, annotations, semantic, depth, normals, edges, saliency"


@final
@dataclass(frozen=True)
class Guessed:
    """What a folder without a description holds.

    Attributes:
        root: the folder.
        description: as in a data.yaml, paths relative to ``root``; where there are questions, a start to be corrected.
        lines: what was taken and why, one line each.
        left_out: what was left out and why, one line each.
        questions: what cannot be told, each with the option to write; empty: the description can be used as it is.
        to_check: what is used only when a person has looked at it, a line each; a file that is written says it.
        reasons: "images", "channels", "splits", "hold_out" or the name of a task → why, for comments beside it.
    """

    root: Path
    description: Mapping[str, Json]
    lines: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    to_check: tuple[str, ...] = ()

    @property
    def sure(self) -> bool:
        """Whether nothing is left to ask, or to be looked at."""
        return not self.questions and not self.to_check


def guessed(root: Path) -> Guessed:
    """Guess what a folder holds; ``docs/data.md`` says which layouts are known and how each kind of label is told.

    Raises:
        DataError: no folder, one that cannot be read or holds too much, or two folders of one split.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give a folder of pictures or a YAML file that describes one")
    scan = scanned(root)
    if (table := found_table(scan)) is not None and table.labels:
        return _of_table(scan, table)
    series = series_of(scan.files, tuple(dict.fromkeys((*PICTURE_SUFFIXES, *BAND_SUFFIXES, ".npy"))))
    candidates = picture_candidates(series, root)
    if not candidates:
        return _without_pictures(scan)
    pictures = candidates[0]
    if (question := _rivals(candidates)) is not None:
        return Guessed(root, _example(_images_of(pictures, series)), questions=(question,))
    single = series_of(scan.files, suffixes_of_single_files())
    pictures, pairs = paired(pictures, [one for one in (*series, *single) if one is not pictures])
    return _described(scan, [*series, *single], pictures, pairs, candidates[1:])


def _of_table(scan: Scan, table: FoundTable) -> Guessed:
    """The description of a folder whose table names the labels of each picture."""
    pictures, pairs = paired(table.pictures, table.labels, exact=True)
    return _described(scan, [], pictures, pairs, [], table)


def _described(
    scan: Scan,
    series: Sequence[FileSeries],
    pictures: FileSeries,
    pairs: Sequence[Pairs],
    others: Sequence[FileSeries],
    table: FoundTable | None = None,
) -> Guessed:
    root = scan.root
    images = _images_of(pictures, series) if table is None else pictures.pattern
    left_out = [f"pictures are those of {images}; {_images_of(one, series)} left out" for one in others]
    left_out += [f"{link} left out: a link to a folder" for link in scan.links[:8]]
    left_out += [f"folders more than {len(images)} levels deep left out"] if scan.cut else []
    words = _split_words(root, pictures)
    first = words.get("train") or next(iter(words.values()), "")
    listed = class_list(root, scan.files)
    found: list[FoundLabels] = []
    for one in pairs:
        if not one.paired:
            continue
        if one.series.endings[0].lower() in suffixes_of_single_files():
            looked = single_files(one, root, first, listed)
        else:
            looked = labels_seen(one, pictures, root, first, listed)
        if isinstance(looked, str):
            left_out.append(looked)
        elif looked is not None:
            found.append(looked)
    shared = shared_files(scan, pictures, listed) if table is None else SharedFiles([], [], {})
    found += shared.found
    left_out += shared.left_out
    tasks, left, questions = tasks_of(found, root)
    left_out += left
    start: dict[str, Json] = {"path": ".", "images": images}
    bands = channels_needed(root, pictures, first)
    if bands is not None and (not tasks or questions):
        start |= {"tasks": _example(images)["tasks"], "channels": bands[1]} | _splits(words)
        return Guessed(root, start, left_out=tuple(left_out), questions=(bands[0],))
    if not tasks and not questions:
        why = _without_labels(images, pairs)
        return Guessed(root, _example(images) | _splits(words), left_out=tuple(left_out), questions=(why,))
    questions += [one.guess.question or one.guess.why for one in tasks.values() if one.guess.sure < SURE]
    made = _with_splits(scan, pictures, images, words, tasks, left_out, questions, table, shared.splits)
    return made if bands is None else _with_channels(made, *bands)


def _with_channels(made: Guessed, why: str, channels: dict[str, Json]) -> Guessed:
    """The same of pictures of other bands, which a person is to look at."""
    described: dict[str, Json] = {}
    for key, value in made.description.items():
        described |= {key: value} | ({"channels": channels} if key == "images" else {})
    reasons = {**made.reasons, "channels": "; ".join(filter(None, (why, about_channels(channels))))}
    return replace(made, description=described, reasons=reasons, to_check=(why,))


def _with_splits(
    scan: Scan,
    pictures: FileSeries,
    images: str,
    words: dict[str, str],
    tasks: Mapping[str, FoundLabels],
    left_out: list[str],
    questions: list[str],
    table: FoundTable | None,
    parted: Mapping[str, Json],
) -> Guessed:
    """The description with its splits: folders, lists, annotation files (``parted``), or a share that is held out."""
    counts = labelled_splits(pictures, [one.pairs.series for one in tasks.values()])
    by_split = {split: counts.get(word, 0) for split, word in words.items()}
    lines, reasons = [], {}
    templates = {name: one.template for name, one in tasks.items()}
    total = counts.get(words.get("train", ""), 0)
    if words and not by_split.get("train") and len(labelled := [s for s, n in by_split.items() if n]) == 1:
        # labels lie beside the pictures of one split only, as in sets of defects: that is what can be learnt from
        word = words[labelled[0]]
        images = images.replace("{split}", word)
        templates = {name: template.replace("{split}", word) for name, template in templates.items()}
        total, words = by_split[labelled[0]], {}
        left_out.append(f"only pictures of {word} have labels, so they are taken; those of other folders are left out")
    description: dict[str, Json] = (
        {"path": "."} | ({} if table is None else {"table": table.table}) | {"images": images}
    )
    splits: dict[str, Json] = {**words}
    if not words and table is None:
        names = {name for found in pictures.names.values() for name in found}
        lists = split_lists(scan.root, scan.files, names) if "{split}" not in images else {}
        splits = {**(parted or lists)}
        if splits:
            kind = "pictures that these files name" if parted else "lists of names"
            reasons["splits"] = f"{kind}: {', '.join(map(str, splits.values()))}"
    if splits:
        description["splits"] = splits
    if "val" not in splits and (not splits or "train" in splits) and total >= _FEWEST:
        why, asked = _held_out(pictures, words, splits)
        description |= {} if asked is None else {"hold_out": asked}
        reasons["hold_out"] = why
        lines.append(why)
    entries: dict[str, Json] = {}
    for name, one in tasks.items():
        entries[name] = {"task": one.guess.task, "labels": templates[name], **one.guess.options}
        lines.append(f"{name}: {replace(one, template=templates[name]).told}")
        reasons[name] = f"{one.guess.sure:.0%} sure: {one.guess.why}"
        if one.guess.question is not None and one.guess.sure >= SURE:
            lines.append(f"{name}: {one.guess.question}")
            reasons[name] += f"; {one.guess.question}"
    description["tasks"] = entries
    reasons["images"] = plural(pictures.count, "picture")
    if splits and "train" not in splits:
        left_out.append(f"there is no split train, only {', '.join(splits)}")
    return Guessed(scan.root, description, tuple(lines), tuple(left_out), tuple(questions), reasons)


def _held_out(pictures: FileSeries, words: Mapping[str, str], splits: Mapping[str, Json]) -> tuple[str, Json]:
    """What is told of validation pictures in a set that has none, and ``hold_out``; None: it cannot be told."""
    if splits and not words:
        return "no list val, so nothing is measured while training; write `hold_out: 0.2`, or a list", None
    names = sorted(pictures.names.get(words.get("train", ""), {})) or [
        name for found in pictures.names.values() for name in sorted(found)
    ]
    if len(set(groups_of(names))) < 2:
        return (
            f"no split val, and names differ only in their last number ({names[0]} … {names[-1]}), as frames of one"
            " video do: nothing is held out; if they are none, write `hold_out: {share: 0.2, by: picture}`"
        ), None
    return f"no split val: `hold_out: {HOLD_OUT}` makes about this share of the training pictures val", HOLD_OUT


def _rivals(candidates: Sequence[FileSeries]) -> str | None:
    """A question where two series may be the pictures, None if one is more likely than all others."""
    first = candidates[0]
    ranks = [picture_rank(one.pattern) for one in candidates]
    rivals = [
        one
        for one, rank in zip(candidates[1:], ranks[1:], strict=True)
        if rank == ranks[0] and not _one_tree(one.base, first.base) and (rank is None or 4 * one.count >= first.count)
    ]
    if not rivals:
        return None
    told = ", ".join(one.pattern for one in (first, *rivals[:4]))
    return (
        f"the pictures may be those of {told}{' …' if len(rivals) > 4 else ''}; give the folder of one set, or name the"
        " pictures under `images`"
    )


def _one_tree(one: str, other: str) -> bool:
    """Whether one folder lies in the other, so that both are parts of one set."""
    first, second = one.split("{split}")[0], other.split("{split}")[0]
    return first.startswith(second) or second.startswith(first)


def _split_words(root: Path, pictures: FileSeries) -> dict[str, str]:
    """Split → the word of its folders.

    Raises:
        DataError: two words stand for one split.
    """
    found: dict[str, str] = {}
    for split in SPLITS:
        there = [word for word in sorted(pictures.names) if word and split_of(word) == split]
        if len(there) > 1:
            raise DataError(
                f"{root}: folders {' and '.join(there)} may both be the split {split!r}; rename or join them, or write"
                " `splits` in a data.yaml"
            )
        if there:
            found[split] = there[0]
    return found


def _splits(words: Mapping[str, str]) -> dict[str, Json]:
    return {"splits": {**words}} if words else {}


def _images_of(pictures: FileSeries, series: Sequence[FileSeries]) -> str:
    """The pattern of the pictures."""
    endings = pictures.endings
    ending = endings[0] if len(endings) == 1 else ".*"
    if pictures.nested or pictures.before or pictures.tail:
        return f"{pictures.base}{pictures.before}{{name}}{pictures.tail}{ending}"
    beside = [one for one in series if one.base == pictures.base and one is not pictures]
    if len(endings) == 1 and beside:
        return f"{pictures.base}*{ending}"
    return f"{pictures.base}*"


def _example(images: str) -> dict[str, Json]:
    """A description to start from where nothing can be told of the labels."""
    labels = "masks/{split}/{name}.png" if "{split}" in images else "masks/{name}.png"
    seg: dict[str, Json] = {"task": "Semantic", "labels": labels, "classes": ["background", "thing"]}
    return {"path": ".", "images": images, "tasks": {"seg": seg}}


def _without_pictures(scan: Scan) -> Guessed:
    there = [file for file in scan.files if Path(file).suffix.lower() in PICTURE_SUFFIXES]
    told = f"; {plural(len(there), 'picture file')} such as {there[0]} may be anything" if there else ""
    why = f"no folder images or train/images in it{told}"
    return Guessed(scan.root, _example("images/{split}/*.jpg"), questions=(why,))


def _without_labels(images: str, pairs: Sequence[Pairs]) -> str:
    """Why there are no labels: names that nearly pair, files that pair with nothing, or nothing at all."""
    near = next((one.near for one in pairs if one.near is not None), None)
    if near is not None:
        return f"no labels beside {images}: {near[1]} is named nearly as {near[0]}; give both the same name"
    lonely = [one.series for one in pairs if one.series.count]
    if lonely:
        some = next(iter(next(iter(lonely[0].names.values())).values()))
        return f"no labels beside {images}: no file is named as a picture, e.g. {some}; name labels as their pictures"
    return f"no labels beside {images}; looked for folders {_USUAL}"
