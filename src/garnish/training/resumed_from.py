"""A line on where a resumed run goes on."""

from __future__ import annotations

import time
from pathlib import Path

from garnish.errors import plural
from garnish.training.saved_facts import RunState
from garnish.training.validation import Validation


def resumed_from(file: Path, state: RunState, total: int, validation: Validation | None) -> str:
    """From which step of which file, how old it is, and the best evaluation so far.

    Args:
        file: the checkpoint.
        state: that was read of it.
        total: steps of the run.
        validation: which knows the headline metrics; None: nothing is evaluated.
    """
    saved = file.stat().st_mtime
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(saved))
    done = f"step {state.step:,} of {total:,}"
    what = f"the run has ended at {done}" if state.stopped else f"going on from {done}"
    so_far = ""
    if validation is not None and state.best_step is not None:
        so_far = f"; best so far: step {state.best_step:,}, {validation.headlines(state.metrics_of(state.best_step))}"
    return f"{what} ({file}, saved {when}, {_ago(time.time() - saved)}){so_far}"


def about_finished(state: RunState) -> str:
    """A line on a run that is resumed at its end."""
    return (
        f"the run has finished already, at step {state.step:,}, so no step is left: callbacks get on_start and on_end"
        " alone, loggers no row; for more steps begin a new run from its bundle"
    )


def _ago(seconds: float) -> str:
    """How long ago, in its largest unit."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return f"{plural(int(seconds // size), unit)} ago"
    return "just now"
