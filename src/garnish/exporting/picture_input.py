"""What pictures a graph takes: of which type and bands; and what of an export knows 8-bit RGB alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from garnish.errors import OptionError
from garnish.model.model import Model
from garnish.pictures.bands import Bands
from garnish.runtime.manifest import FORMAT, FORMAT_OF_BANDS, ImageFacts

#: As :func:`garnish.exporting.export.export` takes it; None: uint8 of RGB, float of other bands.
Input = Literal["uint8", "uint16", "float"]
_DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float": torch.float32}


def input_dtype(given: Input | None, model: Model, tasks: Sequence[str]) -> torch.dtype:
    """The type of the pictures that a graph of some tasks takes.

    Raises:
        OptionError: tasks of different bands, or 16 bits of RGB that has 8.
    """
    bands = model.served.bands_of(tasks)
    if bands.is_rgb and given == "uint16":
        raise OptionError('export: input="uint16", but the pictures are 8-bit RGB; use uint8 or float')
    return _DTYPES[given or ("uint8" if bands.is_rgb else "float")]


def check_rgb_alone(model: Model, what: str, instead: str) -> None:
    """Raise :class:`OptionError` where a task of a model takes other bands, which ``what`` of an export does not."""
    odd = next((task for task in model.tasks if not model.bands_of(task).is_rgb), None)
    if odd is not None:
        raise OptionError(
            f"export: {what} takes 8-bit RGB, and the pictures of {odd} have bands of their own; {instead}"
        )


def image_facts(dtype: torch.dtype, least: int, bands: Bands) -> ImageFacts:
    """The entry of a manifest for pictures of some bands, whose smaller side has at least so many pixels."""
    kinds: dict[torch.dtype, Literal["uint8", "uint16", "float32"]] = {
        torch.uint8: "uint8",
        torch.uint16: "uint16",
        torch.float32: "float32",
    }
    facts: ImageFacts = {"dtype": kinds[dtype], "least": least}
    return facts if bands.is_rgb else {**facts, "bands": bands.facts()}


def manifest_format(facts: ImageFacts) -> int:
    """The format of a manifest with these."""
    return FORMAT_OF_BANDS if "bands" in facts else FORMAT


def without_data(pictures: Tensor, bands: Bands) -> Tensor:
    """Made pictures as those of some bands may be: floats without data in places; of RGB itself."""
    if bands.is_rgb or not pictures.is_floating_point():
        return pictures
    made = pictures.clone()
    made[:, :, ::7, ::5] = torch.nan  # no data in any band
    made[:, -1:, ::3] = torch.nan
    return made
