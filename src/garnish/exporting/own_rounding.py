"""How far a model's own float32 is from its float64, to tell a fault of an exported file from rounding.

Two correct programs add the same numbers in other orders, so each is as far from the other as from exact arithmetic.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch

from garnish.errors import GarnishError
from garnish.exporting.certificate import LIMIT, Certificate, beyond, pictures_for
from garnish.model.model import Model
from garnish.runtime.manifest import Precision

#: A difference of up to so many times what the model's own float32 is off by is told as rounding.
_TIMES = 4.0


def own_rounding(model: Model, certificate: Certificate, dtype: torch.dtype) -> Mapping[str, float]:
    """Task → largest difference of raw outputs of a float32 model and the same in float64, over the largest value.

    Args:
        model: of :func:`garnish.exporting.deployed.plain_copy`; unchanged.
        certificate: whose sizes of made pictures and tasks are taken.
        dtype: of the pictures: uint8, uint16 or float32.
    """
    wide = copy.deepcopy(model).double()
    tasks = list(certificate["tasks"])
    off, scale = (dict.fromkeys(tasks, 0.0) for _ in range(2))
    for seed, (count, height, width) in enumerate(certificate["sizes"]):
        images = pictures_for(model, tasks, (count, height, width), seed, dtype)
        with torch.inference_mode():
            exact, found = wide(images, tasks), model(images, tasks)
        for task, out in exact.items():
            off[task] = max(off[task], float((out - found[task].double()).abs().amax()))
            scale[task] = max(scale[task], float(out.abs().amax()))
    return {task: off[task] / max(scale[task], torch.finfo(torch.float32).tiny) for task in tasks}


def check_agreement(
    model: Model, certificate: Certificate, precision: Precision, dtype: torch.dtype, what: str
) -> None:
    """Raise GarnishError for a file beyond a limit; in float32 with what rounding has to do with it.

    Args:
        model: that the file was compared with.
        certificate: of the file.
        precision: of the file.
        dtype: of the pictures.
        what: the beginning of the message.
    """
    if lines := list(beyond(certificate, precision)):
        told = f"; {told_rounding(model, certificate, dtype)}" if precision == "fp32" else ""
        raise GarnishError(f"{what}: {'; '.join(lines)}{told}; nothing was written")


def told_rounding(model: Model, certificate: Certificate, dtype: torch.dtype) -> str:
    """What to say behind a refusal in float32: how far the model itself is from float64, and what follows from that."""
    try:
        own = own_rounding(model, certificate, dtype)
    except Exception as error:  # a stranger's layer that knows float32 alone
        return f"how far the model itself is from float64 cannot be told ({type(error).__name__})"
    off = {task: facts["relative"] for task, facts in certificate["tasks"].items() if facts["relative"] > LIMIT}
    said = ", ".join(f"{task!r} by {own[task]:.2g}" for task in (off or own))
    told = f"the model's own float32 is off from its float64 ({said})"
    if off and all(relative <= _TIMES * own[task] for task, relative in off.items()):
        return (
            f"{told}: it is this model that rounds so badly, in torch as well, and not the graph; predict with torch,"
            " or train it again with a smaller learning rate"
        )
    return f"{told}, which does not explain it: the graph computes something else"
