"""What an adapter is (it sits at one site) and what a method is (its plan over all sites).

Shape letters: R rows, N tokens, C channels; layers may see windows folded into R.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from garnish.checking.arguments import Options
from garnish.engine.blocks import bare
from garnish.engine.context import ForwardContext
from garnish.engine.sites import Site
from garnish.engine.trunk import Trunk
from garnish.errors import OptionError, SiteError, suggest


class Adapter(nn.Module, ABC):
    """What sits at one site for one owner. Three doors, all optional; each leaves things as they are by default.

    An adapter is written as if every row were its own: where tasks own adapters, the rows of each are brought to it
    by :mod:`garnish.engine.adapted`. It never reaches for a global, and must not depend on the number of rows.

    Attributes:
        in_weight_space: the wrapper runs the frozen layer once with :meth:`merged`'s weight instead of calling the
            doors ``before`` and ``after`` (DoRA and other maps that are not sums).
        convolves: the doors run convolutions with weights of their own. In compiled passes of several owners each then
            runs on all rows, for a convolution mapped over rows has as many groups as rows, which a graph holds fast.
        on_adapted: of a task's own adapter in a stream: ``y`` of :meth:`after` is what the shared adapter made of the
            frozen module's output, not that output itself.
    """

    in_weight_space: bool = False
    convolves: bool = False
    on_adapted: bool = True

    def before(self, x: Tensor, ctx: ForwardContext) -> Tensor:
        """Edit what enters the frozen module."""
        return x

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Edit what leaves the frozen module, given ``x``, which entered the wrapper.

        At a layer ``x`` is the layer's input; at a branch, the stream before the norm; at a residual, the stream
        before the branch, and ``y`` the stream after the add; beside a branch, what its norm gives, and ``y`` what the
        branch adds; at a feature both are the map (R, C, H, W).
        """
        return y

    def fork(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> tuple[Tensor, Tensor]:
        """:meth:`after` where streams of tasks begin, and what their own adapters read in place of ``x``."""
        return self.after(x, y, ctx), x

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
        """The same map as a plain layer with the shapes of ``weight`` and ``bias``; None where there is none."""
        return None

    def for_row(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """A module with these doors, and the tensors with which a row runs it: by default itself and its own.

        Adapters whose weights are generated return the module that the generated weights run in.
        """
        return self, dict([*self.named_parameters(), *self.named_buffers()])

    def forward(self, door: Literal["before", "after", "merged"], *args: Any) -> Any:
        """Call one of the three doors by name (what ``torch.func.functional_call`` needs; not for subclasses)."""
        return getattr(self, door)(*args)


@dataclass(eq=False)
class Plan:
    """What one owner adds to a backbone.

    Attributes:
        adapters: site name → adapter; at most one a site and method.
        tuned: canonical names of backbone parameters trained in place (stored as named deltas).
        drops: whether the backbone's own dropout and drop-path act in training (only where it is trained itself).
        own: called once for each of the owner's tasks: the adapters that the task owns beside the shared ones.
        routing: where a task's own adapters lead. "stream": its rows run beside the images' own from the first of
            them in a stage to that stage's feature map, so the trunk itself is run once for all tasks. "rows": its
            rows are forked from the images before the first of them and run on to the end.
        shared: a module that the owner's adapters are made with and that is trained once (a hyper-network).
        prompts: number of prompt tokens that the owner's stream carries; an adapter puts them there.
        side: a network beside the trunk, which is run without gradients: (maps by stage after its entrance and each
            block, raw feature maps) → feature maps of the same shapes.
    """

    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    tuned: tuple[str, ...] = ()
    drops: bool = False
    own: Callable[[], Mapping[str, Adapter]] | None = None
    routing: Literal["stream", "rows"] = "stream"
    shared: nn.Module | None = None
    prompts: int = 0
    side: nn.Module | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all would be trained in the backbone."""
        return not (self.adapters or self.tuned or self.own or self.side)


@dataclass(frozen=True, kw_only=True)
class Method(Options, ABC):
    """The options of a method; :meth:`plan` says what it puts where. Subclasses are frozen dataclasses.

    Attributes:
        per_task: each task owns its own copy (else one copy is shared by all tasks it is trained for).
    """

    per_task: bool = False

    #: whether a plan without anything is what the method means (heads only), not a sign that it found no place
    may_be_empty: ClassVar[bool] = False

    #: whether it is what methods are measured against, and never recommended itself
    is_reference: ClassVar[bool] = False

    #: options that set the size, each with values from small to large, for ``garnish plan`` to try
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @abstractmethod
    def plan(self, backbone: Trunk) -> Plan:
        """New adapters for a bare or adapted backbone, initialised from torch's global generator.

        Raises:
            SiteError: where the options do not fit (rank over width, no such site), with the values.
        """

    @final
    def fits(self, backbone: Trunk) -> str | None:
        """Why the method does not fit a trunk, in the line that adapting raises; None where it fits.

        It asks :meth:`plan` and the checks of a plan, and is no door: a method that told beforehand what it will refuse
        would say it twice, and the two would part. Trunk and torch's generator stay as they are.
        """
        try:
            with torch.random.fork_rng(devices=[]):
                plan = self.plan(backbone)
                own = plan.own() if plan.own is not None else {}
            check_not_empty(self, plan, backbone)
            sites = [site.name for site in backbone.sites()]
            parameters = [n for n, tensor in backbone.frozen_tensors().items() if isinstance(tensor, nn.Parameter)]
            check_names(self, "site", plan.adapters, sites, backbone)
            check_names(self, "parameter", plan.tuned, parameters, backbone)
            check_names(self, "site", own, sites, backbone)
        except (SiteError, OptionError) as error:
            return str(error)
        return None


def check_not_empty(method: Method, plan: Plan, backbone: Trunk) -> None:
    """Raise :class:`SiteError` for an empty plan, unless that is what the method means."""
    if plan.is_empty and not method.may_be_empty:
        raise SiteError(
            f"{type(method).__name__}: {backbone.name} has no place for it; choose another method or backbone"
        )


def check_names(method: Method, what: str, names: Iterable[str], known: Collection[str], backbone: Trunk) -> None:
    """Raise :class:`SiteError` for a site or parameter in a plan that the backbone has not."""
    for name in names:
        if name not in known:
            raise SiteError(f"{type(method).__name__}: {backbone.name} has no {what} {name!r}{suggest(name, known)}")


def check_factor(at: str, value: float) -> None:
    """Raise :class:`OptionError` for a factor of an update with which nothing would learn."""
    if value == 0 or not math.isfinite(value):
        raise OptionError(f"{at}: with {value:g} nothing would learn; set a finite value other than 0")


def select_layers(
    backbone: Trunk,
    wanted: tuple[str, ...],
    default: tuple[type[nn.Module], ...],
    label: str,
    *,
    only: tuple[type[nn.Module], ...] = (nn.Module,),
) -> list[tuple[Site, nn.Module]]:
    """The layers a method is asked to adapt, with the bare module of each.

    Args:
        backbone: the trunk.
        wanted: roles in the blocks (``qkv``), places and roles (``attn.qkv``, ``enter.reduction``) or site names;
            empty: every layer in the blocks that is of a type in ``default``.
        default: types taken where nothing is asked for.
        label: the method's name, for messages.
        only: types that the method can adapt.

    Raises:
        SiteError: an entry that matches no layer, whereupon the message lists those there are, or one of another type.
    """
    layers = [(site, bare(module)) for site, module in backbone.sites_with_modules() if site.kind == "layer"]
    if not wanted:
        return [(s, m) for s, m in layers if s.block >= 0 and isinstance(m, default)]
    chosen: dict[str, tuple[Site, nn.Module]] = {}
    for entry in wanted:
        hits = [(s, m) for s, m in layers if entry in (s.role * (s.block >= 0), f"{s.place}.{s.role}", s.name)]
        if not hits:
            known = sorted({f"{s.place}.{s.role}" for s, _ in layers})
            raise SiteError(f"{label}: no layer {entry!r} in {backbone.name}; layers: {', '.join(known)}")
        for site, module in hits:
            if not isinstance(module, only):
                can = " or ".join(kind.__name__ for kind in only)
                raise SiteError(f"{label}: {site.name} in {backbone.name} is a {type(module).__name__}; choose {can}")
            chosen[site.name] = site, module
    return [pair for pair in layers if pair[0].name in chosen]
