"""The section ``tasks`` of a recipe as it may be written: names, or names with options."""

from __future__ import annotations

from collections.abc import Mapping

from garnish.checking.plain_data import Json
from garnish.recipes.paths import as_list


def task_mapping(plain: Mapping[str, Json]) -> dict[str, Json]:
    """The section ``tasks`` as a mapping; all tasks of the data if it is left out."""
    given = plain.get("tasks")
    if given is None:
        from garnish.data.sources import open_data

        data = plain.get("data")
        given = list(open_data(data).tasks) if data is not None else []
    return dict(given) if isinstance(given, Mapping) else named_alone(given) or {}


def named_alone(given: Json) -> dict[str, Json] | None:
    """Tasks that are named without options; None if something among them is no name."""
    names = as_list(given)
    return dict.fromkeys(names) if all(isinstance(name, str) for name in names) else None
