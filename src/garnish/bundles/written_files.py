"""The files of a bundle, made in memory before anything is written: the trained tensors and what describes them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import timm
import torch
from safetensors.torch import save as to_bytes

from garnish import __version__
from garnish.backbones.weights import is_non_commercial
from garnish.bundles.agreement import parameters_of, preprocessing_of
from garnish.bundles.bundle_json import DESCRIPTION, FORMAT, FORMAT_OF_BANDS, WEIGHTS, as_bundle_facts
from garnish.bundles.licences_told import licences_to_tell
from garnish.bundles.specs import Specs, backbone_facts
from garnish.bundles.tensors import TUNED_AS, StoredDtype, stored_tensors
from garnish.bundles.trained_at import scales_to_tell
from garnish.checking.plain_data import MEASURED, Json
from garnish.errors import BundleError, OptionError, one_line, suggest
from garnish.files.checksums import with_sums
from garnish.files.strict_json import MOST_BYTES
from garnish.model.model import Model
from garnish.registry import tell_of_own

#: task → metric → value
Metrics = Mapping[str, Mapping[str, Annotated[float, MEASURED]]]


def bundle_files(
    model: Model,
    tasks: Sequence[str],
    dtype: StoredDtype,
    *,
    metrics: Metrics | None,
    metrics_rounding: Metrics | None,
    extra: Mapping[str, Json] | None,
    where: str,
) -> dict[str, bytes]:
    """The files of a bundle, as :func:`save` writes them: file name → bytes; ``where`` is its path, for messages."""
    tell_of_own(Specs.of(model, tasks).all(), where)
    tensors = stored_tensors(model, tasks, dtype)
    weights = to_bytes(tensors)
    facts = _describe(model, tasks, dtype)
    facts["metrics"] = _plain_metrics(metrics, tasks, "metrics")
    if metrics_rounding is not None:
        facts["metrics_rounding"] = _plain_metrics(metrics_rounding, tasks, "metrics_rounding")
    if told := {**scales_to_tell(model, tasks), **licences_to_tell(model, tasks), **(extra or {})}:
        facts["extra"] = told
    facts["sizes"]["weights_bytes"] = len(weights)
    facts["sha256"] = hashlib.sha256(weights).hexdigest()
    try:
        text = json.dumps(facts, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{where}: its facts cannot be written as JSON ({one_line(error, 120)})") from error
    data = f"{text}\n".encode()
    as_bundle_facts(json.loads(text), where)  # what could not be read again is not written
    if len(data) > MOST_BYTES:
        raise BundleError(f"{where}: {len(data)} bytes of facts are over the limit of {MOST_BYTES}; shorten extra")
    return with_sums({WEIGHTS: weights, DESCRIPTION: data})


def _describe(model: Model, tasks: Sequence[str], dtype: StoredDtype) -> dict[str, Json]:
    trunk = model.backbone
    tensors = [owner.tensors() for owner in model.owners if any(task in tasks for task in owner.tasks)]
    tensors += [model.head_tensors(task) for task in tasks]
    encoder, decoder = parameters_of({name: tensor for each in tensors for name, tensor in each.items()})
    specs = Specs.of(model, tasks)
    return {
        "format": FORMAT if all(owner.given.bands.is_rgb for owner in specs.owners) else FORMAT_OF_BANDS,
        "versions": {"garnish": __version__, "torch": str(torch.__version__), "timm": str(timm.__version__)},
        "dtype": dtype,
        "tuned_as": TUNED_AS[dtype],
        "backbone": {**backbone_facts(trunk), "non_commercial": is_non_commercial(trunk.licence)},
        **specs.facts(),
        "preprocessing": preprocessing_of(trunk),
        "sizes": {"encoder_parameters": encoder, "decoder_parameters": decoder},
    }


def _plain_metrics(metrics: Metrics | None, tasks: Sequence[str], option: str) -> dict[str, dict[str, float | None]]:
    for task in metrics or {}:
        if task not in tasks:
            raise OptionError(f"{option}: no task {task!r} is saved{suggest(task, tasks)}")
    return {
        task: {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        for task, values in (metrics or {}).items()
    }
