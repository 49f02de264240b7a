"""Merging adapters into the frozen weights: all of one owner, or only those that its tasks share.

The result is smaller and equal up to rounding; MTLoRA's shared updates outside the last blocks then cost nothing.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from garnish.engine.adapted import Adapted
from garnish.engine.attach import adapted_sites, place
from garnish.engine.banded import Banded, first_layer
from garnish.engine.owner import Owner
from garnish.engine.trunk import Trunk
from garnish.errors import SiteError

T = TypeVar("T", bound=Trunk)


def merge_adapters(trunk: T, owner: Owner) -> T:
    """A plain copy of the trunk with one owner's adapters merged into its layers; the original is unchanged.

    It takes red, green and blue, as the trunk does: filters for other bands are no part of it.

    Raises:
        SiteError: an adapter cannot be written as a plain layer; names its site.
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
    _unwrap_bands(plain)
    return plain


def fold_shared(trunk: T, owner: Owner) -> T:
    """A copy with an owner's shared updates merged into the frozen weights at sites where no task has its own adapter.

    Where a task has one, its stream starts from the frozen layer's output, so the shared update stays an adapter there.
    Values that the owner tunes become the frozen ones. Other owners are dropped, since they were trained on another
    trunk. The original is unchanged.

    Args:
        trunk: one on which the tasks of ``owner`` have streams of their own (MTLoRA).
        owner: a whole owner, not a task's part.

    Raises:
        SiteError: no task has a stream, or a shared adapter cannot be written as a plain layer (names the first).
    """
    if not owner.parts:
        raise SiteError(f"{trunk.name}: no task owns a part of {owner.name}; merge it in full")
    if not all(part.streamed for part in owner.parts) or owner.prompts or len(owner.shared):
        raise SiteError(
            f"{trunk.name}: the tasks of {owner.name} share no adapters that could be merged; keep the bundle unmerged"
        )
    folded = _settled(trunk, owner)
    kept = {at.site.name for part in owner.parts for at in part.places.values()}
    for site, wrapper in list(adapted_sites(folded)):
        if wrapper.of(owner) is not None and site.name not in kept:
            fold(wrapper, owner, site.name)
        _unwrap(folded, wrapper)
    _unwrap_bands(folded)
    place(folded, _only(owner, kept, filters=True))
    return folded


def fold_possible(trunk: T, owner: Owner) -> tuple[T, Owner]:
    """A copy of a trunk with all of one owner folded in that can be, and an owner of the rest, to be placed there.

    A site is left as it is if one of its adapters cannot be written as a plain layer, or if a task has its own there.
    A first layer without adapters and its filters for other bands become one convolution of all planes. Values that the
    owner tunes become the frozen ones, and other owners are dropped, as in :func:`fold_shared`.

    Args:
        trunk: adapted by the owner; unchanged.
        owner: a whole owner, not a task's part; unchanged.
    """
    folded = _settled(trunk, owner)
    there: dict[str, list[Adapted]] = {}
    for site, wrapper in adapted_sites(folded):
        there.setdefault(site.name, []).append(wrapper)
    kept = {at.site.name for part in owner.parts for at in part.places.values()}
    for name, wrappers in there.items():
        layer = wrappers[0].layer
        former = dict(layer._parameters)
        for wrapper in wrappers:  # innermost first, so that the layer of the next is a plain one
            if name not in kept and wrapper.of(owner) is not None:
                pair = _merged(wrapper, owner)
                if pair is None:
                    kept.add(name)
                    layer._parameters.update(former)
                else:
                    _set(layer, pair)
            _unwrap(folded, wrapper)
    filters = owner.others is not None and owner.others.site.name in kept
    _unwrap_bands(folded)  # to be placed again with the rest, if it keeps filters
    if owner.others is not None and not filters:
        _, first = first_layer(folded)
        weight = torch.cat([first.weight, owner.others.weight], 1)
        first.in_channels = weight.shape[1]
        _set(first, (weight, None))
    return folded, _only(owner, kept, filters=filters)


def fold(wrapper: Adapted, owner: Owner, where: str) -> None:
    """Replace weight and bias of a wrapped layer or norm by those with the owner's adapter merged in.

    Raises:
        SiteError: no such weight and bias exist; names the site ``where``.
    """
    pair = _merged(wrapper, owner)
    if pair is None:
        kind = type(owner.places[wrapper.key].method).__name__
        raise SiteError(f"{kind} at {where} cannot be merged into the layer; keep the bundle unmerged")
    _set(wrapper.layer, pair)


def _merged(wrapper: Adapted, owner: Owner) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of the wrapped layer with the owner's adapter merged in; None if there are none."""
    adapter, layer = wrapper.of(owner), wrapper.layer
    assert adapter is not None
    weight = getattr(layer, "weight", None)
    with torch.no_grad():
        return None if weight is None else adapter.merged(weight, layer.bias)  # type: ignore[arg-type]


def _set(layer: nn.Module, pair: tuple[Tensor, Tensor | None]) -> None:
    layer.weight = nn.Parameter(pair[0].detach().clone(), requires_grad=False)
    if pair[1] is not None:
        layer.bias = nn.Parameter(pair[1].detach().clone(), requires_grad=False)


def _settled(trunk: T, owner: Owner) -> T:
    """A copy of a trunk without owners, whose frozen values are those that ``owner`` tuned."""
    copied = copy.deepcopy(trunk, {id(trunk.owners): nn.ModuleDict()})
    slots = {name: (module, leaf) for name, module, leaf in copied.named_slots()}
    for name, value in owner.tuned.items():
        module, leaf = slots[name]
        module._parameters[leaf] = nn.Parameter(value.detach().clone(), requires_grad=False)
    return copied


def _only(owner: Owner, sites: set[str], *, filters: bool) -> Owner:
    """A copy of an owner and its parts, without what it tunes, that keeps only the adapters at some sites.

    Args:
        owner: the owner.
        sites: names of the sites.
        filters: keep its filters for other bands.
    """
    copied: dict[int, object] = {}

    def made(of: Owner, parent: Owner | None) -> Owner:
        adapters = [(at, copy.deepcopy(a, copied)) for at, a in of.placed() if at.site.name in sites]
        units = [at.site.unit for at, _ in adapters if at.site.kind != "feature"]
        others = copy.deepcopy(of.others, copied) if filters else None
        units += [] if others is None else [others.site.unit]
        return Owner(
            of.tasks,
            of.methods,
            adapters,
            parent=parent,
            streamed=of.streamed,
            prompts=of.prompts,
            side=copy.deepcopy(of.side, copied),
            shared=[copy.deepcopy(module, copied) for module in of.shared],
            changes=min([*units, *([1] if of.prompts else [])], default=None),
            given=of.given,
            planes=copy.deepcopy(of.planes, copied),
            others=others,
        )

    whole = made(owner, None)
    whole.parts = tuple(made(part, whole) for part in owner.parts)
    return whole


def _unwrap(trunk: Trunk, wrapper: Adapted) -> None:
    """Replace a wrapper by the module that it wraps."""
    for parent in trunk.body.modules():
        for key, child in parent._modules.items():
            if child is wrapper:
                parent._modules[key] = wrapper.layer
                return
    raise AssertionError("a wrapper must have a parent")


def _unwrap_bands(trunk: Trunk) -> None:
    """Replace the wrapper for other bands, if there is one, by what it wraps."""
    for parent in trunk.body.modules():
        for key, child in parent._modules.items():
            if isinstance(child, Banded):
                parent._modules[key] = child.layer
                return
