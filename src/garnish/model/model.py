"""``Model``: one frozen backbone, the adapters of its owners, a head a task; pictures in, ``{task: tensor}`` out.

Shape letters: I pictures, n pictures that want a task, H W pixels, C channels.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.checking.arguments import checked
from garnish.engine.adapter import Method
from garnish.engine.attach import check_sites, detach, make_owner, place_all
from garnish.engine.compiled import CompiledTrunk
from garnish.engine.drop_path import let_paths_drop
from garnish.engine.input_pictures import check_images, prepared
from garnish.engine.maps import Maps, pick
from garnish.engine.one_pass import first_forked
from garnish.engine.owner import Owner, owners_of
from garnish.engine.passes import Pass, Wanted, plan_passes
from garnish.engine.trunk_start import TrunkState, check_start
from garnish.errors import OptionError, suggest
from garnish.heads.head import Head
from garnish.model.decoders import Decoders, Outputs, decode, heads_by_task, make_decoders, needed
from garnish.model.prediction import Picture, Prediction
from garnish.model.served import Addition, Served
from garnish.tasks.task import Task

#: Held while tasks come or go, in whichever model; passes do not wait for it.
_CHANGING = threading.Lock()


@checked
def adapt(
    backbone: Backbone,
    method: Method | Sequence[Method],
    tasks: Mapping[str, Task],
    head: Head | Mapping[str, Head] | None = None,
) -> Model:
    """Put adapters into a backbone and a head on it for each task.

    Args:
        backbone: a fresh trunk of :func:`garnish.backbone`; the model takes it over.
        method: how to adapt it; several are combined at their sites in the order given.
        tasks: name → task.
        head: one head for all tasks, or one a task by name; ``LinearHead()`` when left out.

    Raises:
        SiteError: a plan that does not fit the backbone. OptionError: tasks or heads that do not fit each other.
    """
    if backbone.is_adapted:
        raise OptionError(
            f"{backbone.name} is adapted already; build a fresh one with garnish.backbone, or use model.add"
        )
    model = Model(backbone)
    model.add(method, tasks, head)
    return model


class Model(nn.Module):
    """Backbone, adapters and heads. Make one with :func:`adapt` or :func:`garnish.load`.

    Any number of threads may run one model at once, also while tasks are added and removed: a pass sees those that were
    there when it began. Its mode and device must not change meanwhile.

    Attributes:
        backbone: the frozen trunk with its adapters.
        decoders: the tasks' heads.
        served: its tasks with their owners and decoders, at this moment; replaced as a whole when tasks come or go.
        frozen_tasks: tasks that are kept as they are while others train.
    """

    @checked
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoders = Decoders()
        self.frozen_tasks: set[str] = set()
        self.served = Served({}, {}, {})
        self._compiled: CompiledTrunk | None = None
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
        """Who owns which adapters, in the order they were added, each before the parts that its tasks own."""
        return owners_of(self.backbone)

    # ---- building -----------------------------------------------------------------------------------------------

    @checked
    def add(
        self,
        method: Method | Sequence[Method],
        tasks: Mapping[str, Task],
        head: Head | Mapping[str, Head] | None = None,
        *,
        freeze_others: bool = False,
    ) -> None:
        """Add tasks, with adapters of their own beside those that are there.

        Args:
            method: as for :func:`adapt`.
            tasks: name → task; no name may be taken.
            head: as for :func:`adapt`.
            freeze_others: keep every earlier task exactly as it is from now on.
        """
        methods = (method,) if isinstance(method, Method) else tuple(method)
        if not methods:
            raise OptionError("method is an empty list; name one, or garnish.Frozen() to train the heads alone")
        per_task = {m.per_task for m in methods}
        if len(per_task) > 1:
            raise OptionError("methods of one list must all be shared or all be per_task")
        names = tuple(tasks)
        owners = [(methods, own) for own in ([(n,) for n in names] if True in per_task else [names])]
        earlier = tuple(self.tasks)
        self.serve(self.build(owners, tasks, heads_by_task(head, tasks)))
        if freeze_others:
            self._freeze(earlier)

    def build(
        self,
        owners: Sequence[tuple[Sequence[Method], tuple[str, ...]]],
        tasks: Mapping[str, Task],
        heads: Mapping[str, Head],
        groups: Sequence[Sequence[str]] | None = None,
    ) -> Addition:
        """Make tasks of several owners, as a bundle lists them; :meth:`serve` adds them.

        Args:
            owners: the methods and the tasks of each.
            tasks: name → task; no name may be taken.
            heads: name → options of its head.
            groups: which tasks share a joint head; left out, those that name equal options.
        """
        self.served.check_new(tasks)
        decoders = make_decoders(self.backbone, tasks, heads, groups)
        made = tuple(make_owner(self.backbone, methods, own) for methods, own in owners)
        found = Addition(dict(tasks), made, decoders)
        like: Tensor = self.mean  # type: ignore[assignment]
        for module in found.modules():
            if any((t.device, t.dtype) != (like.device, like.dtype) for t in module.parameters()):
                module.to(like.device, like.dtype)  # which fake tensors refuse, also where there is nothing to do
            module.requires_grad_(True).train(self.training)
        return found

    def serve(self, addition: Addition) -> None:
        """Add what :meth:`build` made, all of it at once for passes that run meanwhile."""
        with _CHANGING:
            self.served.check_new(addition.tasks)
            place_all(self.backbone, addition.owners)
            self.decoders.add(addition.decoders)
            if self._compiled is not None:
                for decoder in dict.fromkeys(addition.decoders.values()):
                    decoder.module.compile(**self._compiled.options)
            self.served = self.served.plus(addition)
        if self.training:
            self.train()  # dropout of the trunk's own is a matter of all that trains

    @checked
    def remove(self, tasks: Sequence[str]) -> None:
        """Forget tasks with their heads and adapters; passes that are under way end as they began.

        Args:
            tasks: names; all that share an owner's adapters, or a decoder, are named together.

        Raises:
            OptionError: an unknown task, or one that shares with another that would be left; nothing is removed then.
        """
        with _CHANGING:
            left, gone = self.served.minus(tasks)
            self.served = left
            self.decoders.remove(tasks)
            for owner in gone:
                detach(self.backbone, owner)
            self.frozen_tasks.difference_update(tasks)
        if self.training:
            self.train()  # paths of the trunk dropped for those that are gone, perhaps for nobody else

    @checked
    def freeze(self, tasks: Sequence[str]) -> None:
        """Keep these tasks' heads as they are, and the adapters of owners all of whose tasks are frozen.

        A warning names a frozen task whose outputs go on changing because others train the adapters it shares.

        Raises:
            OptionError: an unknown task.
        """
        for name in tasks:
            if name not in self.tasks:
                raise OptionError(f"freeze: unknown task {name!r}{suggest(name, self.tasks)}")
        frozen = self.frozen_tasks.union(tasks)
        adapters = [owner.tasks for owner in self.owners if any(True for _ in owner.named_trained())]
        shared = [("adapters", "adapt with per_task=True", names) for names in adapters]
        shared += [("decoder", "give each a head of its own", names) for names, _ in self.decoders.each()]
        for what, otherwise, names in shared:
            kept = [name for name in names if name in frozen]
            rest = [name for name in names if name not in frozen]
            if kept and rest:
                warnings.warn(
                    f"freeze: the {what} that {', '.join(kept)} shares with {', '.join(rest)} go on training, so its"
                    f" outputs still change; freeze {', '.join(names)} together, or {otherwise}",
                    stacklevel=3,  # its caller stands behind the check of types
                )
        self._freeze(tasks)

    def _freeze(self, tasks: Iterable[str]) -> None:
        changed = set(tasks) - self.frozen_tasks
        self.frozen_tasks |= changed
        for names, module in (*((owner.tasks, owner) for owner in self.owners), *self.decoders.each()):
            if not changed.isdisjoint(names):  # what is set on others by hand stays
                module.requires_grad_(not self.frozen_tasks.issuperset(names))
        self.train(self.training)

    def train(self, mode: bool = True) -> Model:
        """Training mode for what is trained; the frozen trunk and frozen tasks stay in evaluation mode.

        What is frozen is never put into training mode, for a moment neither: batch norms would take over the statistics
        of a pass that another thread runs.
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

    # ---- running ------------------------------------------------------------------------------------------------

    def forward(
        self,
        images: Tensor,
        tasks: Sequence[str] | Sequence[Sequence[str]] | None = None,
        start: TrunkState | None = None,
        served: Served | None = None,
    ) -> dict[str, Tensor]:
        """Run all tasks, some, or other ones for each picture, in as few passes as can be.

        Args:
            images: (I, 3, H, W) float in [0, 1], or uint8 in 0 … 255; any H and W from 1.
            tasks: None: all; ``["depth"]``: some; ``[["seg"], ["depth"], ["seg", "depth"]]``: picture by picture.
            start: what the bare trunk made of these pictures (:mod:`garnish.model.pass_start`); passes go on there.
            served: what the model served at an earlier moment (:attr:`served`); what it serves now when left out.

        Returns:
            Task name → (n, C, H, W) raw output for the n pictures that asked for it, in picture order.
        """
        check_images(images)
        now, size = served or self.served, (images.shape[-2], images.shape[-1])
        asked = Wanted.of(tasks, images.shape[0], now.tasks)
        wanted = asked.with_needed(lambda names: needed(now.decoders, names))
        x = self.prepare(images) if start is None else images
        outputs = Outputs(now.decoders, self.backbone, size)
        for step in plan_passes(wanted, now.owner_of, self.backbone.body, x.device, whole=self.is_compiled):
            outputs.read(self._run(step, x, start))
        found = outputs.all()
        return {task: pick(found[task], wanted.rows_for(task, asked, x.device)) for task in asked.tasks}

    def _run(self, step: Pass, x: Tensor, start: TrunkState | None) -> Maps:
        """The feature maps of one pass through the trunk."""
        taken = pick(x, step.images)
        begun = None if start is None else start.pick(step.images)
        if begun is not None:
            check_start(self.backbone, taken, begun, step.present, training=self.training, compiled=self.is_compiled)
        if self._compiled is not None:
            found = self._compiled(taken, step)
        else:
            found = self.backbone(taken, step.present, step.rows, unread=True, start=begun)
        forked = len(found) if step.rows is None else first_forked(self.backbone, step.present)
        return Maps(found, forked, step.tasks)

    def prepare(self, images: Tensor) -> Tensor:
        """Normalise, and pad right and bottom with the mean colour to the backbone's multiple."""
        check_images(images)
        return prepared(images, self.mean, self.std, self.backbone.multiple)  # type: ignore[arg-type]

    def decode(self, maps: Mapping[str, Sequence[Tensor]], size: tuple[int, int]) -> dict[str, Tensor]:
        """Feature maps of each task → its raw output: see :func:`garnish.model.decoders.decode`."""
        return decode(self.decoders.by_task, maps, self.backbone, size)

    def compile(self, **options: Any) -> None:
        """Compile the adapted backbone and the heads apart; one graph then serves every mix of tasks.

        ``options`` go to ``torch.compile`` (``backend``, ``mode``, …).
        """
        self._compiled = CompiledTrunk(self.backbone, options)
        for _, module in self.decoders.each():
            module.compile(**options)

    @property
    def is_compiled(self) -> bool:
        """Whether :meth:`compile` was called."""
        return self._compiled is not None

    # ---- what it has ----------------------------------------------------------------------------------------

    @checked
    def owner_of(self, task: str) -> Owner:
        """The owner whose adapters a task uses: its own part, where it has one."""
        return self.served.owner(task)

    @checked
    def head(self, task: str) -> nn.Module:
        """The decoder of one task, which others may share."""
        return self.decoders.of(task).module

    @checked
    def head_tensors(self, task: str) -> dict[str, Tensor]:
        """The parameters and buffers (running statistics) of a task's decoder by stored name."""
        return self.decoders.tensors(task)

    def own_tensors(self) -> dict[str, Tensor]:
        """Everything that a bundle or a checkpoint of this model holds, by stored name."""
        found: dict[str, Tensor] = {}
        for owner in self.owners:
            found.update(owner.tensors())
        for task in self.tasks:
            found.update(self.head_tensors(task))
        return found

    def all_tensors(self) -> dict[str, Tensor]:
        """Those of the bare trunk, :meth:`own_tensors`, and what pictures are normalised by, by name."""
        return self.backbone.frozen_tensors() | self.own_tensors() | dict(self.named_buffers(recurse=False))

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What an optimizer should get, by stored name."""
        return {n: t for n, t in self.own_tensors().items() if isinstance(t, nn.Parameter) and t.requires_grad}

    @property
    def device(self) -> torch.device:
        """Where the model's tensors are."""
        mean: Tensor = self.mean  # type: ignore[assignment]
        return mean.device

    def check_sites(self) -> None:
        """One probe pass through all wrappers; raises :class:`SiteError` where one does not fire exactly once."""
        side = 2 * self.backbone.multiple
        probe = self.prepare(torch.rand(1, 3, side, side, device=self.device))
        check_sites(self.backbone, probe)

    # ---- what lies above a model is loaded when it is asked for ---------------------------------------------------

    @checked
    def predict(self, picture: Picture, tasks: Sequence[str] | None = None) -> Prediction:
        """Every task (or some) of one picture, at its own size, in one pass: see :mod:`garnish.model.predict`."""
        from garnish.model.predict import predict

        return predict(self, picture, tasks)

    @checked
    def report(self, size: tuple[int, int] | None = None) -> dict[str, Any]:
        """Parameters of encoder and heads apart, bytes, MACs: see :func:`garnish.model.report.report`."""
        from garnish.model.report import report

        return report(self, size)

    def __repr__(self) -> str:
        from garnish.model.report import describe_model

        return describe_model(self)

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write a bundle: see :func:`garnish.bundles.bundle.save`."""
        from garnish import save

        return save(self, path, **options)  # type: ignore[no-any-return]

    @checked
    def load(self, path: str | Path) -> tuple[str, ...]:
        """Add the tasks of a bundle beside those that are there, and return their names.

        Passes may run meanwhile. See :func:`garnish.bundles.bundle.load_into`.
        """
        from garnish.bundles.bundle import load_into

        return load_into(self, path)
