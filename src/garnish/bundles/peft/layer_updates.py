"""Converts the adapters of a PEFT folder to one low-rank update for each of our layers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.bundles.peft.adapter_tensors import Kind, PeftFiles
from garnish.bundles.peft.layer_names import RowsOfLayer, locate
from garnish.bundles.peft.low_rank_updates import LowRank, over_own_channels, stacked_rows, within_rank
from garnish.engine.blocks import bare
from garnish.errors import BundleError


def layer_updates(backbone: Backbone, files: PeftFiles) -> dict[str, LowRank]:
    """Site → the folder's low-rank update of the layer there, in forward order.

    Raises:
        BundleError: modules that the backbone does not have, or tensors of other shapes than its layers.
    """
    _, _, places = locate(backbone, files.adapters, files.where)
    layers = {site.name: bare(module) for site, module in backbone.sites_with_modules() if site.kind == "layer"}
    parts: dict[str, list[LowRank | None]] = {}
    for module, tensors in files.adapters.items():
        place = places[module]
        update = _update(files, module, tensors, layers[place.site], place)
        parts.setdefault(place.site, [None] * place.parts)[place.part] = update
    return {site: _whole(parts[site], layer) for site, layer in layers.items() if site in parts}


def _whole(parts: list[LowRank | None], layer: nn.Module) -> LowRank:
    first, weight = parts[0], layer.weight
    assert isinstance(weight, Tensor)
    if len(parts) == 1 and first is not None:
        return first if _groups(layer) > 1 else within_rank(first)
    return within_rank(stacked_rows(parts, weight))


def _groups(layer: nn.Module) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def _update(
    files: PeftFiles, module: str, tensors: Mapping[Kind, Tensor], layer: nn.Module, place: RowsOfLayer
) -> LowRank:
    where, groups = f"{files.where}: {module}", _groups(layer)
    weight, a = layer.weight, tensors["lora_A"]
    assert isinstance(weight, Tensor)
    rank, rows = a.shape[0], weight.shape[0] // place.parts
    if rank % groups:
        raise BundleError(f"{where}: rank {rank} is not a multiple of the convolution's {groups} groups")
    expected = {
        "lora_A": (rank, weight.shape[1] * groups, *weight.shape[2:]),
        "lora_B": (rows, rank // groups, *[1] * (weight.ndim - 2)),
        "lora_magnitude_vector": (1, rows, 1, 1) if weight.ndim == 4 else (rows,),
    }
    for kind, tensor in tensors.items():
        if tuple(tensor.shape) != expected[kind]:
            raise BundleError(
                f"{where}: {kind} has shape {tuple(tensor.shape)}, the layer {place.site} takes {expected[kind]}; "
                "give the backbone it was trained on"
            )
    magnitude = tensors.get("lora_magnitude_vector")
    if isinstance(layer, nn.Conv2d) and set(layer.dilation) != {1}:
        raise BundleError(f"{where}: PEFT does not dilate the update of a dilated convolution as we do; leave it out")
    if groups > 1:
        own = over_own_channels(a, groups)
        if own is None or magnitude is not None:
            raise BundleError(
                f"{where}: PEFT's update of a convolution of {groups} groups reads the channels of all groups, which "
                "a grouped one cannot; leave it out by name (leave_out)"
            )
        a = own
    return LowRank(
        a=a,
        b=tensors["lora_B"].flatten(1),
        alpha=files.config.alpha_of(module),
        rs=files.config.use_rslora,
        magnitude=None if magnitude is None else magnitude.flatten(),
    )
