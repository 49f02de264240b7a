"""The wrapper that stands in a frozen module's place, and the verbs: attach, merge, check_sites."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from garnish.adapters.adapter import Adapter, Method
from garnish.adapters.per_task import Owned
from garnish.backbones.backbone import Backbone
from garnish.backbones.sites import Site
from garnish.context import Binding
from garnish.errors import SiteError, suggest


class Adapted(nn.Module):
    """A frozen module and the adapters that act on it.

    It answers ``in_features`` and ``out_features`` and nothing else of the module it wraps, above all not
    ``weight``: code that reads a weight behind the wrapper's back must fail, not train nothing.
    """

    is_wrapper = True

    def __init__(self, layer: nn.Module, binding: Binding) -> None:
        super().__init__()
        self.layer = layer
        self.owned = Owned()
        self.binding = binding

    @property
    def in_features(self) -> int:
        """Input width of the wrapped linear layer."""
        return self.layer.in_features  # type: ignore[return-value]

    @property
    def out_features(self) -> int:
        """Output width of the wrapped linear layer."""
        return self.layer.out_features  # type: ignore[return-value]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What the wrapped module takes (masks and rotary tables pass through), adapted for each row's owner."""
        ctx = self.binding.current()
        if ctx.rows is None:
            return self.owned.alone(self.layer, x, args, kwargs, ctx)
        return self.owned.mixed(self.layer, x, args, kwargs, ctx)


def attach(backbone: Backbone, owner: int, methods: Sequence[Method]) -> None:
    """Add ``owner``'s adapters and tuned parameters, as each of its methods plans them, to a backbone.

    Raises:
        SiteError: a plan names a site or parameter that does not exist, or two methods exclude each other.
    """
    for method in methods:
        label = type(method).__name__
        plan = method.plan(backbone)
        backbone.tuned.add(owner, plan.tuned, label, plan.drops)
        for name, adapter in plan.adapters.items():
            _place(backbone, owner, method, name, adapter)
    units = [site.unit for site, wrapper in adapted_sites(backbone) if wrapper.owned.of(owner) is not None]
    if units:
        backbone.fork_units[owner] = min(units)


def _place(backbone: Backbone, owner: int, method: Method, name: str, adapter: Adapter) -> None:
    known = {site.name: module for site, module in backbone.sites_with_modules()}
    label = type(method).__name__
    if name not in known:
        raise SiteError(f"{label}: {backbone.name} has no site {name!r}{suggest(name, known)}")
    module = known[name]
    levels = _levels(module)[::-1]
    own = [a for w in levels if (a := w.owned.of(owner)) is not None]
    if own and (adapter.in_weight_space or own[0].in_weight_space):
        raise SiteError(f"{label} at {name}: a method that rewrites the weight cannot share a site; use one of the two")
    # an owner's first adapter at a site sits innermost, its second one level further out, and so on
    if len(own) < len(levels):
        wrapper = levels[len(own)]
    else:
        wrapper = Adapted(module, backbone.binding)
        parent, key = _parent_of(backbone, module)
        parent._modules[key] = wrapper
    wrapper.owned.add(owner, method, adapter)
    wrapper.train(backbone.training)


def _levels(module: nn.Module) -> list[Adapted]:
    """Wrappers around a bare module, outermost first."""
    found = []
    while isinstance(module, Adapted):
        found.append(module)
        module = module.layer
    return found


def _parent_of(backbone: Backbone, module: nn.Module) -> tuple[nn.Module, str]:
    for parent in backbone.modules():
        for key, child in parent._modules.items():
            if child is module:
                return parent, key
    raise AssertionError("a site's module must have a parent")


def adapted_sites(backbone: Backbone) -> Iterator[tuple[Site, Adapted]]:
    """Every wrapper with its site, in forward order; innermost first where there are several."""
    for site, module in backbone.sites_with_modules():
        for wrapper in reversed(_levels(module)):
            yield site, wrapper


def adapters_of(backbone: Backbone, owner: int) -> Iterator[tuple[str, int, Adapter]]:
    """(site name, number of the owner's adapter at that site, adapter), in forward order."""
    seen: Counter[str] = Counter()
    for site, wrapper in adapted_sites(backbone):
        adapter = wrapper.owned.of(owner)
        if adapter is not None:
            yield site.name, seen[site.name], adapter
            seen[site.name] += 1


def merge(backbone: Backbone, owner: int = 0) -> Backbone:
    """A plain copy of the backbone with one owner's adapters folded into its layers; the original stays as it is.

    Raises:
        SiteError: naming the first site whose adapter is not a plain layer.
    """
    plain = copy.deepcopy(backbone)
    plain.tuned.settle(owner)
    for site, wrapper in list(adapted_sites(plain)):
        adapter, layer = wrapper.owned.of(owner), wrapper.layer
        if adapter is not None:
            weight = getattr(layer, "weight", None)
            with torch.no_grad():
                pair = None if weight is None else adapter.merged(weight, layer.bias)  # type: ignore[arg-type]
            if pair is None:
                kind = type(adapter).__name__
                raise SiteError(f"{kind} at {site.name} cannot be merged into the layer; keep the bundle unmerged")
            layer.weight = nn.Parameter(pair[0].detach().clone(), requires_grad=False)
            if pair[1] is not None:
                layer.bias = nn.Parameter(pair[1].detach().clone(), requires_grad=False)
        parent, key = _parent_of(plain, wrapper)
        parent._modules[key] = layer
    plain.fork_units = {}
    return plain


def check_sites(backbone: Backbone, images: Tensor) -> None:
    """Run one probe pass and name any adapted site that did not fire exactly once.

    Args:
        backbone: an adapted backbone.
        images: (I, 3, H, W) normalised probe pictures, sides a multiple of ``backbone.multiple``.

    Raises:
        SiteError: an adapter that would silently train nothing, or act twice.
    """
    fired: Counter[str] = Counter()
    handles = []
    try:
        for site, wrapper in adapted_sites(backbone):
            handles.append(wrapper.register_forward_hook(lambda *_, name=site.name: fired.update([name])))
        try:
            with torch.no_grad():
                backbone(images)
        except AttributeError as error:
            raise SiteError(
                f"{backbone.name} reads a wrapped layer's own tensors ({error}); adapt another site"
            ) from None
    finally:
        for handle in handles:
            handle.remove()
    expected = Counter(site.name for site, _ in adapted_sites(backbone))
    for name, times in expected.items():
        if fired[name] != times:
            raise SiteError(
                f"the adapter at {name} ran {fired[name]} times in one pass instead of {times}; adapt another site"
            )
