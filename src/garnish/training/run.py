"""A run: everything the loop works with, put together and checked before the first step."""

from __future__ import annotations

import math
import shlex
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn, final

from torch import Tensor

from garnish.balancing.balancing import Balance, balancing_of
from garnish.checking.finite import not_finite
from garnish.data.dataset import Batch, Dataset
from garnish.data.loader import StepBatches
from garnish.data.subset import chosen
from garnish.errors import GarnishError, OptionError, plural
from garnish.model.model import Model
from garnish.registry import plain
from garnish.training.batch_size import largest_batch
from garnish.training.before_start import pictures_of_a_step, shortened, warnings_about
from garnish.training.evaluate import Metrics, evaluate_parts
from garnish.training.feature_cache import CachedBatches, CachedPictures, CachedTrunk, FeatureCache, cached_val
from garnish.training.float16_effect import holding, save_as_fits, write_rounding
from garnish.training.gradients import GradientWatch
from garnish.training.idle_options import Circumstances, refuse_endless_warmup, unheeded
from garnish.training.losses import blame
from garnish.training.odd_outputs import OddOutputs
from garnish.training.optimizer import odd_gradient
from garnish.training.processes import check_data, make_fabric, start_alike
from garnish.training.progress import Progress
from garnish.training.resume_check import check_facts, facts_of
from garnish.training.run_state import (
    Checkpoint,
    RunState,
    odd_in_run,
    restore,
    resumed,
    save_run,
    taken,
    without_base,
    write_results,
)
from garnish.training.scalars import Scalars, log_kinds
from garnish.training.signals import StopRequest
from garnish.training.step import TrainingStep
from garnish.training.step_cost import about_step
from garnish.training.train_options import TrainOptions
from garnish.training.trained_tasks import about_labels, ranking, trained_tasks
from garnish.training.undone_step import BegunStep

#: Most validation pictures, evenly spaced, on which the effect of storing a bundle in float16 is measured.
_ROUNDING_PICTURES = 200


@final
class Run:
    """See :func:`garnish.training.fit.fit` for the arguments."""

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
        recipe: Mapping[str, Any] | None,
        progress: bool,
        held: ExitStack,
    ) -> None:
        self.model, self.val, self.options = model, val, options
        self.warnings: list[str] = []
        self.log = log_kinds(options.log) if out is not None or resume is not None else ()
        self.tasks = trained_tasks(model, train)
        self.ranking = ranking(model, self.tasks, val, options)
        self.fabric = make_fabric(options)
        self.is_first = self.fabric.is_global_zero
        found = check_data([d for d in (train, val) if d is not None], options.check_pictures, self.fabric)
        self.balance = balance or balancing_of(options.balance).build(self.tasks)
        self._place()
        self.begun = BegunStep(self.step.buffers().values())
        saved = None if resume is None else resumed(Path(resume), held, self.fabric)
        told = [saved[2]] if saved is not None else []
        self._begin(train, saved)
        data, world = {"training": train, "validation": val}, self.fabric.world_size
        self.facts = facts_of(options, model, data, self.total_steps, self.batch_size, world)
        self.state = RunState()
        if saved is not None:
            told.append(check_facts(saved[1], self.facts, str(resume)))
            self.state = restore(*saved[:2], self.step, str(resume))
        self.watch = GradientWatch(model, list(self.tasks), self.fabric)
        self.requests = StopRequest()
        self.progress = Progress(self.total_steps, self.state.step, shown=progress and self.is_first)
        self.recipe = dict(recipe) if recipe is not None else {"train": self.facts["options"]}
        self.out = None if resume is None else Path(resume)
        if resume is None and out is not None:
            self.out = taken(out, self.recipe, held, self.fabric)
        self.scalars: Scalars | None = None
        if self.is_first and self.out is not None:
            learnt = [f"weight/{t}" for t in self.balance.learnt_weights()]
            columns = ["loss", *(f"loss/{t}" for t in self.tasks), *learnt, "lr", "steps_per_second"]
            self.scalars = Scalars(self.out / "log", columns, self.log, self.state.step)
        self._since = time.perf_counter()
        self._introduce(len(train), [line for line in told if line] + about_labels(model, train, val), found)
        if self.progress.shown and self.fabric.world_size == 1:
            self.progress.say(about_step(model, train, options, self.batch_size, self.step.trained.values()))

    # ---- before the first step ----------------------------------------------------------------------------------

    def _place(self) -> None:
        """Model to the device, and what trains it; all ranks start from the first one's tensors."""
        model, device = self.model, self.fabric.device
        if not model.trained_parameters():
            raise OptionError("train: every task of the model is frozen, so there is nothing to train; add a task")
        if odd := not_finite(model.all_tensors()):
            raise OptionError(f"train: the model's {odd}, so nothing can be learnt; build or load it anew")
        model.to(device)
        self.balance.to(device)
        model.check_sites()
        self.step = TrainingStep(model, self.tasks, self.balance, self.options, self.fabric)
        start_alike(model.backbone, [*self.step.trained.values(), *self.step.buffers().values()], self.fabric)

    def _begin(self, train: Dataset, saved: tuple[dict[str, Tensor], Checkpoint, str] | None) -> None:
        """Batch size, batches and number of steps."""
        options, fabric = self.options, self.fabric
        self.model.backbone.checkpointing = options.checkpointing
        self.model.train()
        if saved is not None:
            size = saved[1]["batch_size"]
        elif options.batch_size == "auto":
            size = largest_batch(self.model, train, options, self.step.own_loss, fabric)
        else:
            size = options.batch_size
        self.batch_size = size
        batches = StepBatches(
            train,
            size,
            seed=options.seed,
            augment=options.augment,
            variants=options.variants,
            rank=fabric.global_rank,
            world=fabric.world_size,
            workers=options.workers,
        )
        self.batches: StepBatches | CachedBatches = batches
        self.kept_val: CachedPictures | None = None
        if options.cache is not None:
            cache = FeatureCache(options.cache, options.cache_gb, self.warn, processes=fabric.world_size)
            self.batches = CachedBatches(cache, CachedTrunk(self.model, list(self.tasks), fabric), batches)
            self.kept_val = cached_val(cache, self.model, self.val, options.eval_size, fabric)
        self.total_steps = options.total_steps(len(train), size, fabric.world_size)
        if saved is None:
            refuse_endless_warmup(options, self.total_steps)
        self.eval_every = options.eval_every or max(self.total_steps // 10, 1)

    def _introduce(self, num_pictures: int, about_labels: list[str], about_data: list[str]) -> None:
        """Say what is trained, and what should be known about it."""
        self.progress.say(repr(self.model))
        if self.options.log is None and self.log == ("csv",):
            self.progress.say("log: CSV alone, for tensorboard is not installed (pip install 'garnish[tensorboard]')")
        about = Circumstances(
            total_steps=self.total_steps, eval_every=self.eval_every, has_val=self.val is not None,
            has_folder=self.out is not None, processes=self.fabric.world_size,
            trains_trunk=not all(name.startswith("heads.") for name in self.step.trained),
        )  # fmt: skip
        known = warnings_about(self.model, list(self.tasks), self.fabric.world_size)
        for line in [*unheeded(self.options, about), *known, *about_labels, *shortened(about_data)]:
            self.warn(line)
        each = pictures_of_a_step(self.batch_size, self.fabric.world_size, self.options.accumulate)
        done = f", {self.state.step} of them done" if self.state.step else ""
        place = f"; {self.out}" if self.out else ""
        self.progress.say(
            f"{plural(num_pictures, 'picture')}, {plural(self.total_steps, 'step')} of {each}{done}{place}"
        )

    # ---- during the loop ----------------------------------------------------------------------------------------

    def warn(self, line: str) -> None:
        """Keep one line, and print it on the first rank."""
        self.warnings.append(line)
        if self.is_first:
            self.progress.warn(line)

    def update(self) -> bool:
        """Clip and step; False where nothing had a gradient or the scaler skipped the step.

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
                raise GarnishError(
                    f"step {self.state.step + 1}: the gradients are not finite, first that of"
                    f" {odd_gradient(step.trained)}; lower lr ({self.options.lr:g}){self._kept()}"
                )
            norm = None
        step.update(norm)
        return not scaler or precision.state_dict()["scale"] >= scaler["scale"]

    def check_losses(self, losses: Mapping[str, float], batch: Batch) -> None:
        """Raise GarnishError for a loss that is not finite, naming step, task and pictures."""
        for name, value in losses.items():
            if not abs(value) < float("inf"):
                pictures = blame(self.model, self.tasks[name], name, batch)
                rank = f" on rank {self.fabric.global_rank}" if self.fabric.world_size > 1 else ""
                which = ", ".join(pictures) if pictures else f"no single picture{rank}, only the step as a whole"
                raise GarnishError(
                    f"step {self.state.step + 1}: the loss of task {name!r} is {value}; pictures: {which}; check their"
                    f" labels, or lower lr ({self.options.lr:g}){self._kept()}"
                )

    def _kept(self) -> str:
        return f"; the last checkpoint is in {self.out}/last" if self.out else ""

    def finish_step(self, losses: Mapping[str, float], total_loss: float, rate: float) -> None:
        """Count the step, and log and save where that is due."""
        self.state.step += 1
        step = self.state.step
        self.progress.step(step, losses, total_loss)
        if self.scalars is not None and (step % self.options.log_every == 0 or step == self.total_steps):
            values = {"loss": total_loss, **{f"loss/{n}": v for n, v in losses.items()}, "lr": rate}
            values |= {f"weight/{n}": v for n, v in self.balance.learnt_weights().items()}
            self.scalars.add(step, values | {"steps_per_second": self.progress.speed})
        if step % self.options.save_every == 0 or step == self.total_steps or self.evaluation_due():
            self.save()

    def save(self) -> None:
        """Write a checkpoint (on the first rank, if the run has a folder).

        Raises:
            GarnishError: a tensor that is not finite; the checkpoint before it is kept.
        """
        if odd := odd_in_run(self.step):
            raise GarnishError(f"step {self.state.step}: {odd}; lower lr ({self.options.lr:g}){self._kept()}")
        now = time.perf_counter()
        self.state.seconds += now - self._since
        self._since = now
        if self.out is not None and self.is_first:
            save_run(self.out, self.state, self.step, self.facts)
            self.progress.paused()

    def evaluation_due(self) -> bool:
        """Whether the model as it stands is to be evaluated."""
        step, history = self.state.step, self.state.history
        due = step and (step % self.eval_every == 0 or step == self.total_steps)
        return bool(self.val is not None and due and not (history and history[-1]["step"] == step))

    def evaluate(self) -> None:
        """Evaluate, keep the best bundle, end the run where patience is at its end, and save."""
        assert self.val is not None and self.ranking is not None
        state, options = self.state, self.options
        some, rest = self._pictures()
        odd = OddOutputs(self.model, self.fabric)
        found = self._metrics([some, rest] if rest else [some], odd, self.stop_if_asked)
        metrics = found[-1]
        score = -math.inf if odd.tasks else self.ranking.score(metrics)
        if odd.tasks:
            self.warn(f"step {state.step}: {odd.line()}; this evaluation is not ranked")
        state.history.append({"step": state.step, "score": score, "metrics": metrics})
        if not odd.tasks and (state.best_score is None or score > state.best_score):
            state.best_score, state.best_step, state.best_on_some = score, state.step, found[0]
            self._save_best(metrics)
        waited = sum(entry["step"] > (state.best_step or 0) for entry in state.history)
        if options.patience is not None and waited >= options.patience:
            state.stopped = "early"
        heads = {n: (t.headline, metrics[n][t.headline]) for n, t in self.model.tasks.items() if n in metrics}
        best = " (best)" if state.best_step == state.step else ""
        self.progress.say(f"step {state.step}: " + "  ".join(f"{n} {k} {v:.4g}" for n, (k, v) in heads.items()) + best)
        if self.out is not None and self.is_first:
            write_results(self.out, state.history)
            if self.scalars is not None:
                values = {f"val/{n}/{k}": v for n, found in metrics.items() for k, v in found.items()}
                self.scalars.add_to_board(state.step, values)
        self.save()
        self.progress.paused()

    def _pictures(self) -> tuple[list[int], list[int]]:
        """The validation pictures: those on which the effect of storing a bundle is measured, and the others."""
        assert self.val is not None
        every = chosen(len(self.val), self.options.eval_limit)
        some = [every[i] for i in chosen(len(every), _ROUNDING_PICTURES)]
        return some, sorted(set(every) - set(some))

    def _metrics(
        self, parts: list[list[int]], odd: OddOutputs, after_each: Callable[[], None] | None = None
    ) -> list[Metrics]:
        assert self.val is not None
        batch_size, size = self.options.eval_batch_size, self.options.eval_size
        with self.fabric.autocast():
            return evaluate_parts(
                self.model, self.val, parts,
                batch_size=batch_size, size=size, fabric=self.fabric, kept=self.kept_val, odd=odd,
                after_each=after_each,
            )  # fmt: skip

    def _save_best(self, metrics: Metrics) -> None:
        if self.out is not None and self.is_first:
            extra = {"step": self.state.step, "recipe": plain(without_base(self.recipe))}
            if wider := save_as_fits(self.model, self.out / "best", metrics, extra):
                self.warn(f"step {self.state.step}: {wider}")

    def stop_if_asked(self) -> None:
        """Where a signal came and no other process must agree: undo what is begun of a step, save and leave."""
        if self.requests.number is not None and self.fabric.world_size == 1:
            self.stop()

    def stop(self) -> NoReturn:
        """Undo what is begun of a step, save and leave, as a signal asked for; the exit code is 128 and its number."""
        self.begun.undo()
        self.step.optimizer.zero_grad(set_to_none=True)
        self.save()
        number = self.requests.number or signal.SIGTERM
        if self.is_first:
            go_on = "; nothing was kept, for the run has no folder"
            if self.out:
                folder = str(self.out)
                go_on = f"; to go on: garnish train --resume {shlex.quote(folder)}, or fit(resume={folder!r})"
            self.progress.warn(f"stopped by {signal.Signals(number).name} after step {self.state.step}{go_on}")
        raise SystemExit(128 + number)

    # ---- after the loop -----------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Mark the run as done, keep a bundle where nothing was evaluated, and record the effect of its rounding.

        Raises:
            GarnishError: no evaluation had finite outputs, so that there is no best one.
        """
        if self.val is not None and self.state.best_step is None:
            raise GarnishError(
                f"train: no evaluation had finite outputs, so no bundle was kept; lower lr ({self.options.lr:g}), or"
                f" train at another precision than {self.options.precision}{self._kept()}"
            )
        done = bool(self.state.stopped)
        self.state.stopped = self.state.stopped or "finished"
        if self.val is None and not done:
            self._save_best({})
        elif self.val is not None and self.out is not None and self.state.best_on_some:  # old checkpoints lack it
            self._record_rounding(self.out / "best")
        self.save()
        if self.out is not None:
            of = f" of step {self.state.best_step}" if self.state.best_step else ""
            self.progress.say(f"{self.state.stopped} after {self.state.seconds:.0f} s; bundle{of}: {self.out / 'best'}")

    def _record_rounding(self, bundle: Path) -> None:
        """Evaluate the best bundle as it is stored, and note in it what the rounding changed."""
        self.fabric.barrier()  # the first rank writes the bundle, all read it
        with holding(self.model, bundle):
            odd = OddOutputs(self.model, self.fabric)
            (metrics,) = self._metrics([self._pictures()[0]], odd)
            if odd.tasks:
                self.warn(f"{bundle}: as it is stored, {odd.line()}")
        reached = self.state.best_on_some
        if self.is_first:
            write_rounding(bundle, {t: {k: v - reached[t][k] for k, v in m.items()} for t, m in metrics.items()})

    def close(self) -> None:
        """Leave the model as it was found but for its tensors."""
        self.model.backbone.checkpointing = False
        if self.scalars is not None:
            self.scalars.close(finished=bool(self.state.stopped))
