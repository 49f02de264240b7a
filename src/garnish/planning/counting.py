"""Exact parameter and byte counts of candidates, on a trunk on the device "meta", which takes no memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch

from garnish.errors import OptionError, SiteError, shown
from garnish.heads.head import Head
from garnish.model.model import Model, adapt
from garnish.model.report import report_without_macs
from garnish.planning.candidates import Candidate, Refused
from garnish.planning.shaped_trunk import ShapedTrunk
from garnish.tasks.task import Task

#: Largest batch that is planned: far beyond every machine, and small enough to be counted without one.
MOST_PICTURES, MOST_SIDE, MOST_PIXELS = 100_000, 2**14, 2**31


@final
@dataclass(frozen=True)
class Setting:
    """The training to plan: backbone, tasks, heads and batch.

    Attributes:
        trunk: the backbone.
        tasks: by name.
        head: as for :func:`garnish.adapt`.
        batch_size: pictures of a step, from 1 to 100,000.
        size: (H, W) of each, from 1 to 16,384; all pictures together have at most 2³¹ pixels.

    Raises:
        OptionError: a batch beyond these bounds.
    """

    trunk: ShapedTrunk
    tasks: Mapping[str, Task]
    head: Head | Mapping[str, Head] | None
    batch_size: int
    size: tuple[int, int]

    def __post_init__(self) -> None:
        count, (height, width) = self.batch_size, self.size
        if not 1 <= count <= MOST_PICTURES:
            raise OptionError(f"plan: --batch-size {shown(count)} is out of range; set 1 to {MOST_PICTURES:,}")
        if not (1 <= height <= MOST_SIDE and 1 <= width <= MOST_SIDE):
            raise OptionError(
                f"plan: --size {shown(height)},{shown(width)} is out of range; set sides of 1 to {MOST_SIDE:,} pixels"
            )
        if count * height * width > MOST_PIXELS:
            raise OptionError(
                f"plan: --batch-size {count:,} with --size {height},{width} has more than {MOST_PIXELS:,} pixels; set"
                " fewer"
            )


@final
@dataclass(frozen=True)
class Counted:
    """A candidate with its exact counts.

    Attributes:
        candidate: the candidate.
        encoder_total: parameters of the bare backbone.
        encoder_trainable: trained parameters of adapters and of the backbone.
        decoder_trainable: of the heads.
        bundle_bytes: of a bundle's weights file at float16.
    """

    candidate: Candidate
    encoder_total: int
    encoder_trainable: int
    decoder_trainable: int
    bundle_bytes: int

    @property
    def share(self) -> float:
        """Trained parameters of the encoder over those of the bare backbone."""
        return self.encoder_trainable / self.encoder_total


def count(setting: Setting, candidate: Candidate) -> Counted | Refused:
    """Count a candidate; :class:`Refused` if it turns out not to fit the trunk."""
    try:
        model = without_memory(setting, candidate)
    except SiteError as error:
        return Refused(str(candidate), str(error))
    facts = report_without_macs(model)
    return Counted(candidate, facts["total"], facts["encoder"], facts["heads"], facts["bytes"])


def without_memory(setting: Setting, candidate: Candidate) -> Model:
    """The candidate's model on the device "meta"."""
    with torch.device("meta"):
        return adapt(setting.trunk.without_memory(), candidate.method, setting.tasks, setting.head)
