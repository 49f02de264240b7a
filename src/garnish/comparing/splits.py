"""The data of a comparison: training pictures, held-out pictures for choosing rates and steps, test pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import final

from garnish.data.subset import Subset
from garnish.errors import DataError
from garnish.recipes.recipe import Recipe
from garnish.recipes.splits import validation


@final
class Parts:
    """The three parts of a recipe's data.

    The split ``test`` is listed at once, so that a comparison without one is refused early; its pictures are only read
    after an arm's learning rate has been chosen.

    Args:
        recipe: its section ``data`` is opened.
        held_out_every: if there is no split ``val``, every n-th training picture is held out.

    Raises:
        DataError: no split test, or no picture left to train on.
    """

    def __init__(self, recipe: Recipe, held_out_every: int) -> None:
        whole = recipe.open("train")
        val = validation(recipe)
        everything = range(len(whole))
        if val is not None:
            self._train, self._held_out = (whole, list(everything)), (val, list(range(len(val))))
            self.held_out_by = "the split val"
        else:
            held = list(everything)[held_out_every - 1 :: held_out_every]
            rest = sorted(set(everything) - set(held))
            if not held or not rest:
                raise DataError(
                    f"{whole.name}: {len(whole)} pictures are too few to hold out one in {held_out_every}; give more"
                    " pictures, a split val, or another --held-out-every"
                )
            self._train, self._held_out = (whole, rest), (whole, held)
            self.held_out_by = f"one in {held_out_every} of the training pictures"
        try:
            test = recipe.open("test")
        except DataError as error:
            raise DataError(f"compare: needs a split test to measure on ({error})") from None
        self._test = (test, list(range(len(test))))
        self.tasks = recipe.tasks_of(whole)
        for part in (self.held_out(), self.test()):
            for name in self.tasks:
                if name not in part.tasks:
                    raise DataError(f"{part.name}: has no labels of task {name!r}; add them, or leave it out of tasks")
        self._digests: dict[tuple[str, tuple[str, ...]], str] = {}

    def train(self, tasks: Sequence[str] | None = None) -> Subset:
        """The training pictures, with the labels of some tasks (None: all)."""
        return Subset(*self._train, tasks)

    def held_out(self, tasks: Sequence[str] | None = None) -> Subset:
        """The pictures on which rates and steps are chosen."""
        return Subset(*self._held_out, tasks)

    def test(self, tasks: Sequence[str] | None = None) -> Subset:
        """The test pictures, for the final measurement."""
        return Subset(*self._test, tasks)

    def digest(self, part: str, tasks: Sequence[str]) -> str:
        """Digest of the pictures of ``train``, ``held_out`` or ``test`` with the labels of some tasks."""
        at = (part, tuple(tasks))
        if at not in self._digests:
            chosen = {"train": self.train, "held_out": self.held_out, "test": self.test}[part](tasks)
            made = hashlib.sha256()
            for number, index in enumerate(chosen.indices):
                made.update((chosen.key(number) or f"{chosen.name}:{index}:{'+'.join(tasks)}").encode() + b"\n")
            self._digests[at] = made.hexdigest()
        return self._digests[at]
