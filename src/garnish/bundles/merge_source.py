"""What is merged, as it is given: a model, or bundles on disk."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from garnish.bundles.bundle import load
from garnish.bundles.bundle_json import read_bundle_json
from garnish.bundles.given_bundle import given_bundle
from garnish.bundles.tensors import StoredDtype
from garnish.bundles.written_files import Metrics
from garnish.errors import OptionError
from garnish.model.model import Model

Source = Model | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def read_whole(
    source: Source, weights: str | os.PathLike[str] | None
) -> tuple[Model, Mapping[str, Mapping[str, float]], StoredDtype]:
    """The model, the metrics of its tasks, and a dtype that holds its tensors exactly."""
    if isinstance(source, Model):
        if weights is not None:
            raise OptionError("merge: a model has its weights; weights= goes with a bundle's folder")
        return source, {}, "float32"
    paths = [given_bundle(path) for path in ([source] if isinstance(source, str | os.PathLike) else source)]
    told = [read_bundle_json(path) for path in paths]
    metrics: Metrics = {
        task: {name: math.nan if value is None else value for name, value in values.items()}
        for facts in told
        for task, values in facts["metrics"].items()
    }
    halved = all(facts["dtype"] == "float16" for facts in told)
    return load(paths, weights=weights), metrics, "float16" if halved else "float32"
