"""The name of which a configuration is, or differs least, and the options in which it differs."""

from __future__ import annotations

from collections.abc import Mapping

from garnish.backbones.transformers.transformers_model import Architecture
from garnish.checking.plain_data import Json


def nearest_name(names: Mapping[str, Mapping[str, Json]], wanted: Mapping[str, Json]) -> Architecture:
    """The architecture of a configuration by a name.

    Args:
        names: name of a trunk → its options; those that stand there are as the name says, and need not be told.
        wanted: all options of the configuration; None: it says nothing of it.
    """
    told = {
        name: {option: value for option, value in wanted.items() if value is not None and own.get(option) != value}
        for name, own in names.items()
    }
    name = min(told, key=lambda each: len(told[each]))
    return Architecture(name, told[name])
