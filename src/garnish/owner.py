"""Who owns which adapters of a model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from garnish.adapters.adapter import Method


@dataclass(frozen=True)
class Owner:
    """Who owns a set of adapters: the tasks that use it and the methods that made it.

    Attributes:
        tasks: names of the tasks; one where it is a task's own part of another owner.
        methods: what made it.
        shared: the tasks of the owner that this one is a part of; None where it is no part.
    """

    tasks: tuple[str, ...]
    methods: tuple[Method, ...]
    shared: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """``seg+depth``, of a task's part ``seg+depth:seg``: names the owner's tensors in a bundle."""
        return self.name_for(self.shared or self.tasks)

    def name_for(self, tasks: Collection[str]) -> str:
        """The name where only some tasks are kept; empty where none of its own is."""
        kept = "+".join(task for task in self.tasks if task in tasks)
        if self.shared is None or not kept:
            return kept
        return f"{'+'.join(task for task in self.shared if task in tasks)}:{kept}"
