"""Base classes of adapters, which sit at one site, and of methods, which plan the adapters of a whole trunk.

Shape letters: R rows, N tokens, C channels; at layers, windows may be folded into R.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn

from garnish.checking.arguments import Options
from garnish.engine.blocks import bare
from garnish.engine.context import ForwardContext
from garnish.engine.layer_names_elsewhere import hint_of
from garnish.engine.sites import Site
from garnish.engine.trunk import Trunk
from garnish.errors import OptionError, SiteError, shown, suggest

#: Scales of updates below this have no effect in float32 on a stream of values around 1.
_LEAST_FACTOR = 1e-12


class Adapter(nn.Module, ABC):
    """One owner's adapter at one site. Override any of ``before``, ``after`` and ``merged``; the defaults do nothing.

    An adapter is written as if all rows were its own: :mod:`garnish.engine.adapted` passes it the rows of its owner.
    It uses no global state, and must not depend on the number of rows.

    Attributes:
        in_weight_space: the wrapper runs the frozen layer once with the weight of :meth:`merged` instead of calling
            ``before`` and ``after`` (DoRA and other updates that are not additive).
        convolves: it runs convolutions with weights of its own. In compiled passes of several owners each adapter then
            runs on all rows, since vmap makes a grouped convolution whose group count, the rows, a graph would fix.
        on_adapted: for a task's own adapter in a stream: ``y`` of :meth:`after` is the output of the shared adapter
            instead of the frozen module's.
    """

    in_weight_space: bool = False
    convolves: bool = False
    on_adapted: bool = True

    def before(self, x: Tensor, ctx: ForwardContext) -> Tensor:
        """Change the input of the frozen module."""
        return x

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Change the output ``y`` of the frozen module, given ``x``, the input of the wrapper.

        At a layer ``x`` is the layer's input; at a branch, the stream before the norm; at a residual, the stream
        before the branch, and ``y`` the stream after the addition; beside a branch, the output of its norm, and ``y``
        that of the branch; at a feature both are the map (R, C, H, W).
        """
        return y

    def add_to(self, x: Tensor, y: Tensor) -> bool:
        """Make ``y``, the output of a linear layer that nobody else holds, what :meth:`after` would return.

        It is asked where no gradients are kept: a result of its own would be one more pass over the memory of ``y``,
        and rows of several owners would then be copied together. False (the default): run :meth:`after`.
        """
        return False

    def at_once(self, x: Tensor, layer: nn.Module) -> Tensor | None:
        """Output of the frozen layer with the adapter in one step, for training passes that keep little.

        It is asked where all rows are the adapter's own; the result must equal that of ``before`` and ``after`` to
        rounding. None (the default): run these.
        """
        return None

    def fork(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> tuple[Tensor, Tensor]:
        """Output of :meth:`after` where task streams begin, and the input of the tasks' own adapters there."""
        return self.after(x, y, ctx), x

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
        """Weight and bias, in the same shapes, of a plain layer that computes the same; None if there is none."""
        return None

    def for_row(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """The module and the tensors with which a single row is run: by default the adapter and its own tensors.

        Adapters whose weights are generated return the module that the generated weights are used in.
        """
        return self, dict([*self.named_parameters(), *self.named_buffers()])

    def forward(self, step: Literal["before", "after", "merged"], *args: object) -> object:
        """Call ``before``, ``after`` or ``merged`` by name, for ``torch.func.functional_call``; do not override."""
        return getattr(self, step)(*args)


@dataclass(eq=False)
class Plan:
    """What one method adds to a backbone for one owner.

    Attributes:
        adapters: site name → adapter; at most one per site and method.
        tuned: canonical names of backbone parameters trained in place (stored as named deltas).
        drops: whether the backbone's own dropout and drop-path act in training (only if it is trained itself).
        own: called once per task of the owner; returns the adapters that belong to this task alone.
        routing: how a task's own adapters run. "stream": in each stage, the task's rows run beside the images' own
            from its first adapter to the stage's feature map, so the trunk runs once for all tasks. "rows": the
            task's rows fork from the images before its first adapter and run through the rest of the trunk.
        shared: a module, trained once, that the owner's adapters are generated from (a hyper-network).
        prompts: number of prompt tokens in the owner's stream; an adapter inserts them.
        side: a network beside the trunk, which then runs without gradients: (by stage the maps after its entrance and
            each block, raw feature maps) → feature maps of the same shapes.
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
        """Whether nothing would be trained in the backbone."""
        return not (self.adapters or self.tuned or self.own or self.side)


@dataclass(frozen=True, kw_only=True)
class Method(Options, ABC):
    """The options of a method; :meth:`plan` makes its adapters. Subclasses are frozen dataclasses.

    Attributes:
        per_task: each task has its own copy (else all tasks it is trained for share one).
    """

    per_task: bool = False

    #: whether an empty plan is intended (heads only), instead of a sign that the method found no site
    may_be_empty: ClassVar[bool] = False

    #: whether it is a reference that methods are compared with, never a recommendation
    is_reference: ClassVar[bool] = False

    #: options that set the size, each with values from small to large, for ``garnish plan`` to try
    grid: ClassVar[Mapping[str, tuple[object, ...]]] = {}

    @abstractmethod
    def plan(self, backbone: Trunk) -> Plan:
        """New adapters for a bare or adapted backbone, initialised from torch's global generator.

        Raises:
            SiteError: the options do not fit (rank above width, no such site); the message gives the values.
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
            raise SiteError(
                f"{type(method).__name__}: {backbone.name} has no {what} {shown(name)}{suggest(name, known)}"
            )


def check_factor(at: str, value: float) -> None:
    """Raise :class:`OptionError` if the scale of an update is 0 or next to it, so that nothing would be learned."""
    if abs(value) < _LEAST_FACTOR or not math.isfinite(value):
        raise OptionError(f"{at}: with {value:g} nothing would be learned; set a finite value other than 0")


def select_layers(
    backbone: Trunk,
    wanted: tuple[str, ...],
    default: tuple[type[nn.Module], ...],
    label: str,
    *,
    only: tuple[type[nn.Module], ...] = (nn.Module,),
) -> list[tuple[Site, nn.Module]]:
    """The layers that a method is to adapt, with the bare module of each.

    Args:
        backbone: the trunk.
        wanted: roles in the blocks (``qkv``), places and roles (``attn.qkv``, ``enter.reduction``) or site names;
            empty: every layer in the blocks whose type is in ``default``.
        default: types of layers that are adapted if ``wanted`` is empty.
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
            told = f"{label}: no layer {entry!r} in {backbone.name}{hint_of(entry, backbone)}"
            raise SiteError(f"{told}; layers: {', '.join(known)}")
        for site, module in hits:
            if not isinstance(module, only):
                can = " or ".join(kind.__name__ for kind in only)
                raise SiteError(f"{label}: {site.name} in {backbone.name} is a {type(module).__name__}; choose {can}")
            chosen[site.name] = site, module
    return [pair for pair in layers if pair[0].name in chosen]
