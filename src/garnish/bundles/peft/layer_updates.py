"""The adapters of a PEFT folder, compared with a backbone's layers, and as one low-rank update for each of them.

Names, shapes, ranks and scales are checked by the header of the file (:func:`place_adapters`), before any tensor is
read (:func:`layer_updates`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.bundles.peft.adapter_config import CONFIG
from garnish.bundles.peft.adapter_tensors import Kind, PeftFiles
from garnish.bundles.peft.layer_names import RowsOfLayer, locate
from garnish.bundles.peft.low_rank_updates import LowRank, over_own_channels, stacked_rows, within_rank
from garnish.bundles.peft.module_settings import settings_of
from garnish.checking.finite import not_finite
from garnish.engine.blocks import bare
from garnish.errors import BundleError


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedAdapter:
    """The adapter of one module, which fits its layer.

    Attributes:
        where: file and module, for messages.
        rows: the rows of the layer that it updates.
        layer: the layer.
        alpha: the scale numerator α.
        tensors: kind → name of the tensor in the file.
    """

    where: str
    rows: RowsOfLayer
    layer: nn.Module
    alpha: float
    tensors: Mapping[Kind, str]


def place_adapters(backbone: Backbone, files: PeftFiles) -> list[PlacedAdapter]:
    """Find the layers of a folder's adapters, and compare names, shapes and ranks with them.

    Raises:
        BundleError: modules that the backbone does not have, or that PEFT would not adapt; tensors of other shapes
        than its layers take, or of another rank than the configuration says.
    """
    _, _, places = locate(backbone, files.adapters, files.where)
    settings = settings_of(files.config, places, files.where)
    layers = {site.name: bare(module) for site, module in backbone.sites_with_modules() if site.kind == "layer"}
    placed = []
    for module, tensors in files.adapters.items():
        where, own = f"{files.where}: {module}", settings[module]
        if not own.targeted:
            raise BundleError(f"{where}: is not among target_modules of {CONFIG}, so PEFT would not use it")
        _check_shapes(files, where, tensors, layers[places[module].site], places[module], own.rank)
        placed.append(
            PlacedAdapter(
                where=where,
                rows=places[module],
                layer=layers[places[module].site],
                alpha=own.alpha,
                tensors=tensors,
            )
        )
    return placed


def _check_shapes(
    files: PeftFiles, where: str, tensors: Mapping[Kind, str], layer: nn.Module, place: RowsOfLayer, rank: int
) -> None:
    weight, groups = layer.weight, _groups(layer)
    assert isinstance(weight, Tensor)
    shape = files.shape(tensors["lora_A"])
    if len(shape) not in (2, 4) or shape[0] != rank:
        raise BundleError(f"{where}: lora_A has shape {shape}, but {CONFIG} gives the module rank {rank}")
    rows = weight.shape[0] // place.parts
    most = max(rows, groups * weight[0].numel())
    if rank > most:
        raise BundleError(f"{where}: rank {rank} is above both sides of the layer {place.site}, at most {most} is read")
    if rank % groups:
        raise BundleError(f"{where}: rank {rank} is not a multiple of the convolution's {groups} groups")
    expected = {
        "lora_A": (rank, weight.shape[1] * groups, *weight.shape[2:]),
        "lora_B": (rows, rank // groups, *[1] * (weight.ndim - 2)),
        "lora_magnitude_vector": (1, rows, 1, 1) if weight.ndim == 4 else (rows,),
    }
    for kind, key in tensors.items():
        if (shape := files.shape(key)) != expected[kind]:
            raise BundleError(
                f"{where}: {kind} has shape {shape}, the layer {place.site} takes {expected[kind]}; "
                "give the backbone it was trained on"
            )
    if isinstance(layer, nn.Conv2d) and set(layer.dilation) != {1}:
        raise BundleError(f"{where}: PEFT does not dilate the update of a dilated convolution as we do; leave it out")


def layer_updates(
    backbone: Backbone, placed: list[PlacedAdapter], tensors: Mapping[str, Tensor], *, rs: bool
) -> dict[str, LowRank]:
    """Site → the folder's low-rank update of the layer there, in forward order.

    Args:
        backbone: whose layers they are.
        placed: of :func:`place_adapters`.
        tensors: name → tensor, float32, of the shapes of the header.
        rs: rank-stabilised scale.

    Raises:
        BundleError: an update of a grouped convolution that reads other groups, or one that is not finite.
    """
    parts: dict[str, list[LowRank | None]] = {}
    for one in placed:
        parts.setdefault(one.rows.site, [None] * one.rows.parts)[one.rows.part] = _update(one, tensors, rs)
    layers = {one.rows.site: one for one in placed}
    found = {}
    for site in backbone.sites():
        if site.name in parts:
            found[site.name] = whole = _whole(parts[site.name], layers[site.name].layer)
            held = {"its lora_A": whole.a, "its lora_B": whole.b} | ({"s·B A": whole.scale * whole.b})
            if odd := not_finite(held):
                raise BundleError(f"{layers[site.name].where}: {odd}; lora_alpha or the tensors are beyond float32")
    return found


def _whole(parts: list[LowRank | None], layer: nn.Module) -> LowRank:
    first, weight = parts[0], layer.weight
    assert isinstance(weight, Tensor)
    if len(parts) == 1 and first is not None:
        return first if _groups(layer) > 1 else within_rank(first)
    return within_rank(stacked_rows(parts, weight))


def _groups(layer: nn.Module) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def _update(one: PlacedAdapter, tensors: Mapping[str, Tensor], rs: bool) -> LowRank:
    own = {kind: tensors[key] for kind, key in one.tensors.items()}
    a, magnitude, groups = own["lora_A"], own.get("lora_magnitude_vector"), _groups(one.layer)
    if groups > 1:
        narrow = over_own_channels(a, groups)
        if narrow is None or magnitude is not None:
            raise BundleError(
                f"{one.where}: PEFT's update of a convolution of {groups} groups reads the channels of all groups, "
                "which a grouped one cannot; leave it out by name (leave_out)"
            )
        a = narrow
    return LowRank(
        a=a,
        b=own["lora_B"].flatten(1),
        alpha=one.alpha,
        rs=rs,
        magnitude=None if magnitude is None else magnitude.flatten(),
    )
