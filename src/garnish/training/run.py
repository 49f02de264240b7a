"""A training run: everything that the loop works with, set up and checked before the first step."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn, final

from torch import Tensor

from garnish.balancing.balancing import Balance, balancing_of
from garnish.data.dataset import Batch, Dataset
from garnish.errors import LONGEST, GarnishError, one_line
from garnish.model.model import Model
from garnish.training.before_start import length_of, pictures_of_a_step, shortened, warnings_about
from garnish.training.compiled_steps import CompiledSteps
from garnish.training.evaluate import Metrics
from garnish.training.float16_effect import save_as_fits
from garnish.training.gradients import GradientWatch
from garnish.training.idle_options import Circumstances, refuse_endless_warmup, unheeded
from garnish.training.optimizer import odd_gradient
from garnish.training.placed import start_placed
from garnish.training.processes import agreed, check_data, make_fabric
from garnish.training.progress import Progress
from garnish.training.resume_check import check_facts, run_facts
from garnish.training.resumed_from import resumed_from
from garnish.training.run_batches import step_batches
from garnish.training.run_folder import what_is_kept
from garnish.training.run_memory import RunMemory
from garnish.training.run_place import RunPlace
from garnish.training.run_report import RunReport
from garnish.training.run_state import odd_in_run, recipe_for_bundle, restore, save_run
from garnish.training.saved_facts import Checkpoint, RunState
from garnish.training.scalars import log_kinds
from garnish.training.signals import StopRequest
from garnish.training.step_cost import about_step
from garnish.training.step_losses import odd_loss
from garnish.training.torchrun import followed
from garnish.training.train_options import TrainOptions
from garnish.training.trained_tasks import about_labels, at_scale, ranking, trained_tasks
from garnish.training.undone_step import BegunStep
from garnish.training.validation import Validation


@final
class Run:
    """One training run; for the arguments see :func:`garnish.training.fit.fit`."""

    def __init__(
        self,
        model: Model,
        train: Dataset,
        val: Dataset | None,
        options: TrainOptions,
        *,
        out: str | Path | None,
        resume: str | Path | None,
        balance: Balance | None,
        recipe: Mapping[str, object] | None,
        progress: bool,
        allow_loggers: Sequence[str],
        is_logged: bool,
        held: ExitStack,
    ) -> None:
        self.model, self.options, self._is_logged = model, options, is_logged
        self.warnings: list[str] = []
        self.log = log_kinds(options.log, allow_loggers) if out is not None or resume is not None else ()
        self.tasks = at_scale(model, trained_tasks(model, train), options.augment)
        self.ranking = ranking(model, self.tasks, val, options)
        self.fabric = make_fabric(options)
        place = self.place = RunPlace(out, resume, self.fabric)
        held.enter_context(followed(place.group))
        self.is_first = self.fabric.is_global_zero
        sets = [d for d in (train, val) if d is not None]
        found = check_data(sets, options.check_pictures, self.fabric, model.backbone)
        self.balance = balance or balancing_of(options.balance).build(self.tasks)
        self.step = start_placed(model, self.tasks, self.balance, options, self.fabric)
        self.begun = BegunStep(self.step.buffers().values())
        self.memory = RunMemory(self.step, self.fabric)
        held.callback(self.memory.close)
        saved = place.saved(held, self.step)
        told = [place.warning, saved.line if saved is not None else ""]
        self._begin(train, val, None if saved is None else saved.facts)
        data, world = {"training": train, "validation": val}, self.fabric.world_size
        self.facts = run_facts(options, model, data, self.total_steps, self.batch_size, world, self.memory.plan)
        self.state = RunState()
        if saved is not None:
            told.append(check_facts(saved.facts, self.facts, place.where))
            self.state = restore(saved, self.step, place.where, again=resume is not None)
            self.warnings = list(dict.fromkeys([*self.state.warnings, *self.warnings]))
        self.watch = GradientWatch(model, list(self.tasks), self.fabric, self.state.watched)
        self.requests = StopRequest()
        each, shown = self.batch_size * world * options.accumulate, progress and self.is_first
        self.progress = Progress(self.total_steps, self.state.step, pictures=each, shown=shown)
        self.compiled = CompiledSteps(self.step, self.begun, self.fabric, self.progress, self.warn)
        self.recipe = dict(recipe) if recipe is not None else {"train": self.facts["options"]}
        self.out = place.taken(self.recipe, held)
        self.report: RunReport | None = None
        if self.is_first and self.out is not None:
            self.report = RunReport(
                self.out, model, self.recipe, options.show, self.validation, self.state, self.warn,
                losses=list(self.tasks), learnt=list(self.balance.learnt_weights()), total=self.total_steps,
                log=self.log,
            )  # fmt: skip
        self._since = time.perf_counter()
        if saved is not None:
            self.progress.say(place.told + resumed_from(saved.file.file, self.state, self.total_steps, self.validation))
        self._introduce(len(train), [line for line in told if line] + about_labels(model, train, val), found)
        if self.progress.shown and self.fabric.world_size == 1:
            self.progress.say(about_step(model, train, options, self.batch_size, self.step.trained.values()))

    # ---- before the first step ----------------------------------------------------------------------------------

    def _begin(self, train: Dataset, val: Dataset | None, saved: Checkpoint | None) -> None:
        """Set batch size, batches, number of steps and validation."""
        options, fabric = self.options, self.fabric
        self.model.train()
        self.batch_size = size = self.memory.begin(train, saved)
        self.batches, kept = step_batches(self.model, list(self.tasks), train, val, size, options, fabric, self.warn)
        self.total_steps = options.total_steps(len(train), size, fabric.world_size)
        if saved is None:
            refuse_endless_warmup(options, self.total_steps)
        self.eval_every = options.eval_every or max(self.total_steps // 10, 1)
        self.validation = None if val is None else Validation(self.model, val, options, fabric, kept, self.eval_every)

    def _introduce(self, num_pictures: int, about_labels: list[str], about_data: list[str]) -> None:
        """Print what is trained, with warnings."""
        self.progress.say(repr(self.model))
        if self.options.log is None and self.log == ("csv",):
            self.progress.say("log: CSV only, as tensorboard is not installed (pip install 'garnish[tensorboard]')")
        about = Circumstances(
            total_steps=self.total_steps, eval_every=self.eval_every, has_val=self.validation is not None,
            has_folder=self.out is not None, is_logged=self._is_logged, processes=self.fabric.world_size,
            trains_trunk=not all(name.startswith("heads.") for name in self.step.trained),
            device=self.fabric.device.type,
        )  # fmt: skip
        known = warnings_about(self.model, list(self.tasks), self.fabric.world_size)
        known += self.memory.warnings
        for line in [*unheeded(self.options, about), *known, *about_labels, *shortened(about_data)]:
            self.warn(line)
        each = pictures_of_a_step(self.batch_size, self.fabric.world_size, self.options.accumulate)
        self.progress.say(length_of(num_pictures, self.total_steps, each, self.state.step, self.out))

    # ---- during the loop ----------------------------------------------------------------------------------------

    def warn(self, line: str) -> None:
        """Record a warning, once in all sessions, and print it on the first rank."""
        if (line := one_line(line, LONGEST)) not in self.warnings:
            self.warnings.append(line)
        if self.is_first:
            self.progress.warn(line)

    def update(self) -> bool:
        """Clip and step; False if nothing had a gradient or the scaler skipped the step.

        Raises:
            GarnishError: gradients that are not finite (at float16 the scaler skips those).
        """
        step, precision = self.step, self.step.precision
        if all(p.grad is None for p in step.trained.values()):
            return False
        scaler = precision.state_dict()
        norm = step.norm()
        if norm is not None and not bool(norm.isfinite()):
            if not scaler:
                first = odd_gradient(step.trained)
                raise self._fault(f"the gradients are not finite, first that of {first}; lower lr", self.state.step + 1)
            norm = None
        step.update(norm)
        return not scaler or precision.state_dict()["scale"] >= scaler["scale"]

    def check_losses(self, losses: Mapping[str, float], batch: Batch) -> None:
        """Raise GarnishError for a loss that is not finite, naming step, task and pictures."""
        if line := odd_loss(self.model, self.tasks, losses, batch, self.fabric):
            raise self._fault(f"{line}; check their labels, or lower lr", self.state.step + 1)

    def _fault(self, text: str, step: int) -> GarnishError:
        return GarnishError(f"step {step}: {text} ({self.options.lr:g}){what_is_kept(self.out)}")

    def finish_step(self, losses: Mapping[str, float], total_loss: float, rate: float) -> None:
        """Count the step, and log and save if due."""
        self.state.step += 1
        step = self.state.step
        self.progress.step(step, losses, total_loss)
        if self.report is not None and (step % self.options.log_every == 0 or step == self.total_steps):
            self.report.step(step, losses, total_loss, rate, self.balance.learnt_weights(), self.progress.speed)
        if step % self.options.save_every == 0 or step == self.total_steps or self.evaluation_due():
            self.save()

    def save(self) -> None:
        """Write a checkpoint (on the first rank, if the run has a folder).

        Raises:
            GarnishError: a tensor that is not finite; the previous checkpoint is kept.
        """
        if odd := odd_in_run(self.step):
            raise self._fault(f"{odd}; lower lr", self.state.step)
        now = time.perf_counter()
        self.state.seconds += now - self._since
        self._since = now
        self.state.warnings, self.state.watched = self.warnings, self.watch.seen()
        if self.out is not None and self.is_first:
            save_run(self.out, self.state, self.step, self.facts)
            self.progress.paused()

    def evaluation_due(self, *, ends: bool = False) -> bool:
        """Whether the model is to be evaluated at this step; ``ends``: it is the last one."""
        total = self.state.step if ends else self.total_steps
        return self.validation is not None and self.validation.due(self.state, total)

    def evaluate(self) -> None:
        """Evaluate, save the bundle if it is the best, end the run if patience is exhausted, and save a checkpoint."""
        assert self.validation is not None and self.ranking is not None
        state, options = self.state, self.options
        metrics, on_some, odd, details = self.validation.measured(self._look, detailed=self.out is not None)
        if self.fabric.world_size > 1 and agreed(self.requests.number, self.fabric):  # some looked at no more pictures
            self.stop()
        score = -math.inf if odd.tasks else self.ranking.score(metrics)
        if odd.tasks:
            self.warn(f"step {state.step}: {odd.line()}; this evaluation is not ranked")
        if state.judged(metrics, score, on_some, ranked=not odd.tasks):
            self._save_best(metrics)
        if options.patience is not None and state.waited() >= options.patience:
            state.stopped = "early"
        best = " (best)" if state.best_step == state.step else ""
        self.progress.say(f"step {state.step}: {self.validation.headlines(metrics)}{best}")
        if self.report is not None:
            self.report.evaluated(state, metrics, details)
        self.save()
        self.show()
        self.progress.paused()

    def _look(self, pictures: list[int], batch: Batch, outputs: Mapping[str, Tensor]) -> bool:
        """After each batch of an evaluation; False: asked to stop, so this process looks at no more."""
        if self.report is not None:
            self.report.look(pictures, batch, outputs)
        self.stop_if_asked()
        return self.requests.number is None

    def show(self) -> None:
        """Write the page of the run, if it has a folder."""
        if self.report is not None:
            self.report.write(self.state, self.warnings)

    def _save_best(self, metrics: Metrics) -> None:
        if self.out is not None and self.is_first:
            extra = {"step": self.state.step, "recipe": recipe_for_bundle(self.recipe)}
            if wider := save_as_fits(self.model, self.out / "best", metrics, extra):
                self.warn(f"step {self.state.step}: {wider}")

    def stop_if_asked(self) -> None:
        """After a signal, if no other process must agree: undo the unfinished step, save and exit."""
        if self.requests.number is not None and self.fabric.world_size == 1:
            self.stop()

    def stop(self) -> NoReturn:
        """Undo the unfinished step, save and exit after a signal; the exit code is 128 plus its number."""
        self.begun.undo()
        self.step.optimizer.zero_grad(set_to_none=True)
        self.save()
        number = agreed(self.requests.number, self.fabric)
        if self.is_first:
            self.progress.warn(self.place.stopped(number, self.state.step, self.out, by_command="data" in self.recipe))
        self.show()
        raise SystemExit(128 + number)

    # ---- after the loop -----------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Mark the run as done; save the bundle if nothing was evaluated, else record the effect of its rounding.

        Raises:
            GarnishError: no evaluation had finite outputs, so there is no best one.
        """
        if self.validation is not None and self.state.best_step is None:
            raise GarnishError(
                f"train: no evaluation had finite outputs, so no bundle was kept; lower lr ({self.options.lr:g}), or"
                f" train at another precision than {self.options.precision}{what_is_kept(self.out)}"
            )
        done = self.state.stopped in ("finished", "early")  # of a run that was resumed at its end
        self.state.stopped = self.state.stopped or "finished"
        if self.validation is None and not done:
            self._save_best({})
        elif self.validation and self.out and self.state.best_on_some:  # old checkpoints lack it
            for line in self.validation.record_rounding(self.out / "best", self.state.best_on_some):
                self.warn(line)
        self.save()
        self.show()
        if self.out is not None:
            of = f" of step {self.state.best_step}" if self.state.best_step else ""
            self.progress.say(f"{self.state.stopped} after {self.state.seconds:.0f} s; bundle{of}: {self.out / 'best'}")

    def close(self) -> None:
        """Close the logs."""
        if self.report is not None:
            self.report.close(finished=bool(self.state.stopped))
