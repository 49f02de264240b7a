"""One training step, shared by training and by everything that measures or predicts its cost.

:func:`garnish.training.fit.fit` runs it part by part and checks the values in between; measurements run it as a whole.
No tensor value is read in here, so that it also works with fake tensors, which have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import final

from lightning.fabric import Fabric
from lightning.fabric.plugins import Precision
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from garnish.balancing.balancing import Balance
from garnish.data.dataset import Batch
from garnish.model.model import Model
from garnish.tasks.task import Task
from garnish.training.gradients import reduce_gradients
from garnish.training.optimizer import make_optimizer
from garnish.training.step_losses import MultiTaskLoss, StepLosses, only
from garnish.training.train_options import TrainOptions


@final
class TrainingStep:
    """Forward pass, losses, backward pass, clipping and AdamW.

    Args:
        model: on its device, in training mode.
        tasks: its trained tasks.
        balance: combines their losses into one, on the same device.
        options: rates, decay and largest gradient norm.
        fabric: processes and precision; None: this process alone, in float32.

    Attributes:
        trained: the optimizer's parameters by stored name; those of the balance as ``balance.…``.
        optimizer: AdamW over ``trained``.
        precision: of the passes, with the scaler of float16.
        passes: makes the context in which the model's forward pass runs (compiled, say).
    """

    def __init__(
        self,
        model: Model,
        tasks: Mapping[str, Task],
        balance: Balance,
        options: TrainOptions,
        fabric: Fabric | None = None,
    ) -> None:
        self.model, self.tasks, self.balance, self.options, self.fabric = model, tasks, balance, options, fabric
        self.precision: Precision = Precision() if fabric is None else fabric.strategy.precision
        self.passes: Callable[[], AbstractContextManager[object]] = nullcontext
        self.trained = model.trained_parameters() | {f"balance.{n}": p for n, p in balance.named_parameters()}
        self.optimizer = make_optimizer(self.trained, options)
        self._losses_of = MultiTaskLoss(tasks, fabric)
        kept = self.buffers().items()
        self._statistics = [t for n, t in kept if t.is_floating_point() and not n.startswith("balance.")]
        # all tensors in one call, which torch does by default only for real tensors on a GPU
        self._at_once = True if model.device.type in ("cpu", "cuda") else None

    def buffers(self) -> dict[str, Tensor]:
        """The buffers that steps change (running statistics of heads and adapters), named as ``trained``."""
        balance = {f"balance.{n}": t for n, t in self.balance.state_dict(keep_vars=True).items()}
        kept = self.model.own_tensors() | balance
        return {name: tensor for name, tensor in kept.items() if not isinstance(tensor, nn.Parameter)}

    def __call__(self, batch: Batch) -> None:
        """Run a whole step on a batch on the model's device, with labels of ``tasks`` only."""
        outputs = self.outputs(batch)
        found = self.losses(outputs, batch)
        del outputs  # as in a run: what the backward pass needs of them it keeps itself
        self.backward(self.balance(found.losses))
        self.exchange_gradients()
        self.update(self.norm())

    def outputs(self, batch: Batch, *, plain: bool = False) -> dict[str, Tensor]:
        """Forward pass: task → (n, C, H, W) raw output for the n pictures that have labels of it.

        ``plain``: without ``passes``.
        """
        with nullcontext() if plain else self.passes(), self.precision.forward_context():
            outputs: dict[str, Tensor] = self.model(batch.images, batch.tasks_of_rows(), batch.start)
        return outputs

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch, stop: bool = False) -> StepLosses:
        """Each task's loss over the labels of all processes; ``stop``: this process wants to stop."""
        return self._losses_of(outputs, batch, stop)

    def own_losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Each task's loss over this process's labels alone, without any exchange."""
        return self._losses_of.own(outputs, batch)

    def loss_alone(self, task: str, batch: Batch) -> Tensor:
        """() loss of one task over this process's labels, from a pass for that task alone."""
        alone = only(batch, {task: self.tasks[task]})
        return self.own_losses(self.outputs(alone), alone)[task]

    def backward(self, loss: Tensor) -> None:
        """Accumulate a loss's gradients; does nothing if it depends on no trained tensor."""
        if loss.requires_grad:
            self.precision.backward(loss, None)

    def exchange_gradients(self) -> None:
        """Sum gradients over processes, except the balance's, which are already equal in all of them."""
        if self.fabric is not None:
            own = [p for n, p in self.trained.items() if not n.startswith("balance.")]
            reduce_gradients(own, self._statistics, self.fabric)

    def norm(self) -> Tensor | None:
        """() norm of all gradients together, after unscaling them from float16's scale; None without a limit."""
        if self.options.clip is None:
            return None
        self.precision.unscale_gradients(self.optimizer)
        return get_total_norm([p.grad for p in self.trained.values() if p.grad is not None], foreach=self._at_once)

    def update(self, norm: Tensor | None) -> None:
        """Clip the gradients, whose total norm is ``norm``, then take an AdamW step and clear the gradients."""
        if norm is not None and self.options.clip is not None:
            clip_grads_with_norm_(self.trained.values(), self.options.clip, norm, foreach=self._at_once)
        self.precision.optimizer_step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
