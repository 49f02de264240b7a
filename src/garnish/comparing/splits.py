"""The pictures of a comparison: those that train, those held out to choose rates and steps, and those of the test."""

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

    The split ``test`` is listed, so that a comparison without one is refused at once; a picture of it is first read
    when its arm's learning rate has been chosen.

    Args:
        recipe: whose section ``data`` is opened.
        held_out_every: where there is no split ``val``, every n-th training picture is held out.

    Raises:
        DataError: no split test, no picture left to train on.
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
        """What is trained on."""
        return Subset(*self._train, tasks)

    def held_out(self, tasks: Sequence[str] | None = None) -> Subset:
        """What rates and steps are chosen by."""
        return Subset(*self._held_out, tasks)

    def test(self, tasks: Sequence[str] | None = None) -> Subset:
        """What is measured in the end."""
        return Subset(*self._test, tasks)

    def digest(self, part: str, tasks: Sequence[str]) -> str:
        """What identifies the pictures of ``train``, ``held_out`` or ``test`` with the labels of some tasks."""
        at = (part, tuple(tasks))
        if at not in self._digests:
            chosen = {"train": self.train, "held_out": self.held_out, "test": self.test}[part](tasks)
            made = hashlib.sha256()
            for number, index in enumerate(chosen.indices):
                made.update((chosen.key(number) or f"{chosen.name}:{index}:{'+'.join(tasks)}").encode() + b"\n")
            self._digests[at] = made.hexdigest()
        return self._digests[at]
