"""``fit``: the training loop, and the result of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Unpack, final

import torch

from garnish.balancing.balancing import Balance, Balancing
from garnish.checking.arguments import checked, taking
from garnish.checking.plain_data import Json
from garnish.data.dataset import Batch, Dataset
from garnish.errors import OptionError
from garnish.files.path_text import given_path
from garnish.model.model import Model
from garnish.registry import options_of
from garnish.training.callback import Callback
from garnish.training.called_back import CalledBack
from garnish.training.fit_keywords import FitKeywords
from garnish.training.given_loggers import GivenLoggers, LogsMetrics, names_and_loggers
from garnish.training.learning_rate import rate_factor
from garnish.training.optimizer import seed_step, set_rates
from garnish.training.resumed_from import about_finished
from garnish.training.run import Run
from garnish.training.saved_facts import Evaluation
from garnish.training.step_losses import only
from garnish.training.train_options import TrainOptions


@final
@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a training run.

    Attributes:
        out: its folder; None: nothing was written. ``out/best`` is the bundle to use, ``out/last`` the checkpoint.
        steps: optimizer steps done.
        stopped: "finished", "early" (patience) or "callback" (one asked for it).
        best_step: step of the best evaluation; None without validation data.
        metrics: of the best evaluation, task → metric → value.
        history: every evaluation: ``step``, ``score``, ``metrics``.
        warnings: lines about data, gradients and licence that were printed.
        batch_size: pictures per process and forward pass.
        seconds: of training and evaluation, over all sessions.
    """

    out: Path | None
    steps: int
    stopped: str
    best_step: int | None
    metrics: dict[str, dict[str, float]]
    history: list[Evaluation] = field(repr=False)
    warnings: list[str]
    batch_size: int
    seconds: float


# The options are defined once, in TrainOptions, which also reads recipes and types the loop; signature and help of fit
# still show them, and type checkers read FitKeywords, which is generated from it.
@checked
@taking(TrainOptions)
def fit(
    model: Model,
    train: Dataset,
    val: Dataset | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    balance: Balance | Balancing | str | Mapping[str, Json] | None = None,
    recipe: Mapping[str, Json] | None = None,
    progress: bool = True,
    log: Sequence[object] | str | LogsMetrics | None = None,
    allow_loggers: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    **options: Unpack[FitKeywords],
) -> Result:
    """Train the unfrozen part of a model: adapters, tuned parameters and heads of the tasks that are not frozen.

    Args:
        model: holds the last step's tensors afterwards; the best evaluation's are in ``out/best``.
        train: pictures with labels of every trained task; a picture may have only some of them.
        val: pictures on which the best step is chosen; None: the last step is taken.
        out: folder of the run; if it exists, ``out-2``, ``out-3``, … is created, but under torchrun the run that was
            begun with the same ``--rdzv-id`` and ``out`` goes on. None: nothing is written.
        resume: folder of an interrupted run to continue (``out`` is then ignored); model, data and
            options must be the same.
        balance: as in :mod:`garnish.training.train_options`, or its object, e.g. ``gn.Uncertainty()``, or your own
            module.
        recipe: what ``args.yaml`` and bundles store; None: the options. ``base``, the folder of its relative paths,
            is stored in ``args.yaml`` only.
        progress: print progress on standard error.
        log: one or a list of "tensorboard", "csv", "wandb", "mlflow", "comet", the class of a Fabric logger by its
            dotted name, and logger objects, Lightning's or any with ``log_metrics(metrics, step)`` and
            ``finalize(status)``, which log without ``out`` too. None: "csv", and "tensorboard" if it is installed.
        allow_loggers: names of classes in ``log`` besides Lightning's own loggers that may be imported, which runs
            their code. They stand here again because ``log`` may come from a stranger's recipe.
        callbacks: watch the run and may end it: see :class:`garnish.Callback`.
        options: of :class:`~garnish.training.train_options.TrainOptions`.

    Raises:
        OptionError, DataError, SiteError, MissingExtraError: before the first step if possible.
        GarnishError: a loss or gradients that are not finite, naming step, task and pictures.
        BundleError: nothing to resume, or a full disk; what was written before is kept.
        SystemExit: asked to stop by SIGTERM, Ctrl-C, SIGHUP, SIGUSR1 or SIGUSR2 (code 128 plus its number), at the end
            of the current pass: the unfinished step is undone and a checkpoint written; also if the signal came after
            the last step, when the run in the folder is finished.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"depth": gn.Depth()})
        >>> data = gn.Scenes(2, size=32, tasks=("depth",))
        >>> gn.fit(model, data, steps=1, batch_size=1, lr=1e-3, progress=False).steps
        1
    """
    own = balance if isinstance(balance, Balance) else None
    if isinstance(balance, Balancing):
        balance = {"name": type(balance).__name__, **options_of(balance)}
    names, loggers = names_and_loggers(log)
    if resume is not None and options.get("steps") is None and options.get("epochs") is None:
        raise OptionError(
            f"{resume}: resume needs the options that the run was started with; repeat them: they stand in"
            f" {Path(resume) / 'args.yaml'} under train"
        )
    chosen = TrainOptions(balance=None if isinstance(balance, Balance) else balance, log=names, **options)
    with contextlib.ExitStack() as held:
        run = Run(
            model,
            train,
            val,
            chosen,
            out=out,
            resume=None if resume is None else given_path(resume, "resume"),
            balance=own,
            recipe=recipe,
            progress=progress,
            allow_loggers=allow_loggers,
            is_logged=bool(loggers),
            held=held,
        )
        held.callback(run.close)
        if run.is_first and run.state.stopped:
            run.progress.warn(f"{run.out}: {about_finished(run.state)}")
        if loggers:
            callbacks = [given := GivenLoggers(loggers, chosen.log_every), *callbacks]
            if run.is_first:
                held.callback(lambda: given.close(finished=bool(run.state.stopped)))
        called = CalledBack(callbacks, run)
        with run.requests, run.progress:
            _loop(run, called)
            run.finish()
            called.end()
    state = run.state
    return Result(
        out=run.out,
        steps=state.step,
        stopped=state.stopped,
        best_step=state.best_step,
        metrics=state.metrics_of(state.best_step),
        history=state.history,
        warnings=run.warnings,
        batch_size=run.batch_size,
        seconds=state.seconds,
    )


def _loop(run: Run, called: CalledBack) -> None:
    state = run.state
    if state.step == 0:
        run.save()  # so that a run killed at any time can be resumed
    called.start()
    batches = _batches(run)
    run.model.train()
    while True:
        ends = called.asked and state.step > 0
        if run.evaluation_due(ends=ends):
            run.evaluate()
            called.evaluation()
        if state.step >= run.total_steps or state.stopped:
            return
        if called.asked and state.step > 0:
            state.stopped = "callback"
            return
        factor = rate_factor(run.options, state.step, run.total_steps)
        set_rates(run.step.optimizer, factor)
        try:
            sums, total = _passes(run, batches)
        except Exception as error:
            if not run.compiled.give_up(error):
                raise
            batches = _batches(run)  # the same step once more
            continue
        with run.memory.counted():
            run.step.exchange_gradients()
            is_updated = run.update()
        for line in [*run.watch.end_step(is_updated), *run.memory.faults()]:
            run.warn(line)
        run.progress.say(run.memory.line())
        run.begun.end()
        run.finish_step(sums, total, factor * run.options.lr)
        called.step(sums, total, factor)
        if state.step < run.total_steps:
            run.stop_if_asked()


def _batches(run: Run) -> Iterator[Batch]:
    """The batches of the steps that are left."""
    parts = run.options.accumulate
    return run.batches.batches(run.state.step * parts, run.total_steps * parts)


def _passes(run: Run, batches: Iterator[Batch]) -> tuple[dict[str, float], float]:
    """The forward and backward passes of a step; returns the tasks' losses, and the one that is minimised."""
    options, parts = run.options, run.options.accumulate
    sums: dict[str, float] = {}
    total = 0.0
    run.begun.begin()
    for part in range(parts):
        batch = only(next(batches), run.tasks).to(run.fabric.device)
        run.compiled.warm_up(batch)
        run.stop_if_asked()
        with run.memory.counted(batch):
            seed = partial(seed_step, options.seed, run.state.step, part, run.fabric.global_rank)
            run.memory.look_ahead(batch, run.watch, seed)
            seed()
            outputs = run.step.outputs(batch, plain=run.watch.judges(batch.targets))
            found = run.step.losses(outputs, batch, stop=run.requests.number is not None)
            del outputs  # what the backward pass needs of them it keeps itself
            if found.stop:  # asked for in any process; all of them see it here
                run.stop()
            run.stop_if_asked()
            if not found.losses:
                continue
            loss = run.balance(found.losses) / parts
            run.watch.observe(found.losses)
            run.step.backward(loss)
            if part < parts - 1:  # after the last one, finish the step
                run.stop_if_asked()
            *values, whole = torch.stack([*found.losses.values(), loss]).tolist()
            del loss
            named = dict(zip(found.losses, values, strict=True))
            run.check_losses(named, batch)
            sums |= {name: sums.get(name, 0.0) + value / parts for name, value in named.items()}
            total += whole
    run.compiled.leave_out_unasked(sums)
    return sums, total
