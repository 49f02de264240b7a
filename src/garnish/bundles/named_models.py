"""What a word stands for where a model is wanted: bundles, or a finished model by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from garnish.backbones.segformer.finished_names import FINISHED
from garnish.bundles.bundle import load
from garnish.checking.plain_data import Json
from garnish.errors import OptionError
from garnish.model.finished import finished
from garnish.model.model import Model


def names_finished(paths: Sequence[str]) -> bool:
    """Whether one of these is the name of a finished model and no folder.

    Raises:
        OptionError: beside others; bundles of one must be named alone.
    """
    found = [path for path in paths if path in FINISHED and not Path(path).exists()]
    if found and len(paths) > 1:
        raise OptionError(f"{found[0]} cannot be joined with bundles; save it as one first (see docs/segformer.md)")
    return bool(found)


def open_model(
    paths: Sequence[str],
    weights: str | None,
    *,
    options: Mapping[str, Json] | None = None,
    device: torch.device | None = None,
) -> Model:
    """The model of bundles, joined, or of one finished model by its name.

    Args:
        paths: bundles, or one of :data:`garnish.backbones.segformer.finished_names.FINISHED`.
        weights: of the backbone; a finished model's are the published ones where there is none.
        options: architecture overrides of a finished model.
        device: where the model goes; the CPU when left out.

    Raises:
        Whatever :func:`garnish.bundles.bundle.load` and :func:`garnish.model.finished.finished` raise.
    """
    if not names_finished(paths):
        return load(paths, weights=weights, device=device)
    model = finished(paths[0], weights or True, options=options)
    return model if device is None else model.to(device)
