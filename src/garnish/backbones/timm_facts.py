"""What timm's configuration of weights says beside their architecture: their tag, and how pictures are normalised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm

from garnish.backbones.timm_models import COLOURS
from garnish.checking.plain_data import Json

#: Of ImageNet: what trunks have that timm does not know.
_USUAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def tagged(name: str, facts: Mapping[str, Any]) -> str:
    """The name of timm's with the tag of its configuration, unless that is the default or unknown to timm."""
    tag, default = facts.get("tag"), timm.models.get_pretrained_cfg(name)
    if default is None or tag in (None, "", default.tag) or f"{name}.{tag}" not in timm.list_pretrained(f"{name}.*"):
        return name
    return f"{name}.{tag}"


def colours(name: str, facts: Mapping[str, Any]) -> dict[str, Json]:
    """Mean and std of pictures as options of a trunk, where they are not those of its name; not checked."""
    usual = timm.models.get_pretrained_cfg(name) if timm.is_model(name) else None
    found: dict[str, Json] = {}
    for key in COLOURS:
        values = facts.get(key)
        listed = list(values) if isinstance(values, list | tuple) else values
        if values is not None and listed != list(getattr(usual, key, _USUAL[key])):
            found[key] = listed
    return found
