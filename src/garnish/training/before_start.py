"""Lines that are printed before a run begins: its length, and warnings about data, licence and batch norms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch.nn.modules.batchnorm import _BatchNorm

from garnish.backbones.weights import is_non_commercial
from garnish.errors import plural
from garnish.model.model import Model

#: Number of warnings of the data check that are printed.
_SHOWN = 5


def shortened(about_data: Sequence[str]) -> list[str]:
    """The first warnings of the data check, and a line with the number of the others."""
    more = len(about_data) - _SHOWN
    return [*about_data[:_SHOWN], *([f"… and {more} more about the data"] if more > 0 else [])]


def pictures_of_a_step(batch_size: int, world: int, accumulate: int) -> str:
    """The pictures of a step as text: ``8 pictures``, or ``8 pictures × 2 processes × 3``."""
    each = plural(batch_size, "picture")
    return each if world * accumulate == 1 else f"{each} × {world} processes × {accumulate}"


def length_of(num_pictures: int, steps: int, each: str, done: int, out: Path | None) -> str:
    """The length of a run as text; ``each``: the pictures of a step."""
    before = f", {done} of them done" if done else ""
    place = f"; {out}" if out else ""
    return f"{plural(num_pictures, 'picture')}, {plural(steps, 'step')} of {each}{before}{place}"


def warnings_about(model: Model, tasks: Sequence[str], world: int) -> list[str]:
    """Warnings of weights with a non-commercial licence, and of batch norms with several processes; a line each.

    Synchronised batch norms are not used: a rank without labels of a task does not run its head, and the others would
    wait for it for ever.
    """
    lines, licence = [], model.backbone.licence
    if is_non_commercial(licence):
        lines.append(f"the weights of {model.backbone.name} are non-commercial ({licence}), and so is what is trained")
    normed = [t for t in tasks if any(isinstance(m, _BatchNorm) for m in model.head(t).modules())]
    if normed and world > 1:
        lines.append(
            f"the heads of {', '.join(normed)} have batch norms, which see the pictures of one process at a time"
            " (running statistics are averaged), so several processes do not"
            " give the numbers of one; LinearHead has none"
        )
    return lines
