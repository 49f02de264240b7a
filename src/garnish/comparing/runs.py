"""Carrying out one run: train an arm at one learning rate and seed, resume it, or read its stored outcome."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

from garnish.comparing.arms import ArmRun
from garnish.comparing.conditions import Conditions
from garnish.comparing.outcomes import Failed, Outcome, ScoredStep, Trained
from garnish.data.dataset import Dataset
from garnish.errors import BundleError, DataError, OptionError, one_line
from garnish.model.model import Model
from garnish.output import logger
from garnish.recipes.recipe import Recipe
from garnish.training.feature_cache import can_cache
from garnish.training.fit import fit
from garnish.training.train_options import TrainOptions

_log = logger(__name__)


def carry_out(conditions: Conditions, run: ArmRun, say: Callable[[str], None] | None = None) -> Outcome:
    """Train a run, unless it is done or has failed already.

    Args:
        conditions: shared by all runs.
        run: the run to train.
        say: called with one line when waiting for another process.

    Returns:
        Its outcome; runs fail by a loss that is not finite, lack of memory, or a method that does not fit the trunk.

    Raises:
        BundleError, OSError: nothing can be written. DataError: a picture that cannot be read.
        SystemExit: asked to stop, after a checkpoint.
    """
    store, key = conditions.store, conditions.key(run)
    with store.lock(key, say, str(run)):
        known = store.outcome(key, run)
        if known is not None:
            store.tidy(key, known)  # left over if killed while finishing
            return known
        goes_on = store.begin(key, conditions.content(run))
        try:
            outcome: Outcome = _trained(conditions, run, goes_on)
        except (DataError, OSError):
            raise
        except Exception as error:
            if is_of_the_system(error):
                raise
            # the other arms continue after any error; the outcome has the reason, the run's log is kept
            _log.debug("%s", run, exc_info=True)
            outcome = Failed(reason=reason_of(error))
        store.finish(key, outcome)
        return outcome


def is_of_the_system(error: BaseException) -> bool:
    """Whether an error comes from a disk or a file, and so is not the arm's fault."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def reason_of(error: BaseException) -> str:
    """The reason of a failed run in one line."""
    told = one_line(error, 400).split("; the last checkpoint is in ")[0]
    if isinstance(error, MemoryError) or "out of memory" in told or "can't allocate memory" in told:
        return f"out of memory ({told or 'no further reason'}); set a smaller batch_size, memory_gb, or memory=least"
    ours = type(error).__module__.startswith("garnish.")
    return told if ours else f"{type(error).__name__}: {told or 'without a message'}"


def _trained(conditions: Conditions, run: ArmRun, goes_on: bool) -> Trained:
    folder = conditions.store.training(conditions.key(run))
    recipe = conditions.recipe_of(run)
    recipe = dataclasses.replace(recipe, plain={**recipe.plain, "out": str(folder)})
    model = conditions.build(run)
    # the output of training is kept with the run; its warnings are in the report
    with (folder.parent / "log.txt").open("a", encoding="utf-8") as log, contextlib.redirect_stderr(log):
        try:
            return _fitted(conditions, run, recipe, model, folder, goes_on)
        except (OptionError, BundleError) as error:
            if not goes_on or is_of_the_system(error):
                raise
        # e.g. a checkpoint of another version of the package, which this one cannot resume
        conditions.store.clear(conditions.key(run))
        return _fitted(conditions, run, recipe, conditions.build(run), folder, goes_on=False)


def _fitted(conditions: Conditions, run: ArmRun, recipe: Recipe, model: Model, folder: Path, goes_on: bool) -> Trained:
    train = conditions.parts.train(run.tasks)
    # its own sheets show test pictures of all arms side by side
    options = vars(recipe.options) | cache_options(conditions, model, train) | {"show": 0}
    result = fit(
        model,
        train,
        conditions.parts.held_out(run.tasks),
        out=folder,
        resume=folder if goes_on else None,
        recipe=recipe.resolved(),
        progress=False,
        allow_loggers=recipe.allow_loggers,
        **options,
    )
    return Trained(
        run=run,
        best_step=result.best_step,
        steps=result.steps,
        history=tuple(ScoredStep(**entry) for entry in result.history),
        seconds=result.seconds,
        batch_size=result.batch_size,
        cached=options["cache"] is not None,
        warnings=tuple(result.warnings),
    )


def cache_options(conditions: Conditions, model: Model, train: Dataset) -> dict[str, str | float | None]:
    """The cache options of a run: the store's feature cache if the model leaves the start of the trunk unchanged.

    With ``train.variants`` all arms see the same versions of pictures; without a cache they are computed each time.
    """
    options = conditions.training
    if options.variants is None or can_cache(model) or train.key(0) is None:
        return {"cache": None, "cache_gb": TrainOptions.cache_gb}
    # each process counts only what it writes itself
    most = options.cache_gb / conditions.options.jobs
    return {"cache": str(options.cache or conditions.store.features), "cache_gb": most}
