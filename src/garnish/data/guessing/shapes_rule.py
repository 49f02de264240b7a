"""Which classes files of annotation tools hold, and what pixels without an object are."""

from __future__ import annotations

from garnish.checking.plain_data import Json
from garnish.data.annotation_files import read_annotations
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.left_out import told_together
from garnish.errors import plural

#: Names of what is no class: the word that the description has for it.
_NO_CLASS = {"__ignore__": "ignore", "_ignore_": "ignore", "_background_": "background", "Background": "background"}


def guessed_shapes(evidence: LabelEvidence) -> Guess | None:
    """Semantic with the classes of annotation files; None where the files are none, or hold no areas.

    Pixels without an object are the class "background".
    """
    if evidence.arrays:
        return None
    with told_together(evidence.place):
        opened = [read_annotations(file) for file in evidence.files]
    tool = opened[0].format.tool
    names = list(dict.fromkeys(name for one in opened for name in one.held.classes))
    objects: dict[str, int] = {}
    for one in opened:
        for name, count in (one.held.objects or {}).items():
            objects[name] = objects.get(name, 0) + count
    total = sum(objects.values())
    numbered = not names and bool(objects)
    if opened[0].format.one_a_picture and not numbered:
        names = sorted(dict.fromkeys((*names, *objects)))
    if not names and not numbered:
        return None
    listed = list(evidence.listed)
    told = f"{tool}, {plural(total, 'object')} in {plural(len(opened), 'file')}"
    table: dict[str | int, Json] = {}
    if numbered:
        most = max(map(int, objects))
        if listed and len(listed) <= most:
            question = (
                f"{evidence.list_file} has {plural(len(listed), 'name')}, and objects have numbers up to {most};"
                " correct it, or list the classes under `map`"
            )
            return Guess("Semantic", "seg", {"classes": ["background", *listed]}, 0.4, told, question)
        names = listed or [f"class {number}" for number in range(most + 1)]
        table = dict(enumerate(names))
        told += f", {plural(len(names), 'class')}" + (f" named by {evidence.list_file}" if listed else " without names")
    else:
        if listed and set(names) <= set(listed):
            names = listed
        table = {name: _NO_CLASS[name] for name in names if name in _NO_CLASS}
        names = [name for name in names if name not in _NO_CLASS]
        told += f", classes {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
    if "background" not in names:
        names = ["background", *names]
        told += "; pixels without an object are background"
    options: dict[str, Json] = {"classes": [*names]}
    if table:
        options["map"] = table
    if len(names) < 2:
        return Guess(
            "Semantic", "seg", options, 0.3, told, "one class alone; annotate another, or write `task: Saliency`"
        )
    return Guess("Semantic", "seg", options, 0.9, told)
