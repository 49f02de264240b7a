"""Saving bundles in float16, and recording how the rounding changes their metrics."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from garnish.bundles.bundle import save as save_bundle
from garnish.bundles.bundle_json import DESCRIPTION, WEIGHTS, bundle_folder, read_bundle_json
from garnish.bundles.tensors import BeyondFloat16, check_fit, fill, kinds_of, read_tensors, weights_of
from garnish.checking.plain_data import Json
from garnish.files.atomic import write_folder, writing
from garnish.files.checksums import with_sums
from garnish.model.model import Model


def save_as_fits(
    model: Model, folder: Path, metrics: Mapping[str, Mapping[str, float]], extra: Mapping[str, Json]
) -> str:
    """Save a bundle in float16, or in float32 if a value overflows float16: then return a line about it, else ""."""
    try:
        save_bundle(model, folder, metrics=metrics, extra=extra)
    except BeyondFloat16 as error:  # found before anything is written
        save_bundle(model, folder, metrics=metrics, extra=extra, dtype="float32")
        return f"{str(error).split(';')[0]}; {folder} is stored in float32"
    return ""


@contextlib.contextmanager
def holding(model: Model, bundle: Path) -> Iterator[None]:
    """Load the tensors of a bundle of this model into it for a ``with`` block, then restore its own."""
    former = {name: tensor.detach().clone() for name, tensor in model.own_tensors().items()}
    folder = bundle_folder(bundle)  # after a kill within its replacement it lies elsewhere
    facts = read_bundle_json(folder)
    check_fit(model.own_tensors(), kinds_of(folder, facts), facts["dtype"], str(bundle))
    stored = read_tensors(weights_of(folder, facts), str(bundle))
    try:
        fill(model.backbone, model.own_tensors(), stored, facts["dtype"], facts["tuned_as"], str(bundle))
        yield
    finally:
        with torch.no_grad():
            for name, tensor in model.own_tensors().items():
                tensor.copy_(former[name])


def write_rounding(bundle: Path, change: Mapping[str, Mapping[str, float]]) -> None:
    """Add ``metrics_rounding`` to a bundle's description: task → metric → value as stored minus value before."""
    folder = bundle_folder(bundle)
    facts = read_bundle_json(folder)
    facts["metrics_rounding"] = {
        task: {name: value if math.isfinite(value) else None for name, value in values.items()}
        for task, values in change.items()
    }
    text = json.dumps(facts, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    with writing(f"{bundle}:", ", then resume"):
        weights = weights_of(folder, facts)
        write_folder(bundle, with_sums({WEIGHTS: weights, DESCRIPTION: text.encode()}))
