"""Checks for options of a run that cannot take effect: contradictions are errors, options without effect warnings."""

from __future__ import annotations

import dataclasses
from typing import final

from garnish.errors import OptionError
from garnish.training.train_options import TrainOptions

_DEFAULTS: dict[str, object] = {f.name: f.default for f in dataclasses.fields(TrainOptions)}
#: Options that matter only with evaluations.
_JUDGES = ("eval_every", "eval_batch_size", "eval_size", "eval_limit", "best_by", "patience")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Circumstances:
    """The properties of a run that decide whether options have an effect.

    Attributes:
        total_steps: of the run.
        eval_every: resolved number of steps between evaluations.
        has_val: there are validation pictures.
        has_folder: the run has a folder to write to.
        is_logged: loggers that somebody else set up take its rows, folder or not.
        trains_trunk: adapters, tuned parameters or a balance are trained, not only heads.
        processes: of the run.
        device: type of the device, as torch names it.
    """

    total_steps: int
    eval_every: int
    has_val: bool
    has_folder: bool
    trains_trunk: bool
    processes: int
    device: str
    is_logged: bool = False


def refuse_without_val(options: TrainOptions) -> None:
    """Raise OptionError for options that need validation pictures; to call if there are none."""
    if odd := [name for name in _JUDGES if _is_set(options, name)]:
        raise OptionError(
            f"train: {', '.join(odd)} {'need' if len(odd) > 1 else 'needs'} validation data, and there are none;"
            f" give val (a split val), or leave {'them' if len(odd) > 1 else 'it'} out"
        )


def refuse_endless_warmup(options: TrainOptions, total_steps: int) -> None:
    """Raise OptionError for a warm-up that is not shorter than the run."""
    if options.warmup and options.warmup >= total_steps:
        raise OptionError(
            f"train.warmup: {options.warmup} steps, but the run has {total_steps}, so it would end before the schedule"
            f" begins; set fewer than {total_steps}, or leave it out (a twentieth of all)"
        )


def unheeded(options: TrainOptions, about: Circumstances) -> list[str]:
    """One line for each option that was set and has no effect, or not the expected one."""
    lines = []

    def tell(name: str, why: str) -> None:
        lines.append(f"train.{name}: {getattr(options, name)} has no effect, because {why}")

    if options.cache is None and _is_set(options, "cache_gb"):
        tell("cache_gb", "there is no cache")
    if options.augment is None and options.variants not in (None, 1):
        tell("variants", "augment is null, so all of them are the picture as it is")
    if not about.trains_trunk:
        if options.head_lr is not None and _is_set(options, "lr"):
            tell("lr", "heads alone are trained, whose rate is head_lr")
        for name in ("memory", "checkpointing"):
            if _is_set(options, name):
                tell(name, "nothing in the backbone is trained, so nothing is kept there")
    if options.compile and about.device == "cpu":
        lines.append(
            "train.compile: true is worth little on a CPU (4 % of a step after 75 s of compiling, on two cores); leave"
            " it out unless the run is long"
        )
    if options.compile and options.memory is not None:
        tell("memory", "compiled passes keep what the compiler decides")
    if not about.has_folder:
        for name in ("save_every", "log_every", "show"):
            idle = options.show if name == "show" else not (name == "log_every" and about.is_logged)
            if _is_set(options, name) and idle:
                tell(name, "the run has no folder (out)")
        if not {"csv"}.issuperset(options.log or ()):  # nobody expects files without a folder
            tell("log", "the run has no folder (out)")
    if about.has_folder and not about.has_val and _is_set(options, "show") and options.show:
        tell("show", "there are no validation pictures")
    if options.strategy == "ddp" and options.accelerator == "mps":
        tell("strategy", "there is one process on mps")
    if options.devices not in ("auto", 1, about.processes):
        lines.append(
            f"train.devices: {options.devices}, but torchrun started {about.processes} processes, which are used"
        )
    return [*lines, *_beyond_the_end(options, about)]


def _beyond_the_end(options: TrainOptions, about: Circumstances) -> list[str]:
    total = about.total_steps
    lines = [
        f"train.{name}: {getattr(options, name)} is beyond the run's {total} steps: {what} once, at its end"
        for name, what in (("eval_every", "it is evaluated"), ("log_every", "a row is logged"))
        if _is_set(options, name)
        and getattr(options, name) > total
        and (about.has_folder or about.is_logged or name == "eval_every")
    ]
    evaluations = -(-total // about.eval_every)
    if about.has_folder and _is_set(options, "save_every") and options.save_every > total:
        when = "at each evaluation and at its end" if about.has_val else "at its start and end"
        lines.append(f"train.save_every: {options.save_every} is beyond the run's {total} steps: it is saved {when}")
    if options.patience is not None and options.patience >= evaluations:
        lines.append(
            f"train.patience: {options.patience} never ends the run, which has {evaluations} evaluations; lower it, or"
            f" eval_every ({about.eval_every})"
        )
    return lines


def _is_set(options: TrainOptions, name: str) -> bool:
    return bool(getattr(options, name) != _DEFAULTS[name])
