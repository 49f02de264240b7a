"""Whether label files are yes-or-no maps: edges or objects, white on black or black on white, where to cut grey."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.guessing.measuring import end_share, planes_of, thin_share
from garnish.targets.target import IGNORE

#: Lines: most of their pixels lie at their border, and they are few.
_THIN, _FEW = 0.75, 0.3


def guessed_yes_or_no(evidence: LabelEvidence, middle: float) -> Guess | None:
    """Edges or Saliency with the options of a binary map, None where the files are none.

    Args:
        evidence: the files.
        middle: the threshold of grey levels.
    """
    planes, levels, meaning = planes_of(evidence), evidence.levels, evidence.meaning
    if planes is None or levels is None or levels.coloured or levels.nan or levels.infinite or levels.low < 0:
        return None
    if meaning is not None and meaning.task not in ("Edges", "Saliency") and not meaning.generic:
        return None
    if evidence.lossy and meaning is not None and meaning.generic:
        return None  # labels of classes, whose numbers are lost
    values = set(levels.values or ())
    two = bool(values) and (values <= {0, 1} or values <= {0, IGNORE}) and not evidence.lossy
    void = values == {0, 1, IGNORE} and not evidence.lossy
    if levels.high > IGNORE and levels.high != 65535:
        return None  # numbers of another kind
    front = [plane == 1 if void else plane > (0 if two else middle) for plane in planes]
    share = float(np.mean([mask.mean() for mask in front]))
    dark = [~mask for mask in front]
    thin, thin_dark = thin_share(front), thin_share(dark)
    options: dict[str, Json] = {} if two else {"ignore": [IGNORE]} if void else {"threshold": middle}
    writing = f"{', '.join(f'{v:g}' for v in sorted(values))}" if two or void else f"grey levels up to {levels.high:g}"
    lines = share < _FEW and thin > _THIN
    dark_lines = 1 - share < _FEW and thin_dark > _THIN and not void
    told = f"{writing}: {share:.1%} white, {thin:.0%} of it at borders"
    if dark_lines:
        told = f"{writing}: {1 - share:.1%} black, {thin_dark:.0%} of it at borders: lines are black"
        options["inverted"] = True
    wanted = None if meaning is None or meaning.generic else meaning
    if wanted is not None and wanted.task == "Edges":
        return _edges(options, told, share, lines, dark_lines, void)
    sure = 0.9 if two or void else _soft(planes, levels.high)
    if not any(mask.any() for mask in front):
        sure = 0.1  # nothing that would be an object
    if wanted is not None:
        return Guess("Saliency", wanted.name, _without(options, "inverted"), min(sure, 0.9) + 0.05, told)
    if lines or dark_lines:
        question = "lines: edges, or a class of thin things? Write `task: Edges`, or `task: Semantic` with `classes`"
        return Guess("Edges", "edges", options, 0.45 if meaning else 0.6, told, question if meaning else None)
    return Guess("Saliency", "saliency", options, (0.45 if sure > 0.8 else 0.2) - (0.15 if meaning else 0), told)


def _edges(options: dict[str, Json], told: str, share: float, lines: bool, dark_lines: bool, void: bool) -> Guess:
    """What a folder of edges holds."""
    if share > 0.5 and not dark_lines and not void:
        question = (
            "most is white and black makes no lines; write `inverted: true` if black is an edge, else `threshold`"
        )
        return Guess("Edges", "edges", options, 0.45, told, question)
    return Guess("Edges", "edges", options, 0.95 if lines or dark_lines else 0.6, told)


def _soft(planes: Sequence[np.ndarray], high: float) -> float:
    """How sure grey levels are a yes-or-no map: most of them lie at the ends of the range."""
    share = end_share(planes, 0.0, 1.0 if high <= 1 else 255.0 if high <= IGNORE else 65535.0)
    return 0.85 if share > 0.8 else 0.4


def _without(options: dict[str, Json], name: str) -> dict[str, Json]:
    return {key: value for key, value in options.items() if key != name}
