"""Saving and loading bundles: folders with the trained tensors, and the name and fingerprint of their backbone.

:mod:`garnish.bundles.bundle_json` describes ``bundle.json``, :mod:`garnish.bundles.tensors` ``weights.safetensors``.
Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import timm
import torch
from safetensors.torch import save as to_bytes

from garnish import __version__
from garnish.backbones.backbone import Backbone
from garnish.backbones.weights import is_non_commercial
from garnish.bundles.agreement import parameters_of, preprocessing_of
from garnish.bundles.bundle_json import (
    DESCRIPTION,
    FORMAT,
    FORMAT_OF_BANDS,
    WEIGHTS,
    BundleFacts,
    as_bundle_facts,
    bundle_folder,
    read_bundle_json,
)
from garnish.bundles.own_backbone import check_backbone, check_same, rebuild
from garnish.bundles.specs import Specs, backbone_facts, build_described
from garnish.bundles.tensors import TUNED_AS, StoredDtype, fill, kinds_of, read_tensors, stored_tensors, weights_of
from garnish.bundles.trained_at import scale_told, scales_to_tell
from garnish.checking.arguments import checked
from garnish.checking.device import usable_device
from garnish.checking.plain_data import MEASURED, Json
from garnish.errors import BundleError, OptionError, one_line, shown, suggest
from garnish.files.atomic import present, write_folder, writing
from garnish.files.checksums import with_sums
from garnish.files.path_text import given_path
from garnish.files.strict_json import MOST_BYTES
from garnish.model.model import Model

Metrics = Mapping[str, Mapping[str, Annotated[float, MEASURED]]]


@checked
def save(
    model: Model,
    path: str | os.PathLike[str],
    *,
    metrics: Metrics | None = None,
    metrics_rounding: Metrics | None = None,
    dtype: StoredDtype = "float16",
    tasks: Sequence[str] | None = None,
    extra: Mapping[str, Json] | None = None,
) -> Path:
    """Write a bundle, or replace one, atomically; other files in the folder are kept.

    Args:
        model: what to save; only adapters, heads and tuned backbone parameters are stored.
        path: the bundle's folder: a new or empty one, or an earlier bundle.
        metrics: task → metric → value reached; NaN is stored as null.
        metrics_rounding: task → metric → change of the value by rounding to ``dtype`` (measured with
            :func:`garnish.training.float16_effect.holding`).
        dtype: of the floating-point tensors; with float32 the loaded model is bit-identical.
        tasks: the tasks to save; None: all.
        extra: more facts for ``bundle.json``, JSON-serialisable.

    Returns:
        The folder.

    Raises:
        OptionError: an unknown task or dtype. BundleError: the folder holds something else, a value that is not finite
        or beyond float16, facts that are not JSON, or no space; an earlier bundle is untouched then.
    """
    chosen = _chosen(model, tasks)
    folder = given_path(path, "save", BundleError)
    _check_place(folder)
    files = bundle_files(
        model, chosen, dtype, metrics=metrics, metrics_rounding=metrics_rounding, extra=extra, where=str(path)
    )
    with writing(f"{path}: the bundle", " or choose another folder; an earlier bundle there is untouched"):
        write_folder(folder, files)
    return Path(path)


@checked
def load(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    backbone: Backbone | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
) -> Model:
    """Read a bundle, or join several that were trained separately on one backbone.

    Args:
        path: one bundle's folder or several; tasks keep their order, and all names must differ.
        backbone: a bare backbone to use; the model takes it over. None: build it as the bundle says.
        weights: the backbone's weights: a file, a folder or a Hub id. None: what the bundle names, whoever wrote it: a
            relative path is looked up in the working directory, then below the bundle's folder; a plain file name
            there first; an ``owner/name`` that is no path is fetched from the Hub (``HF_HUB_OFFLINE=1`` forbids
            that). It is read as weights alone, and must have the fingerprint in the bundle.
        device: device of the model; None: the CPU.

    Returns:
        A model in evaluation mode. Torch's random state is not changed.

    Raises:
        BundleError: damaged files, unexpected tensors or values that are not finite, unknown names or options, a
        description that is not of this model, another backbone. Names and shapes are compared with the header of the
        weights before these are read; a description that asks for far more than they hold is not built.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    place = None if device is None else usable_device(device, "load: device")
    if not paths:
        raise BundleError("load: the list of bundles is empty; name at least one folder")
    read = [(str(p), bundle_folder(p), read_bundle_json(p)) for p in paths]
    _check_joinable([(where, facts) for where, _, facts in read])
    for _, folder, facts in read:
        kinds_of(folder, facts)  # before the backbone is read
    where, _, first = read[0]
    with torch.random.fork_rng(devices=[]):
        if backbone is None:
            backbone = rebuild(where, first["backbone"], weights)
        elif weights is not None:
            raise OptionError("load: give backbone= or weights=, not both")
        check_backbone(where, first["backbone"], backbone, str(weights or backbone.weights_source))
        model = Model(backbone)
        model.eval()
        for where, folder, facts in read:
            _serve(model, where, folder, facts)
    return model if place is None else model.to(place)


@checked
def load_into(model: Model, path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Add the tasks of a bundle to a model, in time independent of how many tasks the model has.

    Other threads may run passes meanwhile: none sees a task before its tensors are loaded.

    Args:
        model: a model on the backbone that the bundle belongs to.
        path: the bundle's folder; the names of its tasks must be new to the model.

    Returns:
        The names of the tasks.

    Raises:
        BundleError: as :func:`load`; the model is unchanged then.
    """
    folder, facts = bundle_folder(path), read_bundle_json(path)
    trunk = model.backbone
    check_same(str(path), facts["backbone"], trunk, trunk.weights_source, anew=False)
    with torch.random.fork_rng(devices=[]):
        _serve(model, str(path), folder, facts)
    return tuple(facts["tasks"])


def _serve(model: Model, where: str, folder: Path, facts: BundleFacts) -> None:
    """Build the tasks of a bundle, fill in their tensors and add them to a model."""
    file = str(folder / WEIGHTS)
    made = build_described(model, facts, kinds_of(folder, facts), where)  # shapes before anything is read
    stored = read_tensors(weights_of(folder, facts), file)
    fill(model.backbone, made.tensors(), stored, facts["dtype"], facts["tuned_as"], file)
    for owner in made.owners:
        owner.scale = scale_told(facts, owner.tasks)
    model.serve(made)


# ---- saving -----------------------------------------------------------------------------------------------------


def _chosen(model: Model, tasks: Sequence[str] | None) -> list[str]:
    for name in tasks or ():
        if name not in model.tasks:
            raise OptionError(f"unknown task {shown(name)}{suggest(name, model.tasks)}")
    chosen = [name for name in model.tasks if tasks is None or name in tasks]
    if not chosen:
        raise OptionError(f"tasks: none to save; tasks of the model: {', '.join(model.tasks) or 'none'}")
    model.decoders.check_whole(chosen, "tasks")
    return chosen


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
    tensors = stored_tensors(model, tasks, dtype)
    weights = to_bytes(tensors)
    facts = _describe(model, tasks, dtype)
    facts["metrics"] = _plain_metrics(metrics, tasks, "metrics")
    if metrics_rounding is not None:
        facts["metrics_rounding"] = _plain_metrics(metrics_rounding, tasks, "metrics_rounding")
    if told := {**scales_to_tell(model, tasks), **(extra or {})}:
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


def _check_place(path: Path) -> None:
    folder = present(path)
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        read_bundle_json(folder)
    except (BundleError, OSError) as error:
        raise BundleError(
            f"{path}: exists and is not a bundle, so it is not replaced; choose another folder ({one_line(error, 160)})"
        ) from error


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


# ---- loading ----------------------------------------------------------------------------------------------------


def _check_joinable(read: Sequence[tuple[str, BundleFacts]]) -> None:
    """Raise BundleError unless all bundles belong to one backbone and all task names differ."""
    where, first = read[0]
    taken: dict[str, str] = dict.fromkeys(first["tasks"], where)
    for other, facts in read[1:]:
        for key in ("name", "options", "taps", "fingerprint"):
            ours, theirs = first["backbone"].get(key, "stage"), facts["backbone"].get(key, "stage")
            if ours != theirs:
                raise BundleError(
                    f"{other}: belongs to another backbone than {where} ({key} {_short(theirs)}, not {_short(ours)}); "
                    "only bundles of one backbone can be joined"
                )
        for task in facts["tasks"]:
            if task in taken:
                raise BundleError(
                    f"{other}: task {task!r} is in {taken[task]} too; save one of them without it or by another name"
                )
            taken[task] = other


def _short(value: object) -> str:
    """The first twelve digits of a fingerprint, any other value unchanged."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
