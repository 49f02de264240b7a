"""The wrapper that stands in a frozen module's place, and the verbs: attach, merge, check_sites."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from garnish.adapters.adapter import Adapter, Method, Plan
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
        if ctx.streams is not None and self.owned.acts_in(ctx):
            return self.owned.streamed(self.layer, x, args, kwargs, ctx)
        if ctx.rows is None:
            return self.owned.alone(self.layer, x, args, kwargs, ctx)
        return self.owned.mixed(self.layer, x, args, kwargs, ctx)


def attach(backbone: Backbone, owner: int, methods: Sequence[Method], tasks: Sequence[str] = ()) -> dict[str, int]:
    """Add ``owner``'s adapters and tuned parameters, as each of its methods plans them, to a backbone.

    Args:
        backbone: the trunk, adapted for others or not.
        owner: its number; the numbers after it go to its tasks where they own a part.
        methods: what to add, innermost first.
        tasks: the owner's tasks.

    Returns:
        Task → number of the part that it owns beside the shared one; empty where no method gives tasks any.

    Raises:
        SiteError: a plan is empty, names a site or parameter that does not exist, or two methods exclude each other.
    """
    plans = [(method, method.plan(backbone)) for method in methods]
    _check_together(backbone, plans)
    # all is made before anything is placed, so that what does not fit leaves the trunk as it was
    parts = [[plan.own() for _ in tasks] if plan.own is not None else [] for _, plan in plans]
    own: dict[str, int] = {}
    for (method, plan), made in zip(plans, parts, strict=True):
        backbone.tuned.add(owner, plan.tuned, type(method).__name__, plan.drops)
        backbone.give(owner, side=plan.side, shared=plan.shared)
        if plan.prompts:
            backbone.prompts[owner] = plan.prompts
        _place_all(backbone, owner, method, plan.adapters)
        if plan.own is not None:
            own = {task: owner + 1 + position for position, task in enumerate(tasks)}
            for part, adapters in zip(own.values(), made, strict=True):
                _place_all(backbone, part, method, adapters)
                backbone.parents[part] = owner
                if plan.routing == "stream":
                    backbone.streamed.add(part)
    backbone.tuned.lay_out(owner)
    for number in (owner, *own.values()):
        sites = [(site, wrapper) for site, wrapper in adapted_sites(backbone) if wrapper.owned.of(number) is not None]
        if number in backbone.streamed:
            _mark_forks(number, sites)
        elif sites:
            backbone.fork_units[number] = min(site.unit for site, _ in sites)
    return own


def _check_together(backbone: Backbone, plans: Sequence[tuple[Method, Plan]]) -> None:
    for method, plan in plans:
        label = type(method).__name__
        if plan.is_empty and not method.may_be_empty:
            raise SiteError(f"{label}: {backbone.name} has no place for it; choose another method or backbone")
        others = [type(other).__name__ for other, _ in plans if other is not method]
        if plan.is_empty and others:
            raise SiteError(f"{label}: adds nothing beside {', '.join(others)}; leave it out")
        apart = plan.side or (plan.own and plan.routing == "rows")
        if apart and others:
            raise SiteError(f"{label}: cannot be combined with {', '.join(others)}; give it alone")
    tuned: dict[str, str] = {}
    for method, plan in plans:
        label = type(method).__name__
        if plan.tuned and not (plan.adapters or plan.own) and tuned.keys() >= set(plan.tuned):
            whose = ", ".join(dict.fromkeys(tuned[name] for name in plan.tuned))
            raise SiteError(f"{label}: all that it tunes is tuned by {whose} already; leave it out")
        tuned |= {name: tuned.get(name, label) for name in plan.tuned}
    for what, chosen in (
        ("give tasks a part of their own", [m for m, p in plans if p.own]),
        ("put prompts into the stream", [m for m, p in plans if p.prompts]),
    ):
        if len(chosen) > 1:
            raise SiteError(f"{' and '.join(type(m).__name__ for m in chosen)} both {what}; use one of them")


def _mark_forks(part: int, sites: Sequence[tuple[Site, Adapted]]) -> None:
    """Streams of a stage begin at the first site in it where the task owns an adapter."""
    begun: set[int] = set()
    for site, wrapper in sites:
        if site.stage not in begun:
            wrapper.owned.forks.add(part)
        begun.add(site.stage)


def _place_all(backbone: Backbone, owner: int, method: Method, adapters: Mapping[str, Adapter]) -> None:
    known = {site.name: module for site, module in backbone.sites_with_modules()}
    parents = {id(child): (parent, key) for parent in backbone.modules() for key, child in parent._modules.items()}
    label = type(method).__name__
    for name, adapter in adapters.items():
        if name not in known:
            raise SiteError(f"{label}: {backbone.name} has no site {name!r}{suggest(name, known)}")
        module = known[name]
        levels = _levels(module)[::-1]
        own = [a for w in levels if (a := w.owned.of(owner)) is not None]
        if own and (adapter.in_weight_space or own[0].in_weight_space):
            raise SiteError(
                f"{label} at {name}: a method that rewrites the weight cannot share a site; use one of the two"
            )
        # an owner's first adapter at a site sits innermost, its second one level further out, and so on
        if len(own) < len(levels):
            wrapper = levels[len(own)]
        else:
            wrapper = Adapted(module, backbone.binding)
            parent, key = parents[id(module)]
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
    for has, what in (
        (owner in backbone.parents or owner in backbone.parents.values(), "parts that differ by task"),
        (owner in backbone.prompts, "prompt tokens"),
        (owner in backbone.sides, "a side network"),
    ):
        if has:
            raise SiteError(f"{backbone.name}: {what} cannot be merged into a plain backbone; keep the bundle unmerged")
    plain = copy.deepcopy(backbone)
    plain.tuned.settle(owner)
    for site, wrapper in list(adapted_sites(plain)):
        if wrapper.owned.of(owner) is not None:
            fold(wrapper, owner, site.name)
        unwrap(plain, wrapper)
    plain.fork_units, plain.parents, plain.streamed, plain.prompts = {}, {}, set(), {}
    plain.take_back()
    return plain


def fold(wrapper: Adapted, owner: int, where: str) -> None:
    """Give a bare layer or norm the weight and bias with which it computes what the owner's adapter makes of it.

    Raises:
        SiteError: naming the site ``where``: no such weight and bias exist.
    """
    adapter, layer = wrapper.owned.of(owner), wrapper.layer
    assert adapter is not None
    weight = getattr(layer, "weight", None)
    with torch.no_grad():
        pair = None if weight is None else adapter.merged(weight, layer.bias)  # type: ignore[arg-type]
    if pair is None:
        kind = type(wrapper.owned.methods[owner]).__name__
        raise SiteError(f"{kind} at {where} cannot be merged into the layer; keep the bundle unmerged")
    layer.weight = nn.Parameter(pair[0].detach().clone(), requires_grad=False)
    if pair[1] is not None:
        layer.bias = nn.Parameter(pair[1].detach().clone(), requires_grad=False)


def unwrap(backbone: Backbone, wrapper: Adapted) -> None:
    """Put what a wrapper wraps back in its place."""
    parent, key = _parent_of(backbone, wrapper)
    parent._modules[key] = wrapper.layer


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
