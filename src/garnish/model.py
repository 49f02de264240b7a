"""``Model``: one frozen backbone, the adapters of its owners, a head a task; pictures in, ``{task: tensor}`` out.

Shape letters: I pictures, n pictures that want a task, H W pixels, C channels.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.adapters.adapted import adapters_of, attach, check_sites
from garnish.adapters.adapter import Method
from garnish.backbones.backbone import Backbone
from garnish.backbones.drop_path import let_paths_drop
from garnish.backbones.prefix import TrunkState
from garnish.backbones.taps import read_maps
from garnish.checked import checked
from garnish.compiled import CompiledTrunk
from garnish.decoders import Decoders, heads_by_task
from garnish.errors import OptionError, suggest
from garnish.heads.head import Head
from garnish.owner import Owner
from garnish.predict import Picture, Prediction, check_images, predict
from garnish.report import describe_model, report
from garnish.rows import pick, plan_passes, rows_asked_for, wanted_by_image
from garnish.tasks.task import Task
from garnish.trunk_prefix import check_start

#: Last unit of the trunk's loop in its first block (0: stem, 1: the first stage's entrance, then two residuals).
FIRST_BLOCK = 3


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

    Any number of threads may run one model at once, as long as none changes its tasks, mode or device meanwhile.

    Attributes:
        backbone: the frozen trunk with its adapters.
        tasks: name → task, in the order they were added.
        decoders: the tasks' heads.
        owners: who owns which adapters; a task belongs to exactly one.
        frozen_tasks: tasks that are kept as they are while others train.
    """

    @checked
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.tasks: dict[str, Task] = {}
        self.decoders = Decoders()
        self.owners: list[Owner] = []
        self.frozen_tasks: set[str] = set()
        self._compiled: CompiledTrunk | None = None
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

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
        if freeze_others:
            self.frozen_tasks.update(self.tasks)
        self.restore(owners, tasks, heads_by_task(head, tasks))

    def restore(
        self,
        owners: Sequence[tuple[Sequence[Method], tuple[str, ...]]],
        tasks: Mapping[str, Task],
        heads: Mapping[str, Head],
        groups: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Add tasks of several owners, as a bundle lists them.

        Args:
            owners: the methods and the tasks of each.
            tasks: name → task; no name may be taken.
            heads: name → options of its head.
            groups: which tasks share a joint head; left out, those that name equal options.
        """
        if not tasks:
            raise OptionError("tasks is empty; name at least one, e.g. tasks={'seg': garnish.Semantic(classes=11)}")
        for name in tasks:
            if name in self.tasks:
                raise OptionError(f"task {name!r} is there already; give the new one another name")
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
                raise OptionError(f"task name {name!r}: use letters, digits, '-' and '_', a letter first")
        self.decoders.add(self.backbone, tasks, heads, groups)
        self.tasks |= tasks
        for methods, own in owners:
            parts = attach(self.backbone, len(self.owners), methods, own)
            self.owners.append(Owner(own, tuple(methods)))
            self.owners.extend(Owner((task,), tuple(methods), shared=own) for task in parts)
        device = next(iter(self.backbone.frozen_tensors().values())).device
        if any(tensor.device != device for tensor in (*self.parameters(), *self.buffers())):
            self.to(device)
        self._set_trainable()
        self.train(self.training)

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
        self.frozen_tasks.update(tasks)
        adapters = [
            owner.tasks for number, owner in enumerate(self.owners) if any(True for _ in self._of_owner(number))
        ]
        shared = [("adapters", "adapt with per_task=True", names) for names in adapters]
        shared += [("decoder", "give each a head of its own", names) for names, _ in self.decoders.each()]
        for what, otherwise, names in shared:
            kept = [name for name in names if name in self.frozen_tasks]
            rest = [name for name in names if name not in self.frozen_tasks]
            if kept and rest:
                warnings.warn(
                    f"freeze: the {what} that {', '.join(kept)} shares with {', '.join(rest)} go on training, so its"
                    f" outputs still change; freeze {', '.join(names)} together, or {otherwise}",
                    stacklevel=3,  # its caller stands behind the check of types
                )
        self._set_trainable()
        self.train(self.training)

    def _set_trainable(self) -> None:
        self.backbone.requires_grad_(False)
        for number, owner in enumerate(self.owners):
            trained = not self.frozen_tasks.issuperset(owner.tasks)
            for _, parameter in self._of_owner(number):
                parameter.requires_grad_(trained)
        for names, module in self.decoders.each():
            module.requires_grad_(not self.frozen_tasks.issuperset(names))

    def train(self, mode: bool = True) -> Model:
        """Training mode for what is trained; the frozen trunk and frozen tasks stay in evaluation mode."""
        super().train(mode)
        trained = [not self.frozen_tasks.issuperset(owner.tasks) for owner in self.owners]
        self.backbone.train(False)
        for number in self.backbone.tuned.drops:
            self.backbone.let_drop(number, mode and trained[number])
        let_paths_drop(self.backbone, [number for number, own in enumerate(trained) if mode and own])
        for number in range(len(self.owners)):
            for _, _, adapter in adapters_of(self.backbone, number):
                adapter.train(mode and trained[number])
            for _, module in self._modules_of(number):
                module.train(mode and trained[number])
        for names, module in self.decoders.each():
            if self.frozen_tasks.issuperset(names):
                module.eval()
        return self

    # ---- running ------------------------------------------------------------------------------------------------

    def forward(
        self,
        images: Tensor,
        tasks: Sequence[str] | Sequence[Sequence[str]] | None = None,
        start: TrunkState | None = None,
    ) -> dict[str, Tensor]:
        """Run all tasks, some, or other ones for each picture, in as few passes as can be.

        Args:
            images: (I, 3, H, W) float in [0, 1], or uint8 in 0 … 255; any H and W from 1.
            tasks: None: all; ``["depth"]``: some; ``[["seg"], ["depth"], ["seg", "depth"]]``: picture by picture.
            start: what the bare trunk made of these pictures (:func:`garnish.trunk_prefix.begin`); passes go on there.

        Returns:
            Task name → (n, C, H, W) raw output for the n pictures that asked for it, in picture order.
        """
        check_images(images)
        asked = wanted_by_image(tasks, images.shape[0], tuple(self.tasks))
        wanted = [self.decoders.needed(names) for names in asked]
        # a task's own part comes after the owner that it is a part of, and takes its place
        owner_of = {t: number for number, owner in enumerate(self.owners) for t in owner.tasks}
        size = (images.shape[-2], images.shape[-1])
        x = self.prepare(images) if start is None else images
        done: dict[str, Tensor] = {}
        waiting: dict[str, list[Tensor]] = {}
        for step in plan_passes(wanted, owner_of, self._groups(), x.device, whole=self._compiled is not None):
            taken = pick(x, step.images)
            begun = None if start is None else start.pick(step.images)
            if begun is not None:
                check_start(self, taken, begun, step.present)
            if self._compiled is not None:
                maps = self._compiled(taken, step)
            else:
                rows = (step.row_images, step.row_owners, step.present, step.counts)
                maps = self.backbone(taken, *rows, unread=True, start=begun)
            forked = self.backbone.first_forked_of(step.present) if step.row_images is not None else len(maps)
            for names in self.decoders.turns(step.tasks, owner_of):
                read = read_maps(maps, {name: step.tasks[name] for name in names}, forked, owner_of[names[0]])
                if self.decoders.interacts(names[0]):
                    waiting |= read
                else:
                    done |= self.decode(read, size)
        done |= self.decode(waiting, size)
        mine = [name for name in self.tasks if any(name in names for names in asked)]
        return {name: pick(done[name], rows_asked_for(name, wanted, asked, x.device)) for name in mine}

    def _groups(self) -> dict[int, int]:
        """Owner → group; owners of a group share a pass of the trunk. Only owners that tasks use are named.

        Owners that tune the trunk in place, carry prompts or have task streams take a pass of their own, with all
        their parts; side networks share one, on the bare trunk. Of the rest, those that adapt the trunk from its first
        block share nothing worth a joint pass: on a CPU, rows forked there took 0.91 of a pass an owner at 224 pixels
        and 1.01 at 448, rows forked in the second block 0.83 and 0.93 (docs/benchmarks.md, "One pass"). They are joined
        in compiled models only, where one graph must serve every mix.
        """
        trunk = self.backbone
        used = [n for n in range(len(self.owners)) if n not in trunk.parents.values()]
        apart = trunk.tuned.owners() | frozenset(trunk.prompts)
        apart |= {trunk.parents[part] for part in trunk.streamed}
        groups: dict[int, int] = {}
        for number in used:
            owner = trunk.parents.get(number, number)
            groups[number] = owner if owner in apart else -2 if number in trunk.sides else -1
            fork = trunk.fork_of((number,))
            if groups[number] == -1 and self._compiled is None and fork is not None and fork <= FIRST_BLOCK:
                groups[number] = number
        return groups

    def prepare(self, images: Tensor) -> Tensor:
        """Normalise, and pad right and bottom with the mean colour to the backbone's multiple."""
        check_images(images)
        own = self.mean.dtype  # of float64 and float16 models too
        images = images.to(own) / 255 if images.dtype == torch.uint8 else images.to(own)  # type: ignore[arg-type]
        x = (images - self.mean) / self.std  # type: ignore[operator]
        multiple = self.backbone.multiple
        return F.pad(x, (0, -x.shape[-1] % multiple, 0, -x.shape[-2] % multiple))

    def decode(self, maps: Mapping[str, Sequence[Tensor]], size: tuple[int, int]) -> dict[str, Tensor]:
        """Feature maps of each task → its raw output: see :meth:`garnish.decoders.Decoders.decode`."""
        return self.decoders.decode(maps, self.backbone, size)

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

    @checked
    def predict(self, picture: Picture, tasks: Sequence[str] | None = None) -> Prediction:
        """Every task (or some) of one picture, at its own size, in one pass: see :func:`garnish.predict.predict`."""
        return predict(self, picture, tasks)

    # ---- what is trained ----------------------------------------------------------------------------------------

    @checked
    def head(self, task: str) -> nn.Module:
        """The decoder of one task, which others may share."""
        return self.decoders.of(task)

    def _of_owner(self, number: int) -> Iterator[tuple[str, nn.Parameter]]:
        name = self.owners[number].name
        for site, level, adapter in adapters_of(self.backbone, number):
            for leaf, parameter in adapter.named_parameters():
                yield f"adapters.{name}.{site}.{level}.{leaf}", parameter
        for leaf, parameter in self.backbone.tuned.of(number):
            yield f"tuned.{name}.{leaf}", parameter
        for kind, module in self._modules_of(number):
            for leaf, parameter in module.named_parameters():
                yield f"{kind}.{name}.{leaf}", parameter

    def _modules_of(self, number: int) -> Iterator[tuple[str, nn.Module]]:
        """An owner's side network and shared module, by the kind that names their tensors."""
        if number in self.backbone.sides:
            yield "side", self.backbone.side(number)
        shared = self.backbone.shared(number)
        if shared is not None:
            yield "shared", shared

    def encoder_tensors(self, owner: int) -> dict[str, Tensor]:
        """One owner's adapter tensors (buffers included) and tuned parameters by stored name."""
        name = self.owners[owner].name
        found: dict[str, Tensor] = dict(self._of_owner(owner))
        for site, level, adapter in adapters_of(self.backbone, owner):
            found.update({f"adapters.{name}.{site}.{level}.{leaf}": b for leaf, b in adapter.named_buffers()})
        for kind, module in self._modules_of(owner):
            found.update({f"{kind}.{name}.{leaf}": b for leaf, b in module.named_buffers()})
        return found

    @checked
    def head_tensors(self, task: str) -> dict[str, Tensor]:
        """The parameters and buffers (running statistics) of a task's decoder by stored name."""
        return self.decoders.tensors(task)

    def own_tensors(self) -> dict[str, Tensor]:
        """Everything that a bundle or a checkpoint of this model holds, by stored name."""
        found: dict[str, Tensor] = {}
        for number in range(len(self.owners)):
            found.update(self.encoder_tensors(number))
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

    # ---- telling ------------------------------------------------------------------------------------------------

    @checked
    def report(self, size: tuple[int, int] | None = None) -> dict[str, Any]:
        """Parameters of encoder and heads apart, bytes, MACs: see :func:`garnish.report.report`."""
        return report(self, size)

    def __repr__(self) -> str:
        return describe_model(self)

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write a bundle: see :func:`garnish.bundles.bundle.save`."""
        from garnish import save  # a bundle is made of a model, so the bundle's room is loaded when it is asked for

        return save(self, path, **options)  # type: ignore[no-any-return]
