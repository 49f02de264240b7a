"""Opening the model that a command line names: bundle folders, or the name of a finished model."""

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
    """Whether one of these is the name of a finished model and not a folder.

    Raises:
        OptionError: a finished model together with other paths.
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
    """Load bundles as one model, or a finished model by its name.

    Args:
        paths: bundles, or one of :data:`garnish.backbones.segformer.finished_names.FINISHED`.
        weights: of the backbone; None: those named in the bundle, or the published ones of a finished model.
        options: architecture overrides of a finished model.
        device: device of the model; None: the CPU.

    Raises:
        Whatever :func:`garnish.bundles.bundle.load` and :func:`garnish.model.finished.finished` raise.
    """
    if not names_finished(paths):
        return load(paths, weights=weights, device=device)
    model = finished(paths[0], weights or True, options=options)
    return model if device is None else model.to(device)
