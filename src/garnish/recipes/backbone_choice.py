"""The section ``backbone`` of a recipe: which backbone, with which weights and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, final

from garnish.checking.plain_data import Json

if TYPE_CHECKING:  # torch is imported where something is built, not where --help is asked for
    from garnish.backbones.backbone import Backbone


@final
@dataclass(frozen=True, kw_only=True)
class BackboneChoice:
    """The section ``backbone``; its fields are those of :func:`garnish.backbone`."""

    name: str
    weights: str | bool | None = None
    options: Mapping[str, Json] = field(default_factory=dict)
    taps: Literal["stage", "merged"] = "stage"
    drop_path: float = 0.0

    def build(self) -> Backbone:
        """The frozen trunk."""
        return self._with(self.weights)

    def build_random(self, seed: int) -> Backbone:
        """The trunk with random weights from a seed instead; torch's random state is left unchanged."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._with(False)

    def _with(self, weights: str | bool | None) -> Backbone:
        from garnish.backbones.build import backbone

        return backbone(self.name, weights, options=self.options, taps=self.taps, drop_path=self.drop_path)
