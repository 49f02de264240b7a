"""What a bundle says of the size of the pictures that its tasks were trained on: ``extra.trained_at``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from garnish.bundles.bundle_json import BundleFacts
from garnish.checking.plain_data import Json
from garnish.engine.trained_scale import TrainedScale, scale_of_facts, scale_of_recipe
from garnish.model.model import Model

_KEY = "trained_at"


def scale_told(facts: BundleFacts, tasks: Sequence[str]) -> TrainedScale | None:
    """What a bundle says of some of its tasks that share an owner: by task, else by the recipe of its run."""
    extra = facts.get("extra", {})
    listed = extra.get(_KEY)
    if isinstance(listed, Mapping):
        found = {scale_of_facts(listed[task]) if task in listed else None for task in tasks}
        return found.pop() if len(found) == 1 else None
    return scale_of_recipe(extra.get("recipe"))


def scales_to_tell(model: Model, tasks: Sequence[str]) -> dict[str, Json]:
    """The entry for tasks of a model whose training is known; empty where that of none is."""
    scales = {task: model.owner_of(task).root.scale for task in tasks}
    known: dict[str, Json] = {task: scale.facts() for task, scale in scales.items() if scale is not None}
    return {_KEY: known} if known else {}
