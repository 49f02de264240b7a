"""Base of ``Model``: its tensors by stored name: what a bundle holds, what an optimizer takes, what a loop keeps."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from garnish.checking.arguments import checked
from garnish.checking.bounds import Rate, Weight
from garnish.engine.owner import Owner
from garnish.errors import BundleError
from garnish.model.adapted_trunk import AdaptedTrunk
from garnish.model.parameter_groups import ParameterGroup, parameter_groups
from garnish.model.trained_state import TRUNK, check_nesting, check_state, check_trunk, trunk_mark, write_state
from garnish.pictures.bands import Bands


class TrainedTensors(AdaptedTrunk, ABC):
    """The parts of a model by task, and their tensors by stored name."""

    @checked
    def owner_of(self, task: str) -> Owner:
        """The owner whose adapters a task uses: the task's own part if it has one."""
        return self.served.owner(task)

    @checked
    def bands_of(self, task: str) -> Bands:
        """The bands of the pictures that a task takes."""
        return self.served.owner(task).bands

    @checked
    def head(self, task: str) -> nn.Module:
        """The decoder of a task, which other tasks may share."""
        return self.decoders.of(task).module

    @checked
    def head_tensors(self, task: str) -> dict[str, Tensor]:
        """The parameters and buffers (running statistics) of a task's decoder by stored name."""
        return self.decoders.tensors(task)

    def own_tensors(self) -> dict[str, Tensor]:
        """All tensors that a bundle or a checkpoint of this model holds, by stored name."""
        found: dict[str, Tensor] = {}
        for owner in self.owners:
            found.update(owner.tensors())
        for task in self.tasks:
            found.update(self.head_tensors(task))
        return found

    def all_tensors(self) -> dict[str, Tensor]:
        """The bare trunk's tensors, :meth:`own_tensors`, and the mean and std of the input, by name."""
        return self.backbone.frozen_tensors() | self.own_tensors() | dict(self.named_buffers(recurse=False))

    @property
    def device(self) -> torch.device:
        """The device of the model's tensors."""
        mean: Tensor = self.mean  # type: ignore[assignment]
        return mean.device

    # ---- for a loop of one's own ----------------------------------------------------------------------------------

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters to give to an optimizer, by stored name."""
        return {n: t for n, t in self.own_tensors().items() if isinstance(t, nn.Parameter) and t.requires_grad}

    @checked
    def parameter_groups(
        self, *, lr: Rate = 1e-3, head_lr: Rate | None = None, weight_decay: Weight = 0.05
    ) -> list[ParameterGroup]:
        """The trained parameters in the groups that :func:`garnish.fit` gives to AdamW, for an optimizer of your own.

        Adapters, tuned backbone parameters and heads; what is frozen is left out. Of a decoder of your own add a group:
        ``[*model.parameter_groups(), {"params": decoder.parameters()}]``.

        Args:
            lr: rate of adapters and tuned backbone parameters.
            head_lr: rate of heads; None: ``lr``.
            weight_decay: of tensors of two or more dimensions; biases, norms and scalars get 0.

        Returns:
            At most four dicts of ``params``, ``lr`` and ``weight_decay``; none without parameters.

        >>> import garnish as gn
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), {"depth": gn.Depth(max_metres=10)})
        >>> [(len(g["params"]), g["lr"], g["weight_decay"]) for g in model.parameter_groups(head_lr=1e-2)]
        [(80, 0.001, 0.05), (4, 0.01, 0.05), (9, 0.01, 0.0)]
        """
        return parameter_groups(self.trained_parameters(), lr=lr, head_lr=head_lr, weight_decay=weight_decay)

    def trained_state(self) -> dict[str, Tensor]:
        """Copies of all that training changes, by stored name: a small state dict for a checkpoint of your own.

        Trained parameters, and the buffers (running statistics) of adapters and heads whose tasks are not all frozen.
        The backbone is not among them, but its fingerprint is: ``backbone.fingerprint``, 32 floats. Plain tensors on
        their device, which ``torch.save`` writes and ``torch.load(..., weights_only=True)`` reads;
        :meth:`load_trained_state` takes them back.

        >>> import garnish as gn
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), {"depth": gn.Depth(max_metres=10)})
        >>> state = model.trained_state()
        >>> state.keys() - model.trained_parameters().keys()  # neither LoRA nor a linear head has buffers
        {'backbone.fingerprint'}
        >>> model.load_trained_state(state)
        """
        return {name: tensor.detach().clone() for name, tensor in self._changing().items()} | trunk_mark(self.backbone)

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy a :meth:`trained_state` into a model that was made alike; other devices and float types are converted.

        The backbones are held against each other where the state has its ``backbone.fingerprint`` and this trunk's
        tensors are float32 or float64; a state without one is taken as it is.

        Raises:
            BundleError: another backbone, a name that is missing or not trained here, another shape, whole numbers for
                floats, values that are not finite. Nothing is written then.
        """
        targets = self._changing()
        if isinstance(state, Mapping):
            check_nesting(state)
            check_trunk(state, self.backbone)
            state = {name: value for name, value in state.items() if name != TRUNK}
        write_state(targets, check_state(state, targets))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of any module: what :meth:`state_dict` gave, trunk and all; not what :meth:`trained_state` gave.

        Raises:
            BundleError: a state of :meth:`trained_state`, which :meth:`load_trained_state` takes.
        """
        names = state_dict.keys() if isinstance(state_dict, Mapping) else set()
        if not names.isdisjoint({TRUNK, *self._changing()}) and names.isdisjoint(self.state_dict()):
            raise BundleError("load_state_dict: these are names of trained_state(): use model.load_trained_state")
        return super().load_state_dict(state_dict, strict, assign)

    def _changing(self) -> dict[str, Tensor]:
        """The tensors of :meth:`trained_state`, themselves."""
        found: dict[str, Tensor] = {}
        for owner in self.owners:
            if not self.frozen_tasks.issuperset(owner.tasks):
                found.update(owner.tensors())
        for tasks, _ in self.decoders.each():
            if not self.frozen_tasks.issuperset(tasks):
                found.update(self.head_tensors(tasks[0]))
        return {n: t for n, t in found.items() if t.requires_grad or not isinstance(t, nn.Parameter)}
