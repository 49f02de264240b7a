"""What storing a bundle in float16 does to its metrics."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from garnish.bundles.atomic import write_file, writing
from garnish.bundles.description import DESCRIPTION, WEIGHTS, read_description
from garnish.bundles.stored import fill, read_tensors
from garnish.model import Model


@contextlib.contextmanager
def holding(model: Model, bundle: Path) -> Iterator[None]:
    """The tensors of a bundle of this very model in it, for a ``with`` block; afterwards its own again."""
    former = {name: tensor.detach().clone() for name, tensor in model.own_tensors().items()}
    stored, facts = read_tensors((bundle / WEIGHTS).read_bytes(), str(bundle)), read_description(bundle)
    try:
        fill(model, range(len(model.owners)), stored, facts["dtype"], facts["tuned_as"], str(bundle))
        yield
    finally:
        with torch.no_grad():
            for name, tensor in model.own_tensors().items():
                tensor.copy_(former[name])


def write_rounding(bundle: Path, change: Mapping[str, Mapping[str, float]]) -> None:
    """Add ``metrics_rounding`` to a bundle's description: task → metric → stored minus reached, on one set."""
    facts = read_description(bundle)
    facts["metrics_rounding"] = {
        task: {name: value if math.isfinite(value) else None for name, value in values.items()}
        for task, values in change.items()
    }
    text = json.dumps(facts, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    with writing(f"{bundle}:", "free some space, then resume"):
        write_file(bundle / DESCRIPTION, text.encode())
