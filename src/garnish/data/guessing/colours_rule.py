"""Whether label files are class maps in colours: which colours they hold, and what a list beside them calls these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.guessing.measuring import change_share
from garnish.errors import plural

#: Most colours of a class map, and the largest share of neighbours that differ in one.
_MOST, _BUSY = 256, 0.4
#: Most colours that a question proposes, and the least share of a file's pixels of each.
_SHOWN, _COMMON = 8, 0.01
#: Colours that mean "no label": the outlines of Pascal VOC.
_NONE = ((224, 224, 192),)

_Colour = tuple[int, int, int]


def guessed_colours(evidence: LabelEvidence) -> Guess | None:
    """Semantic with a table of colours, None where the files hold no colours or those of pictures."""
    levels, meaning = evidence.levels, evidence.meaning
    if levels is None or not levels.coloured or (meaning is not None and meaning.task != "Semantic"):
        return None
    name = "seg" if meaning is None else meaning.name
    if any(raw.dtype != np.uint8 or raw.ndim != 3 for raw in evidence.arrays if raw.ndim != 2):
        return None
    if levels.values is None or len(levels.values) > _MOST:
        if meaning is None:
            return None
        return _too_many(evidence, name)
    if evidence.lossy:
        why, options = plural(len(levels.values), "colour"), _started(_commonest(evidence)[2])
        return Guess("Semantic", name, options, 0.3, why, _lossy(evidence))
    seen = [_colour(code) for code in levels.values]
    codes = [raw.astype(np.int64) @ np.array([65536, 256, 1]) for raw in evidence.arrays if raw.ndim == 3]
    changes = change_share(codes)
    why = f"{plural(len(seen), 'colour')} in {plural(levels.files, 'file')}, {changes:.1%} of neighbours differ"
    if changes > _BUSY and meaning is None:
        return None
    listed = {name: colour for name, colour in evidence.listed.items() if colour is not None}
    if listed and set(seen) <= set(listed.values()) | set(_NONE):
        table: dict[str | int, Json] = {name: [*colour] for name, colour in listed.items()}
        if missing := [[*colour] for colour in seen if colour not in listed.values()]:
            table["ignore"] = missing
        names = list(listed)
        told = f"{why}; all of them in {evidence.list_file}"
        return Guess("Semantic", name, {"classes": [*names], "colours": table}, 0.95, told)
    if listed:
        unknown = [colour for colour in seen if colour not in listed.values()]
        question = (
            f"{evidence.list_file} lists {plural(len(listed), 'colour')}, and the files also hold"
            f" {', '.join(map(_hex, unknown[:6]))}; list what these are under `colours`"
        )
        table = {name: [*colour] for name, colour in listed.items()}
        return Guess("Semantic", name, {"classes": [*listed], "colours": table}, 0.4, why, question)
    if len(seen) < 2:
        question = f"{_hex(seen[0])} is the only colour; give each class its colour under `colours`"
        return Guess("Semantic", name, _started(()), 0.3, why, question)
    told = (
        f"{why}: {', '.join(map(_hex, seen[:8]))}{' …' if len(seen) > 8 else ''}; classes are called by their colours"
    )
    return Guess("Semantic", name, _started(seen), 0.75 if meaning else 0.65, told)


def _too_many(evidence: LabelEvidence, name: str) -> Guess:
    """A question about files with more colours than classes, with the commonest of them to start from."""
    file, count, common, covered = _commonest(evidence)
    why = f"{count} colours in one file"
    if evidence.lossy:
        return Guess("Semantic", name, _started(common), 0.2, why, _lossy(evidence))
    told = (
        f"{file} holds {count} colours, too many for classes, as in photographs, blended drawings, and masks that were"
        f" resized or were JPEG once ({', '.join(map(_hex, common))} are {covered:.0%} of its pixels); save the masks"
        " in the colours of their classes alone and list these under `colours`, or name the labels under `labels`"
    )
    return Guess("Semantic", name, _started(common), 0.2, why, told)


def _commonest(evidence: LabelEvidence) -> tuple[Path, int, list[_Colour], float]:
    """The file with most colours: it, their number, its commonest colours in order, and their share of its pixels."""
    found = []
    for file, raw in zip(evidence.files, evidence.arrays, strict=True):
        if raw.ndim == 3 and raw.shape[-1] >= 3:
            codes, counts = np.unique(raw[..., :3].astype(np.int64) @ np.array([65536, 256, 1]), return_counts=True)
            found.append((len(codes), file, codes, counts))
    if not found:
        return evidence.files[0], 0, [], 0.0
    count, file, codes, counts = max(found, key=lambda one: one[0])
    chosen = [k for k in np.argsort(-counts, kind="stable")[:_SHOWN] if counts[k] >= _COMMON * counts.sum()]
    colours = sorted(_colour(int(codes[k])) for k in chosen)
    return file, count, colours, float(counts[chosen].sum() / max(counts.sum(), 1))


def _started(colours: Sequence[_Colour]) -> dict[str, Json]:
    """Options with a class for each colour, called by its digits; of fewer than two colours an example to fill in."""
    if len(colours) < 2:
        return {"classes": ["background", "thing"], "colours": {"background": [0, 0, 0], "thing": [255, 0, 0]}}
    table: dict[str | int, Json] = {}
    for colour in colours:
        if colour in _NONE:
            table["ignore"] = [*colour]
        else:
            table["background" if colour == (0, 0, 0) else _hex(colour)[1:]] = [*colour]
    return {"classes": [one for one in table if one != "ignore"], "colours": table}


def _lossy(evidence: LabelEvidence) -> str:
    return f"colours of {evidence.files[0]} are changed by {evidence.lossy} compression; save the labels as PNG or .npy"


def _colour(code: int) -> _Colour:
    return code >> 16, code >> 8 & 255, code & 255


def _hex(colour: _Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
