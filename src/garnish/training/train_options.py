"""The options of a training run: the schema of a recipe's ``train`` section."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, final

from garnish.balancing.balancing import balancing_of
from garnish.checking.arguments import Options
from garnish.checking.bounds import BatchSize, Count, CountFrom0, Gigabytes, Processes, Rate, Seed, Size
from garnish.checking.deprecated import deprecated_option
from garnish.checking.plain_data import Json, integers, reals
from garnish.data.augment import Augment
from garnish.engine.memory import Level
from garnish.errors import OptionError
from garnish.training.loggers import check_name

Schedule = Literal["cosine", "poly", "constant"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Strategy = Literal["auto", "ddp", "fsdp"]

#: Options that change neither what is computed nor its order, so that a resumed run may change them.
#: ``compile`` changes rounding, and what dropout draws, but must be free: a run in which compiling failed goes on
#: without it.
FREE_ON_RESUME = frozenset(
    {
        "workers",
        "save_every",
        "log_every",
        "log",
        "show",
        "check_pictures",
        "devices",
        "strategy",
        "cache",
        "cache_gb",
        "compile",
    }
)


@final
@deprecated_option("checkpointing", 'write memory="least"; since 0.1, gone in 0.3')
@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """How long, how fast and on what a model is trained.

    Attributes:
        steps: optimizer steps; exactly one of ``steps`` and ``epochs`` is set.
        epochs: passes over the training pictures, rounded up to whole steps.
        batch_size: pictures per process and forward pass; "auto": the largest that fits ``memory_gb`` at lean.
        accumulate: forward passes per optimizer step; their losses are averaged, each normalised over its own labels.
        lr: peak learning rate of adapters and tuned backbone parameters.
        head_lr: that of the heads; None: ``lr``.
        weight_decay: of AdamW, on tensors of two or more dimensions only (not on biases, norms, scalars).
        warmup: steps of linear growth of the learning rate; None: a twentieth of all steps, at most 500.
        schedule: what follows: cosine to 0, (1 − t)^0.9 to 0, or constant.
        clip: largest norm of all gradients together; None: no limit.
        precision: of matrix products in forward and backward passes; parameters stay float32.
        devices: processes on this machine, one per device, or "auto": all accelerators (1 on a CPU).
        accelerator: "auto", "cpu", "cuda", "mps".
        strategy: how several processes work together; "auto" takes "ddp".
        seed: of sample order, augmentation and dropout.
        augment: random changes of training pictures; None: pictures as they are.
        variants: augmented versions of each picture, the same in every run whatever its seed; None: a new one
            every epoch.
        cache: folder for the features of the part of the trunk that no adapter changes, so that they are computed once
            per picture (docs/features.md); relative to the current folder. Needs ``variants``.
        cache_gb: size limit of this folder, in 10⁹ bytes.
        workers: processes that prepare batches; 0: none.
        eval_every: steps between evaluations; None: a tenth of all steps.
        eval_batch_size: pictures of one size that are evaluated together.
        eval_size: (height, width) that pictures and labels are resized to for evaluation; None: their own.
        eval_limit: largest number of pictures of an evaluation, evenly spaced; None: all.
        patience: evaluations without a better score after which training ends; None: never.
        best_by: criterion for the best evaluation: see :mod:`garnish.training.best_step`.
        save_every: steps between checkpoints.
        log_every: steps between rows of the logs.
        log: any of "tensorboard", "csv", "wandb", "mlflow", "comet", or the class of a Fabric logger by its dotted
            name, which must be allowed outside the recipe unless it is Lightning's own (``--allow-logger``,
            ``allow_loggers``); None: "csv", and "tensorboard" if it is installed.
        show: validation pictures, evenly spaced and always the same, of which each evaluation draws a sheet: picture,
            label and prediction of each task; 0: none. (Comparisons draw their own.)
        memory: what the backbone's blocks keep for the backward pass: "fast", what torch does; "lean", without what is
            cheap to make again, in about the same time; "least", their input alone: they run again, in a third more
            time. None: lean, or, with ``memory_gb``, what that needs.
        checkpointing: an older name of ``memory="least"``, gone in 0.3.
        compile: run trunk and heads of the training steps through ``torch.compile`` (docs/runs.md), for accelerators:
            faster steps after minutes of compiling. Not with ``memory="least"``, ``memory_gb``, ``batch_size="auto"``
            or ``cache``.
        memory_gb: bound on what a step takes above the loaded model (pictures, gradients, AdamW's moments,
            activations), of each process, in 10⁹ bytes: ``memory`` is then chosen block by block. None: no bound;
            ``batch_size="auto"`` then uses 0.9 of the GPU, or half of the machine.
        balance: how the tasks' losses are combined: task → weight of its loss; the name of a balancing method, such as
            ``Uncertainty``; or ``{name: …}`` with its options. None, or a task left out: the task's own weight.
        check_pictures: pictures of each set that are read and checked before the first step, evenly spaced.

    Raises:
        OptionError: a value out of range, naming it.
    """

    steps: Count | None = None
    epochs: Annotated[float, reals(0, 1e6, above=True)] | None = None
    batch_size: BatchSize | Literal["auto"] = 8
    accumulate: BatchSize = 1
    lr: Rate = 1e-3
    head_lr: Rate | None = None
    weight_decay: Annotated[float, reals(0, 1e6)] = 0.05
    warmup: CountFrom0 | None = None
    schedule: Schedule = "cosine"
    clip: Rate | None = 1.0
    precision: Precision = "32-true"
    devices: Processes | Literal["auto"] = 1
    accelerator: str = "auto"
    strategy: Strategy = "auto"
    seed: Seed = 0
    augment: Augment | None = Augment(scale=(1.0, 1.0))  # noqa: RUF009 (frozen)
    variants: Annotated[int, integers(1, 10**6)] | None = None
    cache: str | Path | None = None
    cache_gb: Gigabytes = 4.0
    workers: Annotated[int, integers(0, 1_024)] = 0
    eval_every: Count | None = None
    eval_batch_size: BatchSize = 1
    eval_size: Size | None = None
    eval_limit: Count | None = None
    patience: Count | None = None
    best_by: str | None = None
    save_every: Count = 100
    log_every: Count = 10
    log: tuple[str, ...] | None = None
    show: Annotated[int, integers(0, 64)] = 4
    memory: Level | None = None
    checkpointing: bool = False
    compile: bool = False
    memory_gb: Gigabytes | None = None
    balance: str | Mapping[str, Json] | None = None
    check_pictures: CountFrom0 = 1000

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise OptionError(f"train: steps {self.steps}, epochs {self.epochs}; set exactly one of the two")
        for name in self.log or ():
            check_name(name)
        balancing_of(self.balance)
        if self.cache is not None and self.variants is None:
            raise OptionError(
                "train.cache: pictures with new augmentation every epoch cannot be kept; set train.variants, the"
                " versions of each picture (1: always the same one), which every augmentation allows"
            )
        if self.compile and self.level == "least":
            name = "checkpointing" if self.checkpointing else "memory"
            raise OptionError(
                f"train.compile: a compiled trunk cannot run its blocks again in the backward pass, as {name} asks; set"
                " one of the two"
            )
        if self.compile and (self.memory_gb is not None or self.batch_size == "auto"):
            name = "memory_gb" if self.memory_gb is not None else "batch_size auto"
            raise OptionError(
                f"train.compile: what a compiled step takes is the compiler's choice and cannot be planned, as {name}"
                " asks; set a number of pictures, or leave compile out"
            )
        if self.compile and self.cache is not None:
            raise OptionError(
                "train.compile: a compiled trunk always starts at its stem, not at what train.cache keeps; set one of"
                " the two"
            )
        if self.strategy == "fsdp":
            raise OptionError(
                "train.strategy: fsdp is refused: what is trained is small and complete on every device, and shards"
                " cannot be saved as a bundle; use ddp, and memory=least if memory is short"
            )
        for name in ("memory", "checkpointing"):
            if getattr(self, name) and self.memory_gb is not None:
                raise OptionError(
                    f"train.{name}: memory_gb chooses what each block keeps; leave {name} out, or memory_gb"
                )
        if self.memory is not None and self.checkpointing:
            raise OptionError("train.checkpointing: an older name of memory=least; leave it out beside memory")

    @property
    def sets_level(self) -> bool:
        """Whether it says what blocks keep."""
        return self.checkpointing or self.memory is not None

    @property
    def level(self) -> Level:
        """What blocks keep if nothing is planned."""
        return "least" if self.checkpointing else self.memory or "lean"

    def total_steps(self, num_pictures: int, batch_size: int, world: int) -> int:
        """Optimizer steps of the whole run."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, math.ceil(self.epochs * num_pictures / (batch_size * world * self.accumulate)))
