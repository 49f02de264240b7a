"""Saving and loading bundles: folders with the trained tensors, and the name and fingerprint of their backbone.

:mod:`garnish.bundles.bundle_json` describes ``bundle.json``, :mod:`garnish.bundles.tensors` ``weights.safetensors``.
Nothing is ever unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from garnish.backbones.backbone import Backbone
from garnish.backbones.build import backbone as build_backbone
from garnish.bundles.bundle_json import (
    WEIGHTS,
    BundleFacts,
    bundle_folder,
    read_bundle_json,
)
from garnish.bundles.described import build_described
from garnish.bundles.given_bundle import given_bundle
from garnish.bundles.joining import check_joinable
from garnish.bundles.licences_told import licences_told
from garnish.bundles.own_backbone import check_backbone, check_same, rebuild
from garnish.bundles.renaming import Renaming
from garnish.bundles.sound_descriptions import SoundDescriptions
from garnish.bundles.tensors import StoredDtype, fill, kinds_of, read_tensors, weights_of
from garnish.bundles.trained_at import scale_told
from garnish.bundles.written_files import Metrics, bundle_files
from garnish.checking.arguments import checked
from garnish.checking.device import usable_device
from garnish.checking.plain_data import Json
from garnish.errors import BundleError, OptionError, one_line, shown, suggest
from garnish.files.atomic import present, write_folder, writing
from garnish.files.path_text import given_path
from garnish.hub.address import is_hub
from garnish.model.model import Model
from garnish.model.served import Addition


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

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"depth": gn.Depth()})
        >>> gn.save(model, "tasks").name  # or model.save("tasks")
        'tasks'
    """
    chosen = _chosen(model, tasks)
    if is_hub(path):
        raise BundleError(f"{path}: model.save writes a folder; garnish.push(model, ...) and garnish push write there")
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
    backbone: Backbone | nn.Module | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    names: Mapping[str, str] | None = None,
) -> Model:
    """Read a bundle, or join several that were trained separately on one backbone.

    Args:
        path: one bundle's folder or several; tasks keep their order, and all names must differ. ``hub:user/name`` or
            ``hub:user/name@revision`` is one on the Hub, which is fetched into its cache (``HF_HUB_OFFLINE=1``: only
            looked up there).
        backbone: a bare backbone to use, which the model takes over; or a model of timm or transformers, of which one
            is made (it stays as it is). None: build it as the bundle says.
        weights: the backbone's weights: a file, a folder or a Hub id. None: what the bundle names, whoever wrote it: a
            relative path is looked up in the working directory, then below the bundle's folder; a plain file name
            there first; an ``owner/name`` that is no path is fetched from the Hub (``HF_HUB_OFFLINE=1`` forbids
            that). It is read as weights alone, and must have the fingerprint in the bundle.
        device: device of the model; None: the CPU.
        names: of one bundle, task → the name that it gets in the model; tasks that are left out keep theirs.

    Returns:
        A model in evaluation mode. Torch's random state is not changed.

    Raises:
        HubError: the Hub refuses, or cannot be reached.
        BundleError: damaged files, unexpected tensors or values that are not finite, unknown names or options, a
        description that is not of this model, another backbone. Names and shapes are compared with the header of the
        weights before these are read; a description that asks for far more than they hold is not built.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"depth": gn.Depth()})
        >>> folder = model.save("tasks")
        >>> list(gn.load("tasks").tasks)
        ['depth']
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    place = None if device is None else usable_device(device, "load: device")
    if not paths:
        raise BundleError("load: the list of bundles is empty; name at least one folder")
    if names and len(paths) > 1:
        raise OptionError(f"load: names= renames tasks of one bundle, {len(paths)} are given; add each with model.load")
    paths = [given_bundle(p) for p in paths]
    read = [(str(p), bundle_folder(p), read_bundle_json(p)) for p in paths]
    check_joinable([(where, facts) for where, _, facts in read])
    for _, folder, facts in read:
        kinds_of(folder, facts)  # before the backbone is read
    where, _, first = read[0]
    with torch.random.fork_rng(devices=[]):
        if backbone is None:
            backbone = rebuild(where, first["backbone"], weights)
        elif weights is not None:
            raise OptionError("load: give backbone= or weights=, not both")
        elif not isinstance(backbone, Backbone):
            backbone = build_backbone(backbone, taps=first["backbone"].get("taps", "stage"))
        check_backbone(where, first["backbone"], backbone, str(weights or backbone.weights_source))
        model = Model(backbone)
        model.eval()
        for where, folder, facts in read:
            add_described(model, where, folder, facts, Renaming(names, facts["tasks"], where))
    return model if place is None else model.to(place)


@checked
def load_into(model: Model, path: str | os.PathLike[str], *, names: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Add the tasks of a bundle to a model, in time independent of how many tasks the model has.

    Other threads may run passes meanwhile: none sees a task before its tensors are loaded.

    Args:
        model: a model on the backbone that the bundle belongs to.
        path: the bundle's folder, or ``hub:user/name``.
        names: task → the name that it gets in the model; tasks that are left out keep theirs. All names must be new to
            the model.

    Returns:
        The names of the tasks in the model.

    Raises:
        BundleError: as :func:`load`; OptionError: names of unknown tasks, or one for two. The model is unchanged then.
    """
    path = given_bundle(path)
    folder, facts = bundle_folder(path), read_bundle_json(path)
    renaming = Renaming(names, facts["tasks"], str(path))
    check_same(str(path), facts["backbone"], model.backbone, model.backbone.weights_source, anew=False)
    with torch.random.fork_rng(devices=[]):
        add_described(model, str(path), folder, facts, renaming)
    return tuple(renaming.new.values())


def add_described(
    model: Model,
    where: str,
    folder: Path,
    facts: BundleFacts,
    names: Renaming,
    sound: SoundDescriptions | None = None,
) -> Addition:
    """Build the tasks of a bundle, fill in their tensors and add them to a model, which has the bundle's backbone.

    Args:
        model: the model.
        where: the bundle's path, for messages.
        folder: of the bundle.
        facts: its description.
        names: that the tasks get.
        sound: as for :func:`garnish.bundles.described.build_described`.
    """
    file = str(folder / WEIGHTS)
    made, tensors = build_described(model, facts, kinds_of(folder, facts), where, names, sound)  # reads no tensor
    stored = read_tensors(weights_of(folder, facts), file)
    fill(model.backbone, tensors, stored, facts["dtype"], facts["tuned_as"], file)
    for owner in made.owners:
        owner.scale = scale_told(facts, [names.old(task) for task in owner.tasks])
        owner.licences = licences_told(facts)
    model.serve(made)
    return made


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
