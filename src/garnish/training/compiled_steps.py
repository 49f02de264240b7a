"""Training through ``torch.compile``: the warm-up before the first step, and the way back where compiling fails."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Collection
from contextlib import nullcontext
from typing import final

import torch
from lightning.fabric import Fabric

from garnish.data.dataset import Batch
from garnish.errors import GarnishError, OptionError, one_line
from garnish.model.compiled_passes import CompiledPasses
from garnish.model.decoders import needed
from garnish.training.progress import Progress
from garnish.training.step import TrainingStep
from garnish.training.step_losses import only
from garnish.training.undone_step import BegunStep

#: What compiles the graphs, as ``torch.compile`` names it.
BACKEND = "inductor"
#: Modules of torch that an error in a compiled pass was raised through.
_COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch")


@final
class CompiledSteps:
    """The compiled forward passes of a run's steps, with their gradients; evaluation runs the model plain.

    Args:
        step: what is compiled, if its options ask for it.
        begun: undoes what a pass changed.
        fabric: the processes, all of which run compiled or none.
        progress: where lines are printed; its speed leaves the warm-up out.
        warn: records a warning and prints it.

    Raises:
        OptionError: the model is compiled already. Its own passes would not do: see :meth:`leave_out_unasked`, and
            :meth:`garnish.training.gradients.GradientWatch.judges`.
    """

    def __init__(
        self,
        step: TrainingStep,
        begun: BegunStep,
        fabric: Fabric,
        progress: Progress,
        warn: Callable[[str], None],
    ) -> None:
        self._step, self._begun, self._fabric, self._progress, self._warn = step, begun, fabric, progress, warn
        if step.model.is_compiled:
            raise OptionError(
                "train: the model is compiled already, and its graphs cannot train it; train an uncompiled one with"
                " compile=true (train.compile), which compiles the steps"
            )
        self._waits = step.options.compile
        self._passes: CompiledPasses | None = None

    def warm_up(self, batch: Batch) -> None:
        """Run a step on the run's first labelled batch to compile it, and undo it; to call in a begun step, unseeded.

        Any failure leaves the run uncompiled, with a warning; in all processes if in one.
        """
        several, labelled = self._fabric.world_size > 1, bool(only(batch, self._step.tasks).targets)
        if not self._waits or not (labelled or several):
            return
        self._waits = False
        self._progress.say("compiling trunk and heads before the first step, which may take minutes …")
        start, fault = time.perf_counter(), ""
        try:
            self._passes = CompiledPasses(self._step.model, backend=BACKEND)
            self._step.passes = self._passes.used
            if labelled:
                self._try(batch)
        except GarnishError:
            raise
        except Exception as error:  # of whatever class: where compiling is not to blame, the plain step meets it again
            fault = _reason(error)
        if several:
            failed = torch.tensor(int(bool(fault)), device=self._fabric.device)
            if int(self._fabric.all_reduce(failed, reduce_op="max")) and not fault:
                fault = "it failed in another process"
        self._undo()
        if fault:
            self._stop(fault)
        else:
            self._progress.say(f"compiled in {time.perf_counter() - start:.0f} s")
        self._progress.paused()

    def give_up(self, error: Exception) -> bool:
        """After an error in a step that is of a compiled pass: undo the step, and go on uncompiled, with a warning.

        Returns:
            Whether the step is to be done again.

        Raises:
            GarnishError: it is, but there are several processes, of which the others cannot do their step again.
        """
        if self._passes is None or isinstance(error, GarnishError) or not _is_of_compiler(error):
            return False
        if self._fabric.world_size > 1:
            raise GarnishError(
                f"train.compile: {_reason(error)}; with several processes a step cannot be done again, so resume the"
                " run with compile=false"
            ) from error
        self._undo()
        self._stop(_reason(error))
        return True

    def leave_out_unasked(self, tasks: Collection[str]) -> None:
        """Remove gradients of what only other tasks train, so that the optimizer passes it over as in plain steps.

        One graph serves every mix, and gives zeros to adapters whose task no picture asked for; AdamW would decay them.
        Call after the backward passes of a step whose losses were those of ``tasks``.
        """
        if self._passes is None:
            return
        model = self._step.model
        used = set(needed(model.decoders.by_task, tasks))
        kept = {name for task in tasks for name in model.decoders.reached_by(task)}
        kept |= {name for owner in model.owners if used.intersection(owner.tasks) for name in owner.tensors()}
        for name, parameter in self._step.trained.items():
            if name not in kept and not name.startswith("balance."):
                parameter.grad = None

    def _try(self, batch: Batch) -> None:
        with warnings.catch_warnings():
            # torch's own, while it traces a head's input
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            losses = self._step.own_losses(self._step.outputs(batch), batch)
            self._step.backward(torch.stack(list(losses.values())).sum())
        if self._fabric.device.type == "cuda":
            torch.cuda.synchronize(self._fabric.device)  # an error of a kernel is raised here, not in a later step

    def _undo(self) -> None:
        self._begun.undo()
        self._step.optimizer.zero_grad(set_to_none=True)

    def _stop(self, reason: str) -> None:
        self._passes, self._step.passes = None, nullcontext
        self._warn(f"train.compile: {reason}; the run goes on uncompiled")


def _reason(error: Exception) -> str:
    return f"compiling failed ({type(error).__name__}: {one_line(error, 300)})"


def _is_of_compiler(error: Exception) -> bool:
    """Whether an error was raised within a compiled pass, while compiling or running it."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(str(frame.f_globals.get("__name__", "")).startswith(_COMPILERS) for frame, _ in frames)
