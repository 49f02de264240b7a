"""Base of ``Model``: a frozen backbone with adapters and heads; adds, removes and freezes tasks."""

from __future__ import annotations

import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.checking.arguments import checked
from garnish.engine.adapter import Method
from garnish.engine.attach import OwnerSpec, detach, make_owner, place_all
from garnish.engine.compiled import CompiledTrunk, compile_module
from garnish.engine.drop_path import let_paths_drop
from garnish.engine.owner import Owner, owners_of
from garnish.errors import OptionError, showable, shown, suggest
from garnish.heads.head import Head
from garnish.model.decoders import Decoders, heads_by_task, make_decoders
from garnish.model.served import Addition, Served
from garnish.pictures.band_statistics import BandStatistics
from garnish.pictures.bands import Bands
from garnish.pictures.given_bands import Extra, GivenBands
from garnish.registry import check_own
from garnish.tasks.task import Task

#: Held while tasks are added to or removed from any model; passes do not wait for it.
_CHANGING = threading.Lock()


class AdaptedTrunk(nn.Module, ABC):
    """The parts of a model, and the methods that add, remove and freeze tasks.

    Attributes:
        backbone: the frozen trunk with its adapters.
        decoders: the tasks' heads.
        served: the current tasks with their owners and decoders; replaced as a whole when tasks are added or removed.
        frozen_tasks: tasks that do not train while others do.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoders = Decoders()
        self.frozen_tasks: set[str] = set()
        self.served = Served({}, {}, {})
        self._compiled: CompiledTrunk | None = None
        self._saw_floats = False
        device = next(backbone.body.parameters()).device
        for name, values in (("mean", backbone.mean), ("std", backbone.std)):
            self.register_buffer(name, torch.tensor(values, device=device).view(1, 3, 1, 1), persistent=False)
        backbone.requires_grad_(False)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """Name → task, in the order they were added."""
        return self.served.tasks

    @property
    def owners(self) -> tuple[Owner, ...]:
        """The owners of adapters in the order they were added, each followed by the parts that its tasks own."""
        return owners_of(self.backbone)

    # ---- building -----------------------------------------------------------------------------------------------

    @checked
    def add(
        self,
        method: Method | Sequence[Method],
        tasks: Mapping[str, Task],
        head: Head | Mapping[str, Head] | None = None,
        *,
        bands: Bands | None = None,
        statistics: BandStatistics | None = None,
        extra: Extra = "zero",
        freeze_others: bool = False,
    ) -> None:
        """Add tasks, with adapters of their own next to the existing ones.

        Args:
            method: as for :func:`adapt`.
            tasks: name → task; the names must be new to the model.
            head: as for :func:`adapt`.
            bands: likewise; tasks of different bands live in one model, but never share a pass.
            statistics: likewise.
            extra: likewise.
            freeze_others: freeze all earlier tasks, so that their outputs do not change.
        """
        methods = (method,) if isinstance(method, Method) else tuple(method)
        if not methods:
            raise OptionError("method is an empty list; name one, or garnish.Frozen() to train the heads alone")
        per_task = {m.per_task for m in methods}
        if len(per_task) > 1:
            raise OptionError("methods of one list must all be shared or all be per_task")
        names, heads = tuple(tasks), heads_by_task(head, tasks)
        for kind, specs in (("adapters", methods), ("tasks", tasks.values()), ("heads", heads.values())):
            for spec in specs:
                check_own(spec, kind, "adapt")
        given = GivenBands(bands=Bands() if bands is None else bands, statistics=statistics, extra=extra)
        owners = [OwnerSpec(methods, own, given) for own in ([(n,) for n in names] if True in per_task else [names])]
        earlier = tuple(self.tasks)
        self.serve(self.build(owners, tasks, heads))
        if freeze_others:
            self._freeze(earlier)

    def build(
        self,
        owners: Sequence[OwnerSpec],
        tasks: Mapping[str, Task],
        heads: Mapping[str, Head],
        groups: Sequence[Sequence[str]] | None = None,
    ) -> Addition:
        """Build the adapters and decoders of new tasks, as a bundle lists them; :meth:`serve` adds them.

        Args:
            owners: what each is made of.
            tasks: name → task; the names must be new to the model.
            heads: name → options of its head.
            groups: which tasks share a joint head; None: those with equal options.
        """
        self.served.check_new(tasks)
        decoders = make_decoders(self.backbone, tasks, heads, groups)
        made = tuple(make_owner(self.backbone, *spec) for spec in owners)
        found = Addition(dict(tasks), made, decoders)
        like: Tensor = self.mean  # type: ignore[assignment]
        for module in found.modules():
            held = (*module.parameters(), *module.buffers())
            if any(t.device != like.device or (t.is_floating_point() and t.dtype != like.dtype) for t in held):
                module.to(like.device, like.dtype)  # fake tensors refuse this call even if nothing would change
            module.requires_grad_(True).train(self.training)
        return found

    def serve(self, addition: Addition) -> None:
        """Add what :meth:`build` made; to passes in other threads all of it appears at once."""
        with _CHANGING:
            self.served.check_new(addition.tasks)
            place_all(self.backbone, addition.owners)
            self.decoders.add(addition.decoders)
            if self._compiled is not None:
                for decoder in dict.fromkeys(addition.decoders.values()):
                    compile_module(decoder.module, self._compiled.options)
            self.served = self.served.plus(addition)
        if self.training:
            self.train()  # dropout of the trunk itself depends on all owners that train

    @checked
    def remove(self, tasks: Sequence[str]) -> None:
        """Remove tasks with their heads and adapters; passes that are running finish with them.

        Args:
            tasks: names; tasks that share an owner's adapters or a decoder can only be removed together.

        Raises:
            OptionError: an unknown task, or one that shares with a task that would stay; nothing is removed then.
        """
        with _CHANGING:
            left, gone = self.served.minus(tasks)
            self.served = left
            self.decoders.remove(tasks)
            for owner in gone:
                detach(self.backbone, owner)
            self.frozen_tasks.difference_update(tasks)
        if self.training:
            self.train()  # drop path of the trunk may have been on for the removed owners only

    @checked
    def freeze(self, tasks: Sequence[str]) -> None:
        """Freeze these tasks' heads, and the adapters of owners whose tasks are all frozen.

        Warns of a frozen task whose outputs still change because other tasks train the adapters it shares.

        Raises:
            OptionError: an unknown task.
        """
        for name in tasks:
            if name not in self.tasks:
                raise OptionError(f"freeze: unknown task {shown(name)}{suggest(name, self.tasks)}")
        frozen = self.frozen_tasks.union(tasks)
        adapters = [owner.tasks for owner in self.owners if any(True for _ in owner.named_trained())]
        shared = [("adapters", "adapt with per_task=True", names) for names in adapters]
        shared += [("decoder", "give each a head of its own", names) for names, _ in self.decoders.each()]
        for what, otherwise, names in shared:
            kept = [name for name in names if name in frozen]
            rest = [name for name in names if name not in frozen]
            if kept and rest:
                warnings.warn(
                    showable(
                        f"freeze: the {what} that {', '.join(kept)} shares with {', '.join(rest)} go on training, so"
                        f" its outputs still change; freeze {', '.join(names)} together, or {otherwise}"
                    ),
                    stacklevel=3,  # the caller is one frame further up, above the type check
                )
        self._freeze(tasks)

    def _freeze(self, tasks: Iterable[str]) -> None:
        changed = set(tasks) - self.frozen_tasks
        self.frozen_tasks |= changed
        for names, module in (*((owner.tasks, owner) for owner in self.owners), *self.decoders.each()):
            if not changed.isdisjoint(names):  # requires_grad set by hand on others is kept
                module.requires_grad_(not self.frozen_tasks.issuperset(names))
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode on what is trained; the frozen trunk and frozen tasks stay in evaluation mode.

        Frozen modules are never in training mode, not even for a moment: batch norms would update their statistics
        from a pass that another thread runs.
        """
        self.training = self.decoders.training = mode
        self.backbone.train(False)
        acting = {owner for owner in self.owners if mode and not self.frozen_tasks.issuperset(owner.tasks)}
        for owner in self.owners:
            if owner.drops:
                owner.train_own(owner in acting)
        let_paths_drop(self.backbone, self.owners, acting)
        for owner in self.owners:
            owner.train(owner in acting)
        for tasks, module in self.decoders.each():
            module.train(mode and not self.frozen_tasks.issuperset(tasks))
        return self

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Raw outputs of (I, C, H, W) pictures, ``{task: tensor}``."""
