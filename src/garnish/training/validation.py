"""Validation during a run: when to evaluate, the metrics, and the effect of storing the best bundle in float16."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

from lightning.fabric import Fabric
from torch import Tensor

from garnish.data.dataset import Batch, Dataset
from garnish.data.subset import chosen
from garnish.model.model import Model
from garnish.training.evaluate import Metrics, evaluate_parts, shared_tasks
from garnish.training.feature_cache import CachedPictures
from garnish.training.float16_effect import holding, write_rounding
from garnish.training.odd_outputs import OddOutputs
from garnish.training.saved_facts import RunState
from garnish.training.task_details import Evaluated, TaskDetails
from garnish.training.train_options import TrainOptions

AfterEach = Callable[[list[int], Batch, Mapping[str, Tensor]], bool]

#: Most validation pictures, evenly spaced, on which the effect of storing a bundle in float16 is measured.
_ROUNDING_PICTURES = 200


@final
class Validation:
    """Evaluates a model on the validation pictures of its run.

    Args:
        model: the model in training.
        data: the validation pictures.
        options: how they are evaluated.
        fabric: the processes that share them.
        kept: the pictures with cached features; None: not cached.
        every: steps between evaluations.
    """

    def __init__(
        self,
        model: Model,
        data: Dataset,
        options: TrainOptions,
        fabric: Fabric,
        kept: CachedPictures | None,
        every: int,
    ) -> None:
        self.model, self.data, self.options, self.fabric = model, data, options, fabric
        self.kept, self.every = kept, every
        pictures = chosen(len(data), options.eval_limit)
        self._some = [pictures[i] for i in chosen(len(pictures), _ROUNDING_PICTURES)]
        self._rest = sorted(set(pictures) - set(self._some))
        self.tasks = {name: model.tasks[name] for name in shared_tasks(model, data)}

    def due(self, state: RunState, total: int) -> bool:
        """Whether the model is to be evaluated at the current step of ``total``."""
        last = state.history[-1]["step"] if state.history else 0
        return state.step != last and (state.step % self.every == 0 or state.step == total)

    def shown(self, count: int) -> list[int]:
        """Indices of ``count`` pictures, evenly spaced among those that the first process evaluates."""
        own = self._some[:: self.fabric.world_size]
        return [own[place] for place in chosen(len(own), count)] if count else []

    def measured(self, after_each: AfterEach, *, detailed: bool) -> tuple[Metrics, Metrics, OddOutputs, TaskDetails]:
        """Metrics on all pictures, metrics on those of :meth:`record_rounding`, outputs that are not finite, details.

        ``after_each`` is called after each batch with its pictures, itself, and the outputs; False ends it here.
        """
        parts = [self._some, self._rest] if self._rest else [self._some]
        found, odd = self._evaluated(parts, after_each, detailed=detailed)
        return found.metrics[-1], found.metrics[0], odd, found.details

    def record_rounding(self, bundle: Path, reached: Metrics) -> list[str]:
        """Evaluate a bundle as stored, on some pictures, and write the change of its metrics into it.

        Args:
            bundle: of this model.
            reached: its metrics on the same pictures before it was stored.

        Returns:
            Lines about outputs that are not finite.
        """
        self.fabric.barrier()  # the first rank writes the bundle, all read it
        with holding(self.model, bundle):
            found, odd = self._evaluated([self._some])
            (metrics,) = found.metrics
            lines = [f"{bundle}: as it is stored, {odd.line()}"] if odd.tasks else []
        if self.fabric.is_global_zero:
            write_rounding(bundle, {t: {k: v - reached[t][k] for k, v in m.items()} for t, m in metrics.items()})
        return lines

    def headlines(self, metrics: Mapping[str, Mapping[str, float]]) -> str:
        """The headline metric of each task as text."""
        heads = {n: (t.headline, metrics[n][t.headline]) for n, t in self.model.tasks.items() if n in metrics}
        return "  ".join(f"{name} {metric} {value:.4g}" for name, (metric, value) in heads.items())

    def _evaluated(
        self, parts: list[list[int]], after_each: AfterEach | None = None, *, detailed: bool = False
    ) -> tuple[Evaluated, OddOutputs]:
        odd = OddOutputs(self.model, self.fabric)
        with self.fabric.autocast():
            found = evaluate_parts(
                self.model, self.data, parts,
                batch_size=self.options.eval_batch_size, size=self.options.eval_size, fabric=self.fabric,
                kept=self.kept, odd=odd, detailed=detailed, after_each=after_each,
            )  # fmt: skip
        return found, odd
