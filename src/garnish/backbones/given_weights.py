"""``GivenWeights``: tensors of a model in memory, which a trunk is built from in place of a file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

#: Source of weights that were a model in memory.
GIVEN = "given"


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class GivenWeights:
    """What a trunk copies.

    Attributes:
        tensors: by the names of timm, or of any other naming that files of the family's weights may have.
        source: where they are found again: a file or a Hub id; :data:`GIVEN`: nowhere, they were a model in memory.
        licence: as its makers state it; None: not stated.
    """

    tensors: Mapping[str, Tensor]
    source: str
    licence: str | None

    def __str__(self) -> str:
        """The source, for messages."""
        return "of the given model" if self.source == GIVEN else self.source


#: What a trunk is built from: None or False: random values; True: the published ones; a file, a folder, a Hub id; or
#: the tensors of a model in memory.
Weights = str | bool | GivenWeights | None


def source_of(weights: str | GivenWeights) -> str:
    """Where weights are found again, as a trunk says it."""
    return weights.source if isinstance(weights, GivenWeights) else weights
