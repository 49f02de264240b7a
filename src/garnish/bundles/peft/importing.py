"""Import of a PEFT folder as a model: LoRA, rsLoRA and DoRA in any dialect, with or without garnish's own files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from garnish.adapters.layers.low_rank import LoRAAdapter
from garnish.adapters.lora import LoRA
from garnish.backbones.backbone import Backbone
from garnish.backbones.build import backbone as build_backbone
from garnish.bundles.own_backbone import check_backbone, rebuild
from garnish.bundles.peft.adapter_config import CONFIG
from garnish.bundles.peft.adapter_tensors import read_folder
from garnish.bundles.peft.folder_heads import fill_heads, head_of, plan_heads
from garnish.bundles.peft.layer_updates import layer_updates, place_adapters
from garnish.bundles.peft.low_rank_updates import LowRank
from garnish.bundles.peft.own_files import TASK, Sidecar, read_sidecar
from garnish.checking.arguments import checked
from garnish.errors import BundleError, OptionError, plural, showable
from garnish.files.atomic import present
from garnish.files.path_text import given_path
from garnish.heads.head import Head
from garnish.model.model import Model
from garnish.tasks.task import Task


@checked
def import_peft(
    folder: str | os.PathLike[str],
    *,
    backbone: Backbone | nn.Module | None = None,
    weights: str | os.PathLike[str] | None = None,
    tasks: Mapping[str, Task] | None = None,
    head: Head | Mapping[str, Head] | None = None,
    leave_out: Sequence[str] = (),
) -> Model:
    """Read LoRA, rsLoRA or DoRA adapters written by PEFT or :func:`garnish.export_peft`.

    The dialect (timm, transformers 4 or 5) and the trunk's name in the wrapped model are found from the module names.
    Adapters of query, key and value become one adapter of our fused layer: of the same rank if they share A, else of
    the sum of their ranks with a block-diagonal B, whose zero blocks further training may fill.

    Args:
        folder: with ``adapter_config.json`` and ``adapter_model.safetensors``, or with one sub-folder that has them.
        backbone: the bare backbone that the adapter was trained on, which the model takes over; or a model of timm or
            transformers, of which one is made. None: build it as the folder's ``task.json`` says.
        weights: that backbone's weights, if they are no longer at the path in ``task.json``.
        tasks: name → task; None: those of ``task.json``.
        head: as for :func:`garnish.adapt`; heads that are not in the folder are newly initialised. A ``decode_head``
            of ``SegformerForSemanticSegmentation`` is read into the ``SegFormerHead`` of a single task.
        leave_out: names of modules, or of their parents, whose tensors are ignored: ``classifier``, ``pooler``.

    Returns:
        A model in evaluation mode. Torch's random state is not changed.

    Raises:
        BundleError: damaged or pickled files, unsupported methods or options, tensors that are missing or
        would be unused, another backbone. OptionError: arguments that do not fit each other.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"depth": gn.Depth()})
        >>> folder = gn.export_peft(model, "adapter", dialect="transformers5")
        >>> list(gn.import_peft(folder).tasks)
        ['depth']
    """
    root = _folder_of(folder)
    if not (backbone is None or isinstance(backbone, Backbone)):
        backbone = build_backbone(backbone)
    sidecar = read_sidecar(root)
    files = read_folder(root, leave_out, ours=sidecar is not None)
    with torch.random.fork_rng(devices=[]):
        trunk = _trunk(str(folder), sidecar, backbone, weights)
        placed = place_adapters(trunk, files)
        if tasks is None:
            if sidecar is None:
                raise OptionError(
                    f"import_peft: {folder} has no {TASK}, so pass tasks=, e.g. tasks={{'seg': Semantic(classes=11)}}"
                )
            tasks, head = sidecar.specs.tasks, sidecar.specs.heads if head is None else head
        head = head_of(files, head)
        plan = plan_heads(trunk, tasks, head, files, sidecar)
        tensors = files.file.read()
        updates = layer_updates(trunk, placed, tensors, rs=files.config.use_rslora)
        _tell_shares(updates)
        model = Model(trunk)
        model.eval()
        model.add(_methods(trunk, updates, files.config.lora_dropout), tasks, head)
        _fill(model, updates)
        fill_heads(model, plan, tensors, sidecar)
    return model


def _folder_of(folder: str | os.PathLike[str]) -> Path:
    path = present(given_path(folder, "import_peft", BundleError))
    if not path.is_dir():
        raise BundleError(f"{folder}: no such folder; give one that holds {CONFIG}")
    if (path / CONFIG).is_file():
        return path
    below = sorted(entry.name for entry in path.iterdir() if (entry / CONFIG).is_file())
    if len(below) != 1:
        held = f"{len(below)} adapters ({', '.join(below[:6])}); name one of the folders" if below else "no adapter"
        raise BundleError(f"{folder}: has no {CONFIG}, and below it lie {held}")
    return path / below[0]


def _trunk(
    where: str, sidecar: Sidecar | None, backbone: Backbone | None, weights: str | os.PathLike[str] | None
) -> Backbone:
    """The given backbone, or the one of ``task.json``; its fingerprint must match ``task.json``."""
    if backbone is not None and weights is not None:
        raise OptionError("import_peft: give backbone= or weights=, not both")
    if sidecar is None:
        if backbone is None:
            raise OptionError(f"import_peft: {where} has no {TASK}, so pass backbone=, the one it was trained on")
        if backbone.is_adapted:
            raise OptionError(f"import_peft: the backbone {backbone.name} is adapted already; build a fresh one")
        return backbone
    if backbone is None:
        backbone = rebuild(where, sidecar.backbone, weights)
    check_backbone(where, sidecar.backbone, backbone, str(weights or backbone.weights_source))
    return backbone


def _methods(trunk: Backbone, updates: Mapping[str, LowRank], dropout: float) -> list[LoRA]:
    """One LoRA for each rank and α; its layers by place and role if it has all of those, else by site name."""
    groups: dict[tuple[int, float, bool, bool], list[str]] = {}
    for site, update in updates.items():
        groups.setdefault((update.rank, update.alpha, update.rs, update.magnitude is not None), []).append(site)
    labels: dict[str, str] = {}
    members: dict[str, set[str]] = {}
    for found in trunk.sites():
        if found.kind == "layer":
            labels[found.name] = f"{found.place}.{found.role}"
            members.setdefault(labels[found.name], set()).add(found.name)
    return [
        LoRA(
            rank=rank,
            alpha=alpha,
            rs=rs,
            dora=dora,
            dropout=0.0 if dora else dropout,
            layers=tuple(dict.fromkeys(labels[s] if members[labels[s]] <= set(sites) else s for s in sites)),
        )
        for (rank, alpha, rs, dora), sites in groups.items()
    ]


def _tell_shares(updates: Mapping[str, LowRank]) -> None:
    """Warn of parts of fused layers without an adapter, which training on may change."""
    some = {site: update for site, update in updates.items() if None in update.shares}
    if some:
        site, update = next(iter(some.items()))
        had = sum(share is not None for share in update.shares)
        told = (
            f"import_peft: {had} of {len(update.shares)} parts of {site} (of {plural(len(some), 'such layer')}) have "
            f"an adapter; together one LoRA of rank {update.rank}, zero at the others, which training on may change"
        )
        warnings.warn(showable(told), stacklevel=4)


def _fill(model: Model, updates: Mapping[str, LowRank]) -> None:
    filled = set()
    with torch.no_grad():
        for place, adapter in model.owners[0].placed():
            site = place.site.name
            assert isinstance(adapter, LoRAAdapter) and site not in filled
            filled.add(site)
            update = updates[site]
            adapter.lora_a.copy_(update.a)
            adapter.lora_b.copy_(update.b)
            adapter.shares = update.shares
            if adapter.magnitude is not None and update.magnitude is not None:
                adapter.magnitude.copy_(update.magnitude)
    assert filled == set(updates)
