"""What all runs of a comparison share (recipe, data, trunk, arms), and the recipe, model and key of each run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, final

from garnish.adapters.reference import Frozen
from garnish.checking.bounds import MOST_SEED
from garnish.comparing.arms import Arm, ArmRun, arms_of
from garnish.comparing.compare_options import CompareOptions
from garnish.comparing.keys import key_of, step_content, training_content
from garnish.comparing.splits import Parts
from garnish.comparing.store import Store
from garnish.errors import OptionError, plural, shown
from garnish.heads.linear import LinearHead
from garnish.model.model import Model, adapt
from garnish.recipes.build_model import build_model
from garnish.recipes.recipe import Recipe
from garnish.registry import describe
from garnish.stores.address_text import is_address
from garnish.tasks.task import Task
from garnish.training.train_options import TrainOptions

if TYPE_CHECKING:
    from garnish.backbones.backbone import Backbone


@final
@dataclass(frozen=True, kw_only=True)
class TrunkFacts:
    """Name, options, taps and fingerprint of the trunk, and the licence and source of its weights."""

    name: str
    options: Mapping[str, object]
    taps: str
    fingerprint: str
    licence: str
    weights: str


@final
class Conditions:
    """The shared conditions of all runs; expensive parts are made on first use.

    Args:
        recipe: the recipe of the comparison.
        options: its section ``compare``.
        trunk: facts of the trunk from another process; None: build it to find them.

    Raises:
        OptionError, DataError: a recipe that a comparison cannot use.
    """

    def __init__(self, recipe: Recipe, options: CompareOptions, trunk: TrunkFacts | None = None) -> None:
        self.recipe, self.options = recipe, options
        if options.out is None:
            raise OptionError("compare: no folder for the report; give --out FOLDER, or compare: {out: FOLDER}")
        for name, place in (("out", options.out), ("store", options.store)):
            if is_address(place):
                raise OptionError(
                    f"compare.{name}: {shown(place)} is an address, and runs lock files and write them bit by bit; give"
                    " a path, with --on one that all nodes have mounted, and copy the folder there at the end"
                )
        self.out = Path(options.out)
        self.store = Store(self.out / ".store" if options.store is None else Path(options.store))
        self.training = recipe.options
        _check(recipe, self.training)
        if self.training.seed > MOST_SEED - (options.seeds - 1):
            raise recipe.fault(
                "train.seed", f"{self.training.seed}, and {plural(options.seeds - 1, 'seed')} after it; set less"
            )
        self._trunk = trunk
        self._keys: dict[ArmRun, str] = {}

    def __reduce__(self) -> tuple[object, ...]:  # another process builds its own
        return Conditions, (self.recipe, self.options, self.trunk_facts)

    # ---- what is shared ---------------------------------------------------------------------------------------------

    @cached_property
    def parts(self) -> Parts:
        """The training, held-out and test pictures."""
        return Parts(self.recipe, self.options.held_out_every)

    @property
    def tasks(self) -> dict[str, Task]:
        """All tasks, with the recipe's options."""
        return self.parts.tasks

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """All arms by name, in the order in which they are trained."""
        own = self.recipe.plain.get("adapter", "LoRA")
        return {arm.name: arm for arm in arms_of(self.options, own, list(self.tasks))}

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs; the first is that of the search."""
        return [self.training.seed + number for number in range(self.options.seeds)]

    @property
    def trunk_facts(self) -> TrunkFacts:
        """The facts of the trunk, which is built to find them."""
        if self._trunk is None:
            choice = self.recipe.backbone
            assert choice is not None
            trunk = choice.build()
            if trunk.weights_source == "random":
                raise self.recipe.fault(
                    "backbone",
                    f"{choice.name} without weights is random, and a comparison needs a pretrained trunk; set"
                    " backbone.weights to a file or a Hub id, or true for the published ones",
                )
            self._trunk = TrunkFacts(
                name=trunk.name,
                options=trunk.options,
                taps=trunk.taps_at,
                fingerprint=trunk.fingerprint(),
                licence=trunk.licence,
                weights=trunk.weights_source,
            )
            # errors in tasks or heads affect every arm, so they are raised before any training
            adapt(trunk, Frozen(), self.tasks, self.recipe.head)
        return self._trunk

    # ---- what a run is ----------------------------------------------------------------------------------------------

    def recipe_of(self, run: ArmRun) -> Recipe:
        """The recipe of one run."""
        arm = self.arms[run.arm]
        plain = {k: v for k, v in self.recipe.plain.items() if k not in ("compare", "onto")}
        methods = arm.plain_methods()
        plain["adapter"] = methods[0] if len(methods) == 1 else methods
        own = self.recipe.task_options or {}
        plain["tasks"] = {task: own.get(task, {}) for task in run.tasks}
        head = plain.get("head")
        if isinstance(head, Mapping) and "name" not in head:
            plain["head"] = {task: head[task] for task in run.tasks if task in head}
        train = dict(plain["train"])
        # the search is over the rate of the adapted part; with heads only, that is the heads
        train["head_lr"] = run.rate if arm.role == "frozen" else self.training.head_lr or self.training.lr
        train |= {"lr": run.rate, "seed": run.seed}
        balance = train.get("balance")
        if isinstance(balance, Mapping) and not isinstance(balance.get("name"), str):
            train["balance"] = {task: weight for task, weight in balance.items() if task in run.tasks} or None
        if self.training.best_by is not None and self.training.best_by.partition(".")[0] not in run.tasks:
            train["best_by"] = None
        if self.training.log is None:
            train["log"] = ["csv"]
        return dataclasses.replace(self.recipe, plain=plain | {"train": train, "out": str(self.out)})

    def build(self, run: ArmRun) -> Model:
        """The untrained model of a run."""
        return build_model(self.recipe_of(run), self.parts.train(run.tasks), trunk=self.random_trunk(run))

    def random_trunk(self, run: ArmRun) -> Backbone | None:
        """The trunk of a run with random weights from its seed; None if it uses the recipe's weights."""
        choice = self.recipe.backbone
        assert choice is not None
        return choice.build_random(run.seed) if self.arms[run.arm].trunk == "random" else None

    def content(self, run: ArmRun) -> dict[str, object]:
        """Everything that determines the results of a run."""
        return {
            **self._model_content(run),
            "train": self.parts.digest("train", run.tasks),
            "held_out": self.parts.digest("held_out", run.tasks),
            "options": training_content(self.recipe_of(run).options),
        }

    def key(self, run: ArmRun) -> str:
        """The key of a run: a digest of its content."""
        if run not in self._keys:
            self._keys[run] = key_of({"run": self.content(run)})
        return self._keys[run]

    def measure_key(self, run: ArmRun) -> str:
        """The key of the measurement of a run's bundle on the test set."""
        size = self.training.eval_size
        test = self.parts.digest("test", run.tasks)
        return key_of({"measured": self.key(run), "test": test, "size": size, "batch": self.training.eval_batch_size})

    def cost_content(self, run: ArmRun) -> dict[str, object]:
        """Everything that determines the cost of a step of a run's model."""
        options = self.recipe_of(run).options
        train = self.parts.digest("train", run.tasks)
        return {**self._model_content(run), "options": step_content(options), "train": train}

    def _model_content(self, run: ArmRun) -> dict[str, object]:
        arm, head = self.arms[run.arm], self.recipe_of(run).head
        facts = self.trunk_facts
        trunk: dict[str, object] = {
            "name": facts.name,
            "options": facts.options,
            "taps": facts.taps,
            "fingerprint": facts.fingerprint,
        }
        if arm.trunk == "random":
            choice = self.recipe.backbone
            assert choice is not None
            trunk = {"name": choice.name, "options": choice.options, "taps": choice.taps, "fingerprint": "random"}
        if self.recipe.backbone is not None and self.recipe.backbone.drop_path:
            trunk["drop_path"] = self.recipe.backbone.drop_path  # absent if 0, as in results of versions without it
        if self.recipe.trunk is not None:
            trunk["bands"] = describe(self.recipe.trunk)  # absent without the section, likewise
        heads = head if isinstance(head, Mapping) else dict.fromkeys(run.tasks, head)
        return {
            "trunk": trunk,
            "methods": arm.plain_methods(),
            "heads": {task: describe(heads.get(task) or LinearHead()) for task in run.tasks},
            "tasks": {task: describe(self.tasks[task]) for task in run.tasks},
        }


def _check(recipe: Recipe, options: TrainOptions) -> None:
    """Raise OptionError for options that would give arms different budgets, or that need a fresh trunk per run."""
    if recipe.backbone is None:
        raise recipe.fault("backbone", "none given; name one, e.g. backbone: mit_b0")
    if recipe.onto:
        raise recipe.fault("onto", "a comparison trains every arm on the bare trunk; leave it out")
    if options.batch_size == "auto":
        raise recipe.fault("train.batch_size", "auto would give arms different batches; set a number")
    if options.devices not in (1, "auto"):
        raise recipe.fault("train.devices", f"{options.devices}, but each run has one process; set 1, and --jobs")
    if options.patience is not None:
        raise recipe.fault("train.patience", "ends arms after different numbers of steps; leave it out")
