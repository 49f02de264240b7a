"""``HeldModel``: a model that somebody has built, as a trunk can be built from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from garnish.backbones.given_weights import GivenWeights
from garnish.checking.plain_data import Json

if TYPE_CHECKING:
    from garnish.backbones.backbone import Backbone


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class HeldModel:
    """What :func:`garnish.backbone` makes of an object.

    Attributes:
        name: of the trunk, of one of the families.
        options: where its architecture differs from that of the name.
        weights: its tensors.
        check: raises OptionError unless a trunk that was built of all this gives the object's own feature maps; it
            finds what no tensor shows (an activation, an epsilon, the number of heads).
    """

    name: str
    options: Mapping[str, Json]
    weights: GivenWeights
    check: Callable[[Backbone], None]
