"""The conditions of a comparison sent to a node, with what shows whether data and weights are the same there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from garnish.comparing.conditions import Conditions
from garnish.errors import DataError, WeightsError

_PARTS = ("train", "held_out", "test")


@final
@dataclass(frozen=True)
class Sent:
    """Conditions, and digests of what they read on the driver.

    Paths in a recipe can lead elsewhere on another machine; runs under the driver's keys must not be of other data.
    """

    conditions: Conditions
    digests: Mapping[tuple[str, tuple[str, ...]], str]

    @classmethod
    def of(cls, conditions: Conditions) -> Sent:
        """What the driver sends."""
        groups = {group for arm in conditions.arms.values() for group in arm.groups}
        return cls(
            conditions,
            {(part, tasks): conditions.parts.digest(part, tasks) for part in _PARTS for tasks in sorted(groups)},
        )

    def check(self) -> None:
        """On a node: compare its data and weights.

        Raises:
            DataError, WeightsError: they are others, or are not there.
        """
        parts = self.conditions.parts
        for (part, tasks), digest in self.digests.items():
            if parts.digest(part, tasks) != digest:
                raise DataError(
                    f"the {part.replace('_', '-')} pictures ({'+'.join(tasks)}) are not those of the driver, by names,"
                    " sizes and times of files; set data to a path that is the same folder on every node"
                )
        choice, facts = self.conditions.recipe.backbone, self.conditions.trunk_facts
        assert choice is not None
        if choice.build().fingerprint() != facts.fingerprint:
            raise WeightsError(
                f"the weights of {facts.name} are not those of the driver; set backbone.weights to a file that is the"
                " same on every node"
            )
