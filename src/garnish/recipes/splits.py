"""Opening the validation split of a recipe's data, if they have one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from garnish.errors import DataError

if TYPE_CHECKING:
    from garnish.data.dataset import Dataset
    from garnish.recipes.recipe import Recipe


def validation(recipe: Recipe) -> Dataset | None:
    """The split val; None if the data have none.

    Raises:
        DataError: a split val that is named or exists, but cannot be read.
    """
    try:
        return recipe.open("val")
    except DataError:
        if _has_val(recipe):
            raise
        return None


def _has_val(recipe: Recipe) -> bool:
    """Whether the data name or contain a split val, so that an error in it must not be ignored."""
    from garnish.data.folder import FolderDataset
    from garnish.data.joined import JoinedDataset
    from garnish.data.shards.shard_dataset import ShardDataset

    whole = recipe.open("train")
    parts = whole.parts if isinstance(whole, JoinedDataset) else (whole,)
    return any(
        not isinstance(part, FolderDataset | ShardDataset) or part.description.has_split("val") for part in parts
    )
