"""The last words of the doctor: what was found, in one line, and the commands that come next."""

from __future__ import annotations

import shlex

from garnish.doctor.diagnosis import Diagnosis
from garnish.doctor.fault import LEVELS
from garnish.errors import plural

#: Longer sides of pictures that are trained on whole, pixels; multiple that the sides of crops are.
_WHOLE, _MULTIPLE = 640, 32


def verdict_of(diagnosis: Diagnosis) -> str:
    """``2 errors, 1 warning and 4 hints in 60 pictures``, or that nothing was found."""
    looked = sum(facts.looked for facts in diagnosis.splits.values())
    counts = {level: sum(fault.level == level for fault in diagnosis.faults) for level in LEVELS}
    told = [plural(count, level) for level, count in counts.items() if count]
    found = " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
    return f"{found or 'nothing wrong found'} in {plural(looked, 'picture')}"


def next_steps(diagnosis: Diagnosis, source: str) -> list[str]:
    """What to do next, each a line: ``to …: garnish …``.

    Args:
        diagnosis: what was found.
        source: the data as the command line names them.
    """
    data = shlex.quote(source)
    steps = []
    if mended := [fault for fault in diagnosis.faults if fault.fix or fault.write]:
        what = f"{len(mended)} of the {plural(len(diagnosis.faults), 'finding')}"
        steps.append(f"to mend {what} in a copy: garnish check {data} --fix mended")
    if not diagnosis.errors:
        steps.append(f"to train: {_train(diagnosis, data)}")
    elif len(mended) < len(diagnosis.faults):
        steps.append(f"to look again when the errors are mended: garnish check {data}")
    return steps


def _train(diagnosis: Diagnosis, data: str) -> str:
    """A first run on the bundled backbone, which needs no download."""
    sizes = [
        (int(height), int(width))
        for facts in diagnosis.splits.values()
        for width, _, height in (size.partition("x") for size in facts.sizes)
    ]
    crop = ""
    if len(set(sizes)) > 1 or max((side for size in sizes for side in size), default=0) > _WHOLE:
        sides = [max(_MULTIPLE, min(_WHOLE, *along) // _MULTIPLE * _MULTIPLE) for along in zip(*sizes, strict=True)]
        crop = f" --train.augment.size {sides[0]},{sides[1]}"
    return f"garnish train --data {data} --backbone garnish_b0 --train.steps 300{crop} --out runs/first"
