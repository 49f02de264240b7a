"""Owners: a set of adapters and tuned parameters with the tasks that share it; a trunk can have many."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from garnish.engine.adapter import Adapter, Method
from garnish.engine.banded import OtherBands
from garnish.engine.planes import Planes
from garnish.engine.sites import Site
from garnish.engine.stated_licences import StatedLicences
from garnish.engine.trained_scale import TrainedScale
from garnish.engine.trunk import Trunk
from garnish.engine.twin import TunedSet, Twin
from garnish.engine.units import Body
from garnish.pictures.bands import Bands
from garnish.pictures.given_bands import GivenBands


@final
@dataclass(frozen=True, eq=False)
class AdapterPlace:
    """Where an adapter of an owner sits.

    Attributes:
        site: the site of the trunk.
        level: 0 directly around the frozen module; an owner's second adapter at the same site wraps its first, at 1.
        method: the method that made the adapter.
    """

    site: Site
    level: int
    method: Method

    @property
    def key(self) -> str:
        """The key under which the wrapper at this place looks up the adapter."""
        return adapter_key(self.site.name, self.level)


def adapter_key(site: str, level: int) -> str:
    """Key of an adapter within its owner, with slashes, since torch allows no dots in module names."""
    return f"{site}.{level}".replace(".", "/")


@final
class Owner(nn.Module):
    """One set of adapters and all else that a list of methods trains in the backbone; :mod:`.attach` makes it.

    It is complete before it is added to the trunk; afterwards only the values of its tensors change.
    The part that belongs to one task alone (a stream of MTLoRA, the rows of Polyhistor) is an owner with a parent.

    Attributes:
        tasks: names of the tasks that use it; exactly one for a task's own part.
        methods: the methods that made it, innermost first.
        parent: the owner that this one is a part of, or None.
        parts: the parts that belong to single tasks.
        adapters: key → adapter, in forward order.
        places: key → where it sits.
        forks: keys of the places at which the streams of this part begin, one in each stage.
        streamed: for a part: its rows leave the trunk at the feature maps (``Plan.routing``).
        tuned: parameters of the backbone that it trains in place.
        drops: the backbone's own dropout and drop-path act in training.
        prompts: number of prompt tokens in its stream.
        side: a network beside the trunk, or None.
        shared: modules that its adapters are generated from (hyper-networks).
        first: unit before which its rows fork from those of others; None: it has no adapters.
        changes: the first unit that computes something other than in the bare trunk (adapters of feature maps and
            side networks change no unit); None: none does.
        scale: how large the pictures were that it was trained on; None: not known.
        licences: that the bundle stated which it was read from.
        given: the pictures that its tasks take; of a part, those of its parent.
        planes: makes the trunk's input of them; None: as of 8-bit RGB. Of a part always None.
        others: its filters of the first layer for bands beside red, green and blue, or None. Of a part always None.
        number: unique within the trunk and never reused; -1 before it is added.
    """

    def __init__(
        self,
        tasks: tuple[str, ...],
        methods: tuple[Method, ...],
        adapters: Sequence[tuple[AdapterPlace, Adapter]],
        *,
        parent: Owner | None = None,
        streamed: bool = False,
        tuned: TunedSet | None = None,
        drops: bool = False,
        prompts: int = 0,
        side: nn.Module | None = None,
        shared: Sequence[nn.Module] = (),
        changes: int | None = None,
        given: GivenBands | None = None,
        planes: Planes | None = None,
        others: OtherBands | None = None,
    ) -> None:
        super().__init__()
        self.number = -1
        self.tasks = tasks
        self.methods = methods
        self._parent = (parent,)  # in a tuple: as an attribute it would be registered inside its part
        self.parts: tuple[Owner, ...] = ()
        self.places = {place.key: place for place, _ in adapters}
        self.adapters = nn.ModuleDict({place.key: adapter for place, adapter in adapters})
        self.streamed = streamed
        self.forks = frozenset(_first_of_each_stage(self.places.values())) if streamed else frozenset()
        self.tuned = TunedSet((), []) if tuned is None else tuned
        self.drops = drops
        self.prompts = prompts
        self.side = side
        self.shared = nn.ModuleList(shared)
        self.given: GivenBands = (GivenBands() if given is None else given) if parent is None else parent.given
        self.planes = planes
        self.others = others
        units = [place.site.unit for place in self.places.values()]
        units += [] if others is None else [others.site.unit]
        self.first = None if streamed or not units else min(units)
        self.changes = changes
        self._twin: Twin | None = None
        self.scale: TrainedScale | None = None
        self.licences = StatedLicences()

    # ---- identity -----------------------------------------------------------------------------------------------

    @property
    def parent(self) -> Owner | None:
        """The owner that this one is a part of, or None."""
        return self._parent[0]

    @property
    def root(self) -> Owner:
        """Its parent, or itself if it has none."""
        return self if self.parent is None else self.parent

    @property
    def name(self) -> str:
        """``seg+depth``, or ``seg+depth:seg`` for a task's part; prefixes the owner's tensors in a bundle."""
        return self.name_for((*self.tasks, *self.root.tasks))

    def name_for(self, tasks: Collection[str]) -> str:
        """The name if only ``tasks`` are kept; empty if none of its own tasks is."""
        kept = "+".join(task for task in self.tasks if task in tasks)
        if self.parent is None or not kept:
            return kept
        return f"{'+'.join(task for task in self.parent.tasks if task in tasks)}:{kept}"

    @property
    def bands(self) -> Bands:
        """The bands of the pictures that its tasks take."""
        return self.given.bands

    @property
    def made_by(self) -> str:
        """The names of its methods, and that other bands enter, for messages."""
        names = [type(method).__name__ for method in self.methods]
        return " + ".join([*names, *([] if self.root.others is None else ["the filters of further bands"])])

    @property
    def acts(self) -> bool:
        """Whether its passes differ from those of the bare trunk."""
        there = self.side is not None or self.parent is not None or self.others is not None
        return bool(there or self.places or len(self.tuned) or self.prompts or self.parts)

    @property
    def runs_apart(self) -> bool:
        """Whether it needs passes of its own: tuned values, prompts and streams cannot differ by row."""
        return bool(len(self.root.tuned) or self.root.prompts or self.streamed)

    # ---- adapters and tensors -----------------------------------------------------------------------------------

    def at(self, key: str) -> Adapter | None:
        """Its adapter with this key, or None if it has none there."""
        if key not in self.adapters:
            return None
        adapter = self.adapters[key]
        assert isinstance(adapter, Adapter)
        return adapter

    def placed(self) -> Iterator[tuple[AdapterPlace, Adapter]]:
        """Each place with its adapter, in forward order, innermost first."""
        for key, place in self.places.items():
            adapter = self.adapters[key]
            assert isinstance(adapter, Adapter)
            yield place, adapter

    def named_trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in a bundle, parameter) of everything it trains in the encoder."""
        adapters, others = self._named_modules()
        for at, module in adapters:
            yield from ((f"{at}.{leaf}", parameter) for leaf, parameter in module.named_parameters())
        yield from ((f"tuned.{self.name}.{leaf}", value) for leaf, value in self.tuned.items())
        for at, module in others:
            yield from ((f"{at}.{leaf}", parameter) for leaf, parameter in module.named_parameters())

    def tensors(self) -> dict[str, Tensor]:
        """Name in a bundle → tensor: adapters, tuned parameters, side network, shared modules, other bands."""
        found: dict[str, Tensor] = dict(self.named_trained())
        for at, module in itertools.chain(*self._named_modules()):
            found.update({f"{at}.{leaf}": buffer for leaf, buffer in module.named_buffers()})
        return found

    def _named_modules(self) -> tuple[list[tuple[str, nn.Module]], list[tuple[str, nn.Module]]]:
        """(name prefix in a bundle, module) pairs: of the adapters; of side network, shared modules, other bands."""
        at = f"adapters.{self.name}"
        adapters = [(f"{at}.{where.site.name}.{where.level}", self.adapters[key]) for key, where in self.places.items()]
        beside: list[tuple[str, nn.Module]] = [("side", self.side)] if self.side is not None else []
        beside += [(f"shared{number or ''}", module) for number, module in enumerate(self.shared)]
        named = [(f"{kind}.{self.name}", module) for kind, module in beside]
        if self.others is not None:
            named.append((f"bands.{self.name}.{self.others.site.name}", self.others))
        return adapters, named

    # ---- its modules of the trunk -------------------------------------------------------------------------------

    def body(self, trunk: Body) -> Body:
        """The modules that its passes run through: the trunk's, or a copy that holds its tuned values."""
        if self._twin is None:
            return trunk
        if not torch.compiler.is_compiling():
            self.catch_up(trunk)
        return self._twin.body

    def catch_up(self, trunk: Body) -> None:
        """Update its copy of the modules to the current tensors of the trunk and its tuned values."""
        if self._twin is None:
            return
        if self._twin.is_stale:
            self.lay_out(trunk)
        else:
            self._twin.catch_up()

    def lay_out(self, trunk: Body) -> None:
        """Copy the trunk's current modules again; does nothing if it tunes no parameter."""
        if len(self.tuned):
            made = Twin(trunk, self.tuned)
            if self._twin is not None:  # keep the modes of the previous copy, whose dropout may be active
                made.follow(self._twin)
            self._twin = made

    def dissolve(self) -> None:
        """Break the circles of references within it, so that it is freed when the last reference to it goes.

        For processes that collect garbage seldom. No pass may use it any more.
        """
        for part in self.parts:
            part.dissolve()
        self.parts = ()
        if self._twin is not None:
            self._twin.body.units = ()  # some of which hang in the body itself
            self._twin.body.walked.clear()
            self._twin = None

    def train_own(self, mode: bool) -> None:
        """Set training or evaluation mode of its copy of the modules: :meth:`garnish.engine.twin.Twin.train`."""
        if self._twin is not None:
            self._twin.train(mode)

    def follow(self) -> None:
        """Set its copy of the modules to the current modes, training or evaluation, of the trunk's."""
        if self._twin is not None:
            self._twin.follow()


def owners_of(trunk: Trunk) -> tuple[Owner, ...]:
    """All owners of a trunk, in the order in which they were added, each before its parts."""
    return tuple(owner for owner in list(trunk.owners.values()) if isinstance(owner, Owner))


def _first_of_each_stage(places: Iterable[AdapterPlace]) -> Iterator[str]:
    begun: set[int] = set()
    for place in places:
        if place.site.stage not in begun:
            yield place.key
        begun.add(place.site.stage)
