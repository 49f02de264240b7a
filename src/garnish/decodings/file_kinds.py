"""Kinds of files that are written of a picture; commands name them in their help, so nothing slow is imported here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from garnish.errors import OptionError, shown, suggest

#: What may be written of a picture, and what it is.
KINDS: Mapping[str, str] = {
    "maps": "NAME_TASK.png a task: ids with their colours as palette, depth in 16 bits (millimetres), normals, edges …",
    "sheet": "NAME_sheet.png: the picture and all maps, with legends",
    "overlays": "NAME_TASK_overlay.png a task: the map over the picture",
    "probabilities": "NAME_TASK_probabilities.npz a task of classes: each class's at each pixel, in float16",
    "coco": "NAME_coco.json: regions of classes as polygons",
}
DEFAULT = ("maps", "sheet")
#: How much an overlay hides of the picture, where a map covers it wholly.
OPACITY = 0.6


def chosen_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Kinds in the order of :data:`KINDS`, each once; raises OptionError for an unknown one, or none."""
    kinds = list(kinds)
    for kind in kinds:
        if kind not in KINDS:
            raise OptionError(f"write: unknown kind of file {shown(kind)}{suggest(kind, KINDS)}")
    if not kinds:
        raise OptionError(f"write: names nothing; name some of {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in kinds)
