"""Logger objects that ``fit(log=[…])`` is given beside names: Lightning's, or anything with their two methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeGuard, final, runtime_checkable

from garnish.errors import OptionError
from garnish.training.callback import Callback, Moment


@runtime_checkable
class LogsMetrics(Protocol):
    """What is asked of a logger; loggers of Lightning and Fabric have it."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> object:
        """Take scalars by name."""

    def finalize(self, status: str) -> object:
        """The run is over: "success", or "aborted" by an error or a signal."""


def names_and_loggers(
    log: Sequence[object] | str | LogsMetrics | None,
) -> tuple[tuple[str, ...] | None, list[LogsMetrics]]:
    """The names in ``log`` (one, or several; None: the default ones), and the objects.

    Raises:
        OptionError: an entry that is neither.
    """
    if log is None:
        return None, []
    if isinstance(log, str) or not isinstance(log, Sequence):
        log = [log]
    names: list[str] = []
    loggers: list[LogsMetrics] = []
    for entry in log:
        if isinstance(entry, str):
            names.append(entry)
        elif _logs(entry):
            loggers.append(entry)
        else:
            what = "the class" if isinstance(entry, type) else "an object of"
            name = (entry if isinstance(entry, type) else type(entry)).__name__
            raise OptionError(
                f"fit: log holds {what} {name}; give a name such as 'csv', or a logger object with"
                " log_metrics(metrics, step) and finalize(status), as those of Lightning"
            )
    return tuple(names), loggers


def _logs(entry: object) -> TypeGuard[LogsMetrics]:
    there = callable(getattr(entry, "log_metrics", None)) and callable(getattr(entry, "finalize", None))
    return there and not isinstance(entry, type)


@final
class GivenLoggers(Callback):
    """Sends logger objects what loggers by name get.

    Args:
        loggers: whose makers have set them up; they are finalized at the end of the run, whatever ends it.
        every: steps between rows.
    """

    def __init__(self, loggers: Sequence[LogsMetrics], every: int) -> None:
        self.loggers, self.every = loggers, every

    def on_step(self, now: Moment) -> None:
        """Losses, rate, learnt weights and speed, of every so many steps and the last."""
        if now.step % self.every == 0 or now.step == now.total_steps:
            values = {"loss": now.loss, **{f"loss/{n}": v for n, v in now.losses.items()}, "lr": now.rates["lr"]}
            values |= {f"weight/{n}": v for n, v in now.weights.items()}
            self._send(values | {"steps_per_second": now.steps_per_second}, now.step)

    def on_evaluation(self, now: Moment) -> None:
        """All metrics, as ``val/task/metric``."""
        self._send({f"val/{n}/{k}": v for n, found in now.metrics.items() for k, v in found.items()}, now.step)

    def close(self, *, finished: bool) -> None:
        """Tell the loggers that the run is over."""
        for logger in self.loggers:
            logger.finalize("success" if finished else "aborted")

    def _send(self, values: dict[str, float], step: int) -> None:
        for logger in self.loggers:
            logger.log_metrics(dict(values), step)
