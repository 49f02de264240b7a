"""A folder's adapters as one update for each of our layers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.backbones.sites import bare
from garnish.bundles.peft_files import Kind, PeftFiles
from garnish.bundles.peft_names import Place, locate
from garnish.bundles.updates import LowRank, join, within_rank
from garnish.errors import BundleError


def layer_updates(backbone: Backbone, files: PeftFiles) -> dict[str, LowRank]:
    """Site → what the folder adds to the layer there, in forward order.

    Raises:
        BundleError: modules that the backbone does not have, or tensors of other shapes than its layers.
    """
    _, _, places = locate(backbone, files.adapters, files.where)
    layers = {site.name: bare(module) for site, module in backbone.sites_with_modules() if site.kind == "layer"}
    parts: dict[str, list[LowRank | None]] = {}
    for module, tensors in files.adapters.items():
        place = places[module]
        layer = layers[place.site]
        update = _update(files, module, tensors)
        _check_shapes(update, place, layer, f"{files.where}: {module}", tensors)
        parts.setdefault(place.site, [None] * place.parts)[place.part] = update
    return {
        site: within_rank(join(parts[site], layers[site].weight) if len(parts[site]) > 1 else _only(parts[site]))
        for site in layers
        if site in parts
    }


def _only(parts: list[LowRank | None]) -> LowRank:
    (update,) = parts
    assert update is not None
    return update


def _update(files: PeftFiles, module: str, tensors: Mapping[Kind, Tensor]) -> LowRank:
    b, magnitude = tensors["lora_B"], tensors.get("lora_magnitude_vector")
    return LowRank(
        a=tensors["lora_A"],
        b=b.flatten(1) if b.ndim == 4 and b.shape[2:] == (1, 1) else b,
        alpha=files.config.alpha_of(module),
        rs=files.config.use_rslora,
        magnitude=None if magnitude is None else magnitude.flatten(),
    )


def _check_shapes(update: LowRank, place: Place, layer: nn.Module, where: str, tensors: Mapping[Kind, Tensor]) -> None:
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise BundleError(
            f"{where}: is a convolution of {layer.groups} groups, which LoRA here does not adapt; leave it out"
        )
    weight = layer.weight
    assert isinstance(weight, Tensor)
    rows = weight.shape[0] // place.parts
    expected = {
        "lora_A": (update.rank, *weight.shape[1:]),
        "lora_B": (rows, update.rank, *[1] * (weight.ndim - 2)),
        "lora_magnitude_vector": (1, rows, 1, 1) if weight.ndim == 4 else (rows,),
    }
    for kind, tensor in tensors.items():
        if tuple(tensor.shape) != expected[kind]:
            raise BundleError(
                f"{where}: {kind} has shape {tuple(tensor.shape)}, the layer {place.site} takes {expected[kind]}; "
                "give the backbone it was trained on"
            )
