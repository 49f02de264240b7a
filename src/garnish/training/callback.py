"""``Callback``: what watches or steers a run of ``fit``, and the facts that it is told."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.errors import OptionError
from garnish.model.model import Model

#: Part of a hook's name in other libraries → ours of that moment; the first that is found counts.
_MEANT = {
    "valid": "on_evaluation", "eval": "on_evaluation", "test": "on_evaluation", "step": "on_step", "batch": "on_step",
    "start": "on_start", "begin": "on_start", "epoch": "on_evaluation", "end": "on_end", "finish": "on_end",
}  # fmt: skip


class StopTraining(Exception):
    """Raised by a callback to end the run after the step in hand, as a finished one; ``Result.stopped`` is "callback".

    Args:
        reason: is printed; empty: nothing is.

    Example:
        >>> class AtStep(gn.Callback):
        ...     def on_step(self, now):
        ...         raise gn.StopTraining("enough")
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.BitFit(), {"depth": gn.Depth()})
        >>> data = gn.Scenes(2, size=32, tasks=("depth",))
        >>> gn.fit(model, data, steps=9, batch_size=1, progress=False, callbacks=[AtStep()]).stopped
        'callback'
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """Where a run is; each is a new object, whose mappings are not used again.

    Attributes:
        model: in training; the live one.
        step: optimizer steps done.
        total_steps: of the whole run.
        out: its folder; None: nothing is written.
        losses: of the last step, task → loss, of the tasks that had labels in it; empty before the first.
        loss: of the last step, the one that is minimised; NaN before the first.
        rates: learning rates of the last step: "lr", of adapters, and "head_lr", of heads; empty before the first.
        weights: task → factor of its loss, where a balance learns it.
        steps_per_second: a running mean; 0 before the first step.
        metrics: of the last evaluation, task → metric → value; empty before the first.
        is_best: the last evaluation is the best one so far.
        stopped: "" while the run lasts; in ``on_end`` as ``Result.stopped``.
    """

    model: Model
    step: int
    total_steps: int
    out: Path | None
    losses: Mapping[str, float]
    loss: float
    rates: Mapping[str, float]
    weights: Mapping[str, float]
    steps_per_second: float
    metrics: Mapping[str, Mapping[str, float]]
    is_best: bool
    stopped: str


class Callback(ABC):  # noqa: B024 (nothing must be overridden)
    """Base class of what :func:`garnish.fit` calls during a run, ``fit(callbacks=[…])``; override what you need.

    Callbacks are called in the order given, in the run's first process only; the others wait for them. Each may raise
    :class:`StopTraining`; the others of that moment are still called. Any other exception ends the run in all
    processes, as an error of the run itself: the last checkpoint is kept, and ``resume`` goes on from it. A callback
    is stored nowhere: give it again on resuming. Tensors of ``now.model`` may be changed in between steps, in a run of
    one process (others would not see it): the next step uses the new values. A checkpoint of that step has been
    written by then, so a run that is resumed from it must make the change again, in ``on_start``. A class with other
    public methods ``on_…`` is refused when it is made (:class:`~garnish.errors.OptionError`), for none would be called.

    >>> import garnish as gn
    >>> class Target(gn.Callback):
    ...     def on_evaluation(self, now):
    ...         if now.metrics["depth"]["rmse"] < 0.5:
    ...             raise gn.StopTraining("good enough")
    """

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse hooks that are never called, such as Lightning's ``on_validation_end``.

        Raises:
            OptionError: a public method ``on_…`` that this class has not.
        """
        super().__init_subclass__(**options)
        known = [name for name in vars(Callback) if name.startswith("on_")]
        for name in dir(cls):
            if name.startswith("on_") and name not in known and callable(getattr(cls, name)):
                near = next((ours for part, ours in _MEANT.items() if part in name), None)
                raise OptionError(
                    f"{cls.__name__}.{name}: fit calls no such method"
                    f"{'' if near is None else f'; did you mean {near!r}?'}; a gn.Callback has {', '.join(known)}:"
                    " rename it, or let it begin otherwise than on_"
                )

    def on_start(self, now: Moment) -> None:  # noqa: B027 (may be left as it is)
        """Before the first step of a run, new or resumed; a new run that is stopped here still takes its first step."""

    def on_step(self, now: Moment) -> None:  # noqa: B027
        """After each optimizer step, its logs and its checkpoint."""

    def on_evaluation(self, now: Moment) -> None:  # noqa: B027
        """After each evaluation; the bundle of the best one has been written."""

    def on_end(self, now: Moment) -> None:  # noqa: B027
        """After a run that ended by itself, early or by a callback, whose files are complete; not after an error."""
