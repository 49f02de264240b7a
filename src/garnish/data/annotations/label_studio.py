"""Label Studio's exports JSON and JSON-MIN: outlines, rectangles, ellipses and brush masks of all tasks of a project.

The format: labelstud.io/guide/export and labelstud.io/tags (PolygonLabels, RectangleLabels, EllipseLabels, BrushLabels,
BitmaskLabels). Places are percent of the picture's sides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, final

from garnish.data.annotation_parts.label_studio_regions import DrawnRegion, regions_of, shape_of
from garnish.data.annotation_parts.picture_names import address_name
from garnish.data.annotation_parts.stated_values import (
    parsed_json,
    read_annotation_file,
    stated_list,
    stated_mapping,
)
from garnish.data.annotations.annotation_format import AnnotatedPicture, AnnotationFormat, Annotations
from garnish.data.annotations.shape import Shape
from garnish.errors import DataError, shown
from garnish.files.pictures import PICTURE_SUFFIXES

#: What the server puts in front of the name of a file that was uploaded: ``/data/upload/PROJECT/8 hex digits-NAME``.
_UPLOADED = re.compile(r"(?:^|.*/)upload/\d+/([0-9a-f]{8})-([^/]+)$")
#: Keys of a record of JSON-MIN that no control wrote.
_OWN_KEYS = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")


@final
class LabelStudio(AnnotationFormat):
    """The last annotation of a task that was not cancelled; later regions lie above. Predictions are not read."""

    kind: ClassVar[str] = "label_studio"
    tool: ClassVar[str] = "Label Studio (JSON or JSON-MIN)"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    @classmethod
    def recognised(cls, file: Path, head: bytes) -> bool:
        """Whether it is a list of tasks with ``annotations``, or of records with an ``annotation_id``."""
        starts = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
        told = (b'"annotations"', b'"completions"', b'"annotation_id"', b'"original_width"')
        return starts and any(key in head for key in told)

    @classmethod
    def read(cls, file: Path) -> Annotations:
        """Classes are those that occur, sorted by name, as Label Studio numbers them in its own exports of numbers."""
        tasks = stated_list(parsed_json(read_annotation_file(file, cls.tool), file, cls.tool), str(file))
        skipped: list[str] = []
        pictures: dict[str, AnnotatedPicture] = {}
        objects: Counter[str] = Counter()
        for name, also, regions in _tasks(tasks, file, skipped):
            if name in pictures:
                raise DataError(f"{file}: picture {shown(name)} has two tasks; delete one of them in Label Studio")
            sizes = {region.size for region in regions}
            if len(sizes) > 1:
                raise DataError(f"{file}: picture {shown(name)}: regions state several sizes {shown(sorted(sizes))}")
            objects.update(region.label for region in regions)
            pictures[name] = AnnotatedPicture(next(iter(sizes), None), partial(_shapes, regions), also=also)
        return Annotations(tuple(sorted(objects)), pictures, skipped=Counter(skipped), objects=dict(objects))


def _shapes(regions: Sequence[DrawnRegion], size: tuple[int, int]) -> Iterator[Shape]:
    """The objects of a picture of some (H, W)."""
    return (shape_of(region, size) for region in regions)


def _tasks(
    tasks: Sequence[object], file: Path, skipped: list[str]
) -> list[tuple[str, tuple[str, ...], list[DrawnRegion]]]:
    """Of each task with an annotation: name of its picture, other names of it, its regions."""
    found: list[tuple[str, tuple[str, ...], list[DrawnRegion]]] = []
    brief: dict[object, list[tuple[Mapping[str, object], str]]] = {}
    for place, entry in enumerate(tasks):
        where = f"{file}: task {place + 1}"
        task = stated_mapping(entry, where)
        if "annotations" not in task and "completions" not in task:
            brief.setdefault(shown(task.get("id", ("none", place))), []).append((task, where))
            continue
        data = stated_mapping(task.get("data"), f"{where}: data")
        listed = stated_list(task.get("annotations", task.get("completions")), f"{where}: annotations")
        if task.get("predictions"):
            skipped.append("task's predictions")
        done = [a for a in (stated_mapping(a, f"{where}: annotations") for a in listed) if not _cancelled(a)]
        if not done:
            skipped.append("task without an annotation")
            continue
        last = _last(done, skipped)
        number = f"{where} (id {shown(task.get('id'))})"
        regions = regions_of(stated_list(last.get("result"), f"{number}: result"), number, skipped)
        found.append((*_names(data, number), regions))
    for records in brief.values():  # JSON-MIN: a record an annotation
        record = _last([record for record, _ in records], skipped)
        where = f"{next(w for r, w in records if r is record)} (id {shown(record.get('id'))})"
        results = [
            {"value": value, **value}
            for key, held in record.items()
            if key not in _OWN_KEYS and isinstance(held, list)
            for value in held
            if isinstance(value, Mapping)
        ]
        data = {key: value for key, value in record.items() if key not in _OWN_KEYS}
        found.append((*_names(data, where), regions_of(results, where, skipped)))
    return found


def _cancelled(annotation: Mapping[str, object]) -> bool:
    return bool(annotation.get("was_cancelled") or annotation.get("skipped"))


def _last(annotations: Sequence[Mapping[str, object]], skipped: list[str]) -> Mapping[str, object]:
    """The annotation that was made last, by its time, else by its place; the others are told."""
    skipped += ["further annotation of a task"] * (len(annotations) - 1)
    times = [annotation.get("created_at") for annotation in annotations]
    if all(isinstance(time, str) for time in times):  # ISO 8601 of one zone sorts as text
        return max(zip(times, range(len(times)), annotations, strict=True), key=lambda made: made[:2])[2]
    return annotations[-1]


def _names(data: Mapping[str, object], where: str) -> tuple[str, tuple[str, ...]]:
    """Name of the picture of a task, and its name before it was uploaded."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    found = {key: text for key, text in texts.items() if _is_picture(text)}
    if len(found) > 1 and "image" in found:
        found = {"image": found["image"]}
    if len(found) != 1:
        several = f"several ({', '.join(map(shown, found))})" if found else "none"
        raise DataError(
            f"{where}: expected one picture in its data, found {several}; export tasks with one picture each, by path"
        )
    name = address_name(next(iter(found.values())), where)
    uploaded = _UPLOADED.match(name)
    return name, () if uploaded is None else (uploaded[2],)


def _is_picture(text: str) -> bool:
    """Whether a text is a path or an address that ends as pictures do."""
    path = text.partition("?")[0] if "://" in text else text
    return path.lower().endswith(PICTURE_SUFFIXES) and not text.startswith("data:")
