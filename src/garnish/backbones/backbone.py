"""What a family of backbones says: the names that it knows, and how it builds them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from garnish.checking.tensor_facts import remembered
from garnish.engine.context import Rows
from garnish.engine.maps import TaskMaps
from garnish.engine.one_pass import run_pass
from garnish.engine.owner import Owner, owners_of
from garnish.engine.trunk import Trunk
from garnish.engine.trunk_start import TrunkState
from garnish.errors import OptionError

#: label → (name, options)
Small = Mapping[str, tuple[str, Mapping[str, Any]]]


class Backbone(Trunk, ABC):
    """A frozen trunk. A family subclasses it, builds ``stem`` and ``stages`` and says how the stream becomes a map.

    Attributes:
        small: label → (name, options) of trunks that are built and run in a moment: what the tests hold the family to.
    """

    small: ClassVar[Small]

    @classmethod
    @abstractmethod
    def names(cls) -> list[str]:
        """Every name this family can build."""

    @classmethod
    @abstractmethod
    def create(cls, name: str, weights: str | bool | None, options: Mapping[str, Any]) -> Backbone:
        """Build ``name``; ``weights`` as for :func:`garnish.backbone`.

        Raises:
            OptionError: an unknown architecture option. WeightsError: weights that do not fit or cannot be read.
        """

    def forward(
        self,
        images: Tensor,
        owners: Owner | tuple[Owner, ...] | None = None,
        rows: Rows | None = None,
        *,
        unread: bool = False,
        start: TrunkState | None = None,
    ) -> tuple[Tensor | TaskMaps, ...]:
        """One pass: raw feature maps, finest first, each (I or R, C_i, H_i, W_i).

        Args:
            images: (I, 3, H, W) float32, normalised; sides a multiple of ``multiple``.
            owners: whose adapters act; ``()``: nobody's; left out: the only owner's, if there is any.
            rows: as for :func:`garnish.engine.one_pass.run_pass`, and so are the others.
            unread: see there.
            start: see there.

        Raises:
            OptionError: several owners, and none is named.
        """
        present: tuple[Owner | None, ...] = (owners,) if isinstance(owners, Owner) else owners or (None,)
        if owners is None and len(self.owners):
            present = owners_of(self)
            if len(present) > 1:
                names = ", ".join(owner.name for owner in owners_of(self))
                raise OptionError(f"{self.name}: owners: name one of {names}, whose adapters act, or () for none")
        return run_pass(self, images, present, rows, unread=unread, start=start)

    def fingerprint(self, *, anew: bool = True) -> str:
        """What identifies the frozen tensors, so that a bundle can refuse another backbone: see :func:`fingerprint`.

        Args:
            anew: read them all; False: only where :func:`garnish.checking.tensor_facts.remembered` says so.
        """
        if anew:
            return fingerprint(self.frozen_tensors())
        return remembered(self.body, "fingerprint", lambda: fingerprint(self.frozen_tensors()))


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, by name, so that any storage dtype agrees."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        value = tensor.detach().cpu().contiguous()
        value = value.float() if value.is_floating_point() else value
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
