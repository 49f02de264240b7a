"""Whether label files are depth without a unit, and whether larger numbers are nearer."""

from __future__ import annotations

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.guessing.measuring import planes_of, smooth_share
from garnish.data.guessing.words import words_of_place

_ASK = "write `larger: nearer` (disparity) or `larger: farther` (depth)"

#: Largest number of two bytes, which many tools write for "none", and what the largest of all others lies below then.
_FULL, _FAR = 65535, 60_000


def guessed_relative_depth(evidence: LabelEvidence) -> Guess | None:
    """RelativeDepth with what ``larger`` means where a word tells, None where the files are none."""
    planes, meaning, levels = planes_of(evidence), evidence.meaning, evidence.levels
    if planes is None or levels is None or (meaning is not None and meaning.task not in ("RelativeDepth", "Depth")):
        return None
    why = f"numbers from {levels.low:.4g} to {levels.high:.4g} without a unit"
    options: dict[str, Json] = {}
    marks = [mark for mark, there in (("nan", levels.nan), ("inf", levels.infinite)) if there]
    above = [plane[np.isfinite(plane) & (plane > 0)] for plane in planes]
    zeros = sum(int((plane == 0).sum()) for plane in planes) / sum(plane.size for plane in planes)
    lowest = min((float(values.min()) for values in above if values.size), default=0.0)
    invalid: list[Json] = [*marks]
    if zeros > 0.001 and lowest > 0.02 * levels.high:  # nothing lies between 0 and the rest: 0 is none
        invalid.append(0)
        why += f", {zeros:.1%} are 0 and the next is {lowest:.4g}: 0 is none"
    below = [values[values < _FULL] for values in above]
    full = 1 - sum(values.size for values in below) / max(sum(values.size for values in above), 1)
    next_one = max((float(values.max()) for values in below if values.size), default=0.0)
    if levels.high == _FULL and full > 0.0005 and 0 < next_one < _FAR:  # nothing lies between the rest and 65535
        invalid.append(_FULL)
        why += f", {full:.1%} are {_FULL} and the next is {next_one:.4g}: {_FULL} is none"
    if invalid:
        options["invalid"] = invalid
    if meaning is not None and meaning.task == "RelativeDepth":
        words = {word for part in evidence.place.split("/") for word in words_of_place(part)}
        if "relativedepth" in words:
            return Guess("RelativeDepth", "depth", {"larger": "nearer", **options}, 0.45, why, _ASK)
        return Guess(
            "RelativeDepth", "depth", {"larger": "nearer", **options}, 0.8, f"{why}; disparity: larger is nearer"
        )
    smooth = smooth_share(planes)
    if meaning is None and (smooth < 0.6 or max(len(np.unique(plane)) for plane in planes[:4]) < 64):
        return None
    question = f"smooth numbers without a unit, depth perhaps; {_ASK} with `task: RelativeDepth`"
    return Guess("RelativeDepth", "depth", {"larger": "nearer", **options}, 0.3, why, question)
