"""How transformers normalises pictures in front of a model: ``preprocessor_config.json`` beside its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

from garnish.backbones.architecture import Flag, Mean, Std
from garnish.backbones.backbone import Backbone
from garnish.backbones.hub_files import HUB_PICTURES
from garnish.backbones.transformers.config_fields import read_config
from garnish.checking.plain_data import Json, Within
from garnish.errors import OptionError
from garnish.files.strict_json import read_json

_REMEDY = "fetch it again, or remove it"

_SCALED = Within("true, for pixels are scaled to 0 to 1", lambda done: done)
_TO_ONE = Within("1/255, for pixels are scaled to 0 to 1", lambda factor: math.isclose(255 * factor, 1, rel_tol=1e-4))


@final
@dataclass(frozen=True, kw_only=True)
class _Preprocessor:
    """Sizes, which it states too, are not read: a trunk takes pictures of any size."""

    do_rescale: Annotated[bool, _SCALED] = True
    rescale_factor: Annotated[float, _TO_ONE] = 1 / 255
    do_normalize: Flag = True
    image_mean: Mean | None = None
    image_std: Std | None = None


def stated_colours(file: Path) -> dict[str, Json]:
    """Mean and std of the ``preprocessor_config.json`` in the folder of a file; empty if it does not say them.

    Args:
        file: a weights file or a ``config.json``.

    Raises:
        OptionError: it is damaged, or scales pixels otherwise than to 0 to 1.
    """
    beside = Path(file).parent / HUB_PICTURES
    if not beside.is_file():
        return {}
    found = read_json(beside, "description of how pictures are normalised", _REMEDY, OptionError)
    if not isinstance(found, Mapping):
        raise OptionError(f"{beside}: is not a mapping; {_REMEDY}")
    said = read_config(found, _Preprocessor, str(beside))
    if not said.do_normalize:
        return {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    if said.image_mean is None or said.image_std is None:
        return {}
    return {"mean": list(said.image_mean), "std": list(said.image_std)}


def other_colours(trunk: Backbone, file: Path) -> dict[str, Json]:
    """What :func:`stated_colours` gives, without what a trunk has already."""
    own = {"mean": trunk.mean, "std": trunk.std}
    return {
        key: values
        for key, values in stated_colours(file).items()
        if any(abs(one - other) > 1e-4 for one, other in zip(values, own[key], strict=True))
    }
