"""``garnish.merge``: fold adapters into the backbone's weights, and write a checkpoint that any library can read.

The folder gets ``backbone.safetensors`` and a bundle of the rest (heads; of MTLoRA also the task parts) that refers to
it. Both are written atomically, after the feature maps of the merged and the adapted trunk were compared.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.nn import functional as F

from garnish import __version__, registry
from garnish.adapters.mtlora import MTLoRA
from garnish.adapters.reference import Frozen
from garnish.backbones.backbone import Backbone
from garnish.backbones.build import backbone as build_backbone
from garnish.bundles.family_names import carried_over, own_name, own_names
from garnish.bundles.merge_source import Source, read_whole
from garnish.bundles.specs import Specs
from garnish.bundles.written_files import bundle_files
from garnish.checking.arguments import checked
from garnish.checking.finite import not_finite
from garnish.checking.plain_data import Json
from garnish.engine.adapter import Method
from garnish.engine.attach import OwnerSpec
from garnish.engine.folding import fold_shared, merge_adapters
from garnish.engine.owner import Owner, owners_of
from garnish.errors import BundleError, OptionError, SiteError, shown, suggest
from garnish.files.atomic import present, write_file, write_folder, writing
from garnish.files.checksums import SUMS, with_sums
from garnish.files.path_text import given_path
from garnish.files.safetensors_header import read_with_metadata
from garnish.model.model import Model

CHECKPOINT = "backbone.safetensors"
#: Largest difference of a feature map, relative to the map's largest value, up to which the result is written.
LIMIT = 1e-4

#: Key of the checkpoint's metadata that says what was merged and how exactly.
_MARK = "garnish_merge"
#: Largest file that may be one of merge's, bytes; only its header is read.
_MOST_BYTES = 2**40
#: Approximate side of the probe pictures, in pixels.
_PROBE = 128


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What was merged, how exactly, and where it was written.

    Attributes:
        out: the file or folder.
        files: names of the files in it, or of the file.
        backbone: name by which ``garnish.backbone`` and timm build the architecture.
        options: its architecture overrides.
        tasks: the tasks whose adapters were folded in.
        methods: the methods whose adapters were folded in.
        left: methods that stay adapters in the bundle; empty if everything was folded in.
        carried_over: tensors of the original weights that no map depends on, unchanged (final norm, classifier).
        largest_difference: between merged and adapted feature maps, over all stages and probe pictures.
        largest_relative: the same relative to the largest value of each map; at most :data:`LIMIT`.
        probes: (height, width) of the probe pictures.
        licence: licence of the backbone's weights, which also holds for the merged ones.
    """

    out: str
    files: tuple[str, ...]
    backbone: str
    options: Mapping[str, Json]
    tasks: tuple[str, ...]
    methods: tuple[registry.SpecFacts, ...]
    left: tuple[registry.SpecFacts, ...]
    carried_over: tuple[str, ...]
    largest_difference: float
    largest_relative: float
    probes: tuple[tuple[int, int], ...]
    licence: str


@checked
def merge(
    source: Source,
    out: str | os.PathLike[str],
    *,
    task: str | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> Merged:
    """Write the backbone with one owner's adapters folded in, in the family's own tensor names.

    Args:
        source: a model, a bundle's folder, or several folders.
        out: a ``.safetensors`` file for the checkpoint alone; else a folder, new, empty or written by this function,
            for the checkpoint and a bundle of the owner's heads that belongs to it.
        task: any task of the owner whose adapters are merged; required with several owners.
        weights: the backbone's weights, if they are no longer at the path in the bundle.

    Returns:
        What was written; the checkpoint's metadata and the bundle's ``extra`` hold the same facts.

    Raises:
        SiteError: an adapter that cannot be folded into a layer, or a layer that would gain a tensor its checkpoints
            do not have. BundleError: feature maps that differ by more than :data:`LIMIT` of their largest value, a
            path that holds something else, or no space. OptionError: an unknown task, or none named.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"depth": gn.Depth()})
        >>> merged = gn.merge(model, "merged")
        >>> merged.tasks, merged.largest_relative < 1e-4
        (('depth',), True)
    """
    model, metrics, dtype = read_whole(source, weights)
    owner = _owner(model, task)
    place = _checked_place(out)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        made = _merged_model(model, owner)
        was_training = model.training
        try:
            absolute, relative, sizes = _differences(model.eval(), owner, made)
        finally:
            model.train(was_training)
    if not relative <= LIMIT:  # also true for NaN
        raise BundleError(
            f"{out}: merged and adapted feature maps differ by {relative:.2g} of their largest value, more than "
            f"{LIMIT:.0e}; nothing was written; keep the bundle unmerged"
        )
    trunk = made.backbone
    left = made.owners[0].methods
    whole = isinstance(left[0], Frozen)
    alone = place.suffix == ".safetensors"
    if alone and not whole:
        told = f"{_names(left)} leaves parts that tasks own, which a checkpoint has no names for"
        raise OptionError(f"{out}: {told}; give a folder")
    if alone and owner.others is not None:
        raise OptionError(f"{out}: filters of other bands than RGB are no part of a checkpoint; give a folder")
    carried = carried_over(model.backbone)
    said = Merged(
        out=str(out),
        files=(place.name,) if alone else (CHECKPOINT, "bundle.json", "weights.safetensors", SUMS),
        backbone=trunk.name,
        options=trunk.options,
        tasks=owner.tasks,
        methods=tuple(registry.describe(method) for method in owner.methods),
        left=() if whole else tuple(registry.describe(method) for method in left),
        carried_over=tuple(sorted(carried)),
        largest_difference=absolute,
        largest_relative=relative,
        probes=sizes,
        licence=trunk.licence,
    )
    facts = {k: v for k, v in asdict(said).items() if k not in ("out", "files")} | {"garnish": __version__}
    tensors = {n: t.cpu() for n, t in own_names(trunk, trunk.frozen_tensors()).items()}
    if odd := not_finite(carried | tensors):
        raise BundleError(f"{out}: {odd}; nothing was written: train the model again")
    metadata = {"format": "pt", "license": trunk.licence, _MARK: json.dumps(facts, sort_keys=True)}
    checkpoint = to_bytes(carried | tensors, metadata=metadata)
    with writing(f"{out}:", " or choose another place; what was there before is untouched"):
        if alone:
            write_file(place, checkpoint)
        else:
            kept = {name: metrics[name] for name in owner.tasks if name in metrics}
            files = bundle_files(
                made, owner.tasks, dtype, metrics=kept, metrics_rounding=None, extra={"merged": facts}, where=str(out)
            )
            del files[SUMS]  # one list for the checkpoint and them
            write_folder(place, with_sums({CHECKPOINT: checkpoint, **files}))
    return said


def _owner(model: Model, task: str | None) -> Owner:
    """The owner to merge, with the parts that its tasks own if any."""
    owners = [owner for owner in model.owners if owner.parent is None]
    if task is None and len(owners) == 1:
        owner = owners[0]
    elif task is None:
        names = ", ".join(owner.name for owner in owners) or "none"
        raise OptionError(
            f"merge: the adapters of {len(owners)} owners ({names}) do not go into one backbone; "
            "name a task (--task), and merge one owner at a time"
        )
    elif task in model.tasks:
        owner = next(owner for owner in owners if task in owner.tasks)
    else:
        raise OptionError(f"merge: unknown task {shown(task)}{suggest(task, model.tasks)}")
    model.decoders.check_whole(owner.tasks, f"merge: the adapters of {owner.name} alone")
    if not owner.acts or all(isinstance(method, Frozen) for method in owner.methods):
        what = f"{_names(owner.methods)} of {owner.name} adds nothing to the backbone"
        raise OptionError(f"merge: {what}; its bundle is as small as it gets")
    return owner


def _checked_place(out: str | os.PathLike[str]) -> Path:
    """The path to write to; raises BundleError if it exists and was not written by merge."""
    place = given_path(out, "merge: out")
    if place.suffix in (".pth", ".pt", ".bin"):
        raise OptionError(f"{out}: checkpoints are written as .safetensors; give such a file, or a folder")
    alone = place.suffix == ".safetensors"
    there = place if alone else present(place)
    if not there.exists() or (not alone and there.is_dir() and not any(there.iterdir())):
        return place
    try:
        ours = _MARK in read_with_metadata(there if alone else there / CHECKPOINT, _MOST_BYTES)[1]
    except (ValueError, OSError):
        ours = False
    if not ours:
        raise BundleError(f"{out}: exists and was not written by merge, so it is not replaced; choose another place")
    return place


def _merged_model(model: Model, owner: Owner) -> Model:
    """The owner's tasks on a trunk with the merged weights; what cannot be folded stays as adapters."""
    adapted = model.backbone
    left: list[Method] = [replace(m, folded=True) for m in owner.methods if isinstance(m, MTLoRA)]
    folded = fold_shared(adapted, owner) if left else merge_adapters(adapted, owner)
    made = Model(_bare(folded))
    specs = Specs.of(model, owner.tasks)
    rest = [OwnerSpec(left or [Frozen()], owner.tasks, owner.given)]
    made.serve(made.build(rest, specs.tasks, specs.heads, specs.groups))
    for at, adapter in owners_of(folded)[0].placed() if left else ():
        if at.key not in made.owners[0].places:
            raise SiteError(
                f"{type(adapter).__name__} at {at.site.name}: is at a site where tasks own a part, so it cannot be "
                f"folded, or kept with {_names(left)}; keep the bundle unmerged"
            )
    made.owners[0].licences, made.owners[0].scale = owner.root.licences, owner.root.scale
    former = model.own_tensors()
    for name, tensor in made.own_tensors().items():
        tensor.copy_(former[name])
    return made.eval().to(model.device)


def _bare(folded: Backbone) -> Backbone:
    """A fresh trunk with the frozen tensors of ``folded``; raises SiteError for one that its architecture lacks."""
    fresh = build_backbone(own_name(folded), None, options=folded.options, taps=folded.taps_at)
    held, wanted = folded.frozen_tensors(), fresh.frozen_tensors()
    gained = [name for name in held if name not in wanted]
    if gained:
        at, _, leaf = gained[0].rpartition(".")
        raise SiteError(
            f"{at}: merging would give it a {leaf}, which {folded.name}'s own checkpoints have no name for "
            f"({len(gained)} such layers); keep the bundle unmerged"
        )
    for name, tensor in wanted.items():
        tensor.copy_(held[name])
    fresh.weights_source, fresh.licence = CHECKPOINT, folded.licence
    return fresh


def _differences(model: Model, owner: Owner, made: Model) -> tuple[float, float, tuple[tuple[int, int], ...]]:
    """Largest difference of feature maps, absolute and relative to each map's largest value; the pictures' sizes."""
    multiple = model.backbone.multiple
    side = math.ceil(_PROBE / multiple) * multiple
    sizes = ((side, side), (side, side + 2 * multiple), (side + multiple - multiple // 2, side - 1))
    absolute, relative = [], []
    for seed, size in enumerate(sizes):
        pictures = _probe(size, seed, len(owner.bands.names)).to(model.device)
        old, new = model.prepare(pictures, owner.tasks), made.prepare(pictures)
        pairs = zip(owner.parts or (owner,), made.owners[0].parts or (made.owners[0],), strict=True)
        for adapted, merged in pairs:
            maps = zip(model.backbone(old, adapted), made.backbone(new, merged), strict=True)
            for before, after in maps:
                difference = (before.double() - after.double()).abs().max()
                absolute.append(difference)
                relative.append(difference / before.double().abs().max())
    return float(torch.stack(absolute).max()), float(torch.stack(relative).max()), sizes


def _probe(size: tuple[int, int], seed: int, bands: int) -> Tensor:
    """Two pictures in [0, 1] with structure at several scales: (2, bands, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    scales = [torch.rand(2, bands, cells, cells, generator=generator) for cells in (3, 12, 48)]
    coarse = [F.interpolate(s, size=size, mode="bilinear", align_corners=False) for s in scales]
    return (sum(coarse) + torch.rand(2, bands, *size, generator=generator)) / 4


def _names(methods: Sequence[Method]) -> str:
    return ", ".join(type(method).__name__ for method in methods)
