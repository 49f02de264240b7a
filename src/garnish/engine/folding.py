"""Adapters folded into the frozen weights: all of one owner, or what its tasks share where they own parts.

What remains is smaller and the same to rounding: MTLoRA's shared updates outside the last blocks cost nothing then.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from garnish.engine.adapted import Adapted
from garnish.engine.attach import adapted_sites, place
from garnish.engine.owner import Owner
from garnish.engine.trunk import Trunk
from garnish.errors import SiteError

T = TypeVar("T", bound=Trunk)


def folded_trunk(trunk: T, owner: Owner) -> T:
    """A plain copy of the trunk with one owner's adapters folded into its layers; the original stays as it is.

    Raises:
        SiteError: naming the first site whose adapter is not a plain layer.
    """
    for has, what in (
        (owner.parent is not None or owner.parts, "parts that differ by task"),
        (owner.prompts, "prompt tokens"),
        (owner.side is not None, "a side network"),
    ):
        if has:
            raise SiteError(f"{trunk.name}: {what} cannot be merged into a plain backbone; keep the bundle unmerged")
    plain = _settled(trunk, owner)
    for site, wrapper in list(adapted_sites(plain)):
        if wrapper.of(owner) is not None:
            fold(wrapper, owner, site.name)
        _unwrap(plain, wrapper)
    return plain


def fold_shared(trunk: T, owner: Owner) -> T:
    """A copy with an owner's shared updates folded into the frozen weights wherever none of its tasks owns a part.

    Where a task does, its stream starts from the frozen layer's own output, so the shared update stays an adapter
    there, beside the task's. Values that the owner tunes become the frozen ones. Other owners are dropped, for they
    were trained on another trunk. The original stays as it is.

    Args:
        trunk: one on which tasks of ``owner`` own streams (MTLoRA).
        owner: no task's part.

    Raises:
        SiteError: no task of the owner owns a stream, or a shared adapter is no plain layer (the first is named).
    """
    if not owner.parts:
        raise SiteError(f"{trunk.name}: no task owns a part of {owner.name}; merge it in full")
    if not all(part.streamed for part in owner.parts) or owner.prompts or len(owner.shared):
        raise SiteError(
            f"{trunk.name}: the tasks of {owner.name} run apart, so nothing shared can be folded; "
            "keep the bundle unmerged"
        )
    folded = _settled(trunk, owner)
    kept = {at.site.name for part in owner.parts for at in part.places.values()}
    for site, wrapper in list(adapted_sites(folded)):
        if wrapper.of(owner) is not None and site.name not in kept:
            fold(wrapper, owner, site.name)
        _unwrap(folded, wrapper)
    place(folded, _only(owner, kept))
    return folded


def fold(wrapper: Adapted, owner: Owner, where: str) -> None:
    """Give a bare layer or norm the weight and bias with which it computes what the owner's adapter makes of it.

    Raises:
        SiteError: naming the site ``where``: no such weight and bias exist.
    """
    adapter, layer = wrapper.of(owner), wrapper.layer
    assert adapter is not None
    weight = getattr(layer, "weight", None)
    with torch.no_grad():
        pair = None if weight is None else adapter.merged(weight, layer.bias)  # type: ignore[arg-type]
    if pair is None:
        kind = type(owner.places[wrapper.key].method).__name__
        raise SiteError(f"{kind} at {where} cannot be merged into the layer; keep the bundle unmerged")
    layer.weight = nn.Parameter(pair[0].detach().clone(), requires_grad=False)
    if pair[1] is not None:
        layer.bias = nn.Parameter(pair[1].detach().clone(), requires_grad=False)


def _settled(trunk: T, owner: Owner) -> T:
    """A copy of a trunk without owners, in which the values that one tuned are the frozen ones."""
    copied = copy.deepcopy(trunk, {id(trunk.owners): nn.ModuleDict()})
    slots = {name: (module, leaf) for name, module, leaf in copied.named_slots()}
    for name, value in owner.tuned.items():
        module, leaf = slots[name]
        module._parameters[leaf] = nn.Parameter(value.detach().clone(), requires_grad=False)
    return copied


def _only(owner: Owner, sites: set[str]) -> Owner:
    """A copy of an owner and its parts with what sits at some sites alone."""
    copied: dict[int, object] = {}

    def made(of: Owner, parent: Owner | None) -> Owner:
        adapters = [(at, copy.deepcopy(a, copied)) for at, a in of.placed() if at.site.name in sites]
        units = [at.site.unit for at, _ in adapters if at.site.kind != "feature"]
        changes = min(units, default=None)
        return Owner(of.tasks, of.methods, adapters, parent=parent, streamed=of.streamed, changes=changes)

    whole = made(owner, None)
    whole.parts = tuple(made(part, whole) for part in owner.parts)
    return whole


def _unwrap(trunk: Trunk, wrapper: Adapted) -> None:
    """Put what a wrapper wraps back in its place."""
    for parent in trunk.body.modules():
        for key, child in parent._modules.items():
            if child is wrapper:
                parent._modules[key] = wrapper.layer
                return
    raise AssertionError("a wrapper must have a parent")
