"""Adding owners of adapters to a trunk and removing them, in time independent of how many it has.

An owner is complete before any of it is placed, so an error leaves the trunk unchanged. Passes may run meanwhile:
a wrapper changes nothing for owners without an adapter in it, and the wrappers of a removed owner stay, since one of
its passes may still be running.

Shape letters: I images, H W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from garnish.engine.adapted import Adapted
from garnish.engine.adapter import Adapter, Method, Plan, check_names, check_not_empty
from garnish.engine.banded import Banded, OtherBands
from garnish.engine.owner import AdapterPlace, Owner
from garnish.engine.planes import Planes
from garnish.engine.sites import Site, slots_of, spots_of
from garnish.engine.trunk import Trunk
from garnish.engine.twin import TunedSet
from garnish.errors import SiteError
from garnish.pictures.given_bands import GivenBands


class OwnerSpec(NamedTuple):
    """What an owner is made of: its methods, innermost first, its tasks, and the pictures that they take."""

    methods: Sequence[Method]
    tasks: tuple[str, ...]
    given: GivenBands = GivenBands()


def make_owner(trunk: Trunk, methods: Sequence[Method], tasks: Sequence[str], given: GivenBands) -> Owner:
    """Make the adapters that some methods plan for some tasks, without placing them in the trunk.

    Args:
        trunk: bare, or already adapted by other owners.
        methods: the methods, innermost first.
        tasks: the owner's tasks; if a method gives each task adapters of its own, each task gets a part.
        given: the pictures that they take.

    Raises:
        SiteError: a plan is empty, names a site or parameter that does not exist, or two methods cannot be combined;
            or the trunk's first layer takes no other bands.
    """
    others = OtherBands.of(trunk, given)
    plans = [(method, method.plan(trunk)) for method in methods]
    _check_together(trunk, plans)
    own = [[plan.own() for _ in tasks] if plan.own is not None else [] for _, plan in plans]
    sites = {site.name: (number, site) for number, site in enumerate(trunk.sites())}
    adapters = _in_order(trunk, sites, [(method, plan.adapters) for method, plan in plans])
    tuned, units = _tuned(trunk, plans)
    prompts = sum(plan.prompts for _, plan in plans)
    owner = Owner(
        tuple(tasks),
        tuple(methods),
        adapters,
        tuned=tuned,
        drops=any(plan.drops for _, plan in plans),
        prompts=prompts,
        side=next((plan.side for _, plan in plans if plan.side is not None), None),
        shared=[plan.shared for _, plan in plans if plan.shared is not None],
        changes=_first_changed(
            adapters, [*units, *([1] if prompts else []), *([] if others is None else [others.site.unit])]
        ),
        given=given,
        planes=None if given.bands.is_rgb else Planes(given, trunk.mean, trunk.std),
        others=others,
    )
    owner.parts = tuple(
        Owner(
            (task,),
            owner.methods,
            placed,
            parent=owner,
            streamed=plan.routing == "stream",
            changes=_first_changed(placed, []),
        )
        for (method, plan), made in zip(plans, own, strict=True)
        for task, adapters in zip(tasks, made, strict=False)  # at most one method makes adapters per task
        for placed in [_in_order(trunk, sites, [(method, adapters)])]
    )
    return owner


def place(trunk: Trunk, owner: Owner) -> None:
    """Add an owner and its parts to a trunk, wrapping the modules at their sites."""
    members = (owner, *owner.parts)
    if owner.others is not None:
        _surround(trunk, owner.others.site)
    spots = spots_of(trunk.body)
    for at in (at for member in members for at in member.places.values()):
        spot = spots[at.site.name]
        levels = _levels(spot.module)
        if at.level < len(levels) - 1:
            continue
        wrapper = Adapted(levels[-1], at.key, trunk.binding)
        wrapper.training = trunk.training
        holder, key = (spot.module, "layer") if isinstance(spot.module, Banded) else (spot.holder, spot.key)
        holder._modules[key] = wrapper
    owner.lay_out(trunk.body)
    for member in members:
        member.number = trunk.next_number()
        trunk.owners[str(member.number)] = member


def place_all(trunk: Trunk, owners: Iterable[Owner]) -> None:
    """:func:`place` several owners: all of them or, if one fails, none."""
    placed: list[Owner] = []
    try:
        for owner in owners:
            place(trunk, owner)
            placed.append(owner)
    except BaseException:  # out of memory, or an interrupt
        for owner in placed:
            detach(trunk, owner)
        raise


def detach(trunk: Trunk, owner: Owner) -> None:
    """Remove an owner and its parts from a trunk; its passes that are running are not affected."""
    for member in (*owner.parts, owner):
        del trunk.owners[str(member.number)]


def adapted_sites(trunk: Trunk) -> Iterator[tuple[Site, Adapted]]:
    """Every wrapper with its site, in forward order; at one site innermost first."""
    for site, module in trunk.sites_with_modules():
        for wrapper in _levels(module)[1:]:
            assert isinstance(wrapper, Adapted)
            yield site, wrapper


def check_sites(trunk: Trunk, images: Tensor) -> None:
    """Run one probe pass and check that the wrapper at each adapted site runs exactly once.

    Args:
        trunk: with adapters.
        images: (I, 3, H, W) normalised probe pictures, sides a multiple of ``trunk.multiple``.

    Raises:
        SiteError: an adapter that would silently train nothing, or act twice; the message names its site.
    """
    fired: Counter[str] = Counter()
    handles = []
    try:
        for site, wrapper in adapted_sites(trunk):
            handles.append(wrapper.register_forward_hook(lambda *_, name=site.name: fired.update([name])))
        try:
            with torch.no_grad():
                trunk(images, ())
        except AttributeError as error:
            raise SiteError(f"{trunk.name} reads a wrapped layer's own tensors ({error}); adapt another site") from None
    finally:
        for handle in handles:
            handle.remove()
    expected = Counter(site.name for site, _ in adapted_sites(trunk))
    for name, times in expected.items():
        if fired[name] != times:
            raise SiteError(
                f"the adapter at {name} ran {fired[name]} times in one pass instead of {times}; adapt another site"
            )


def _surround(trunk: Trunk, site: Site) -> None:
    """Put the wrapper for other bands around the first layer and its wrappers, if it is not there."""
    spot = spots_of(trunk.body)[site.name]
    if isinstance(spot.module, Banded):
        return
    wrapper = Banded(spot.module, trunk.binding)
    wrapper.training = trunk.training
    spot.holder._modules[spot.key] = wrapper


def _levels(module: nn.Module) -> list[nn.Module]:
    """The bare module and the wrappers of adapters around it, innermost first."""
    found = [module.layer if isinstance(module, Banded) else module]
    while isinstance(found[-1], Adapted):
        found.append(found[-1].layer)
    return found[::-1]


def _in_order(
    trunk: Trunk, sites: Mapping[str, tuple[int, Site]], planned: Sequence[tuple[Method, Mapping[str, Adapter]]]
) -> list[tuple[AdapterPlace, Adapter]]:
    """The adapters of one owner with their places, in forward order; at one site innermost first."""
    found: dict[str, list[tuple[AdapterPlace, Adapter]]] = {}
    for method, adapters in planned:
        check_names(method, "site", adapters, sites, trunk)
        for name, adapter in adapters.items():
            there = found.setdefault(name, [])
            if there and (adapter.in_weight_space or there[0][1].in_weight_space):
                raise SiteError(
                    f"{type(method).__name__} at {name}: a method that rewrites the weight cannot share a site; "
                    "use one of the two"
                )
            there.append((AdapterPlace(sites[name][1], len(there), method), adapter))
    return [pair for name in sorted(found, key=lambda name: sites[name][0]) for pair in found[name]]


def _tuned(trunk: Trunk, plans: Sequence[tuple[Method, Plan]]) -> tuple[TunedSet, list[int]]:
    """The tuned parameters, initialised with the frozen values, and the units that they belong to."""
    values: dict[str, nn.Parameter] = {}
    found = slots_of(trunk.body) if any(plan.tuned for _, plan in plans) else ()
    slots = {
        name: (unit.number, parameter)
        for unit, name, module, leaf in found
        if (parameter := module._parameters.get(leaf)) is not None
    }
    for method, plan in plans:
        check_names(method, "parameter", plan.tuned, slots, trunk)
        for name in plan.tuned:
            values.setdefault(name, nn.Parameter(slots[name][1].detach().clone()))
    return TunedSet(tuple(values), list(values.values())), [slots[name][0] for name in values]


def _first_changed(adapters: Sequence[tuple[AdapterPlace, Adapter]], units: Sequence[int]) -> int | None:
    return min([*(at.site.unit for at, _ in adapters if at.site.kind != "feature"), *units], default=None)


def _check_together(trunk: Trunk, plans: Sequence[tuple[Method, Plan]]) -> None:
    for method, plan in plans:
        label = type(method).__name__
        check_not_empty(method, plan, trunk)
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
            raise SiteError(f"{label}: everything it tunes is already tuned by {whose}; leave it out")
        tuned |= {name: tuned.get(name, label) for name in plan.tuned}
    for what, chosen in (
        ("give tasks a part of their own", [m for m, p in plans if p.own]),
        ("put prompts into the stream", [m for m, p in plans if p.prompts]),
    ):
        if len(chosen) > 1:
            raise SiteError(f"{' and '.join(type(m).__name__ for m in chosen)} both {what}; use one of them")
