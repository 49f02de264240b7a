"""The memory of a run's steps: what the trunk keeps, the batch size, and whether the first step is as predicted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import final

import torch
from lightning.fabric import Fabric
from torch import Tensor

from garnish.checking.recording import Recorder
from garnish.data.dataset import Batch, Dataset
from garnish.errors import GarnishError, OptionError, one_line, plural
from garnish.training.batch_size import available, largest_batch, that_holds
from garnish.training.example_batch import example_picture
from garnish.training.feature_cache import CachedTrunk
from garnish.training.feature_file import pack, unpack
from garnish.training.gradients import GradientWatch
from garnish.training.memory_plan import MemoryPlan, in_words, plan_levels, size_in_words
from garnish.training.saved_facts import RunFacts
from garnish.training.simulated_step import SimulatedStep, loaded_tensors, moments
from garnish.training.step import TrainingStep
from garnish.training.undone_step import BegunStep


@final
class RunMemory:
    """Sets what the trunk keeps in a run's steps; :meth:`close` restores it.

    Args:
        step: of the run, whose model is on its device and in training mode.
        fabric: the processes that share a step.

    Attributes:
        plan: levels of the blocks and predicted bytes, if there is a bound or the batch size is found; else None.
        warnings: lines to print before the first step.
    """

    def __init__(self, step: TrainingStep, fabric: Fabric) -> None:
        self.step, self.options, self.fabric = step, step.options, fabric
        self.warnings: list[str] = []
        self._line, self._faults = "", list[str]()
        self.trunk = step.model.backbone
        self.plan: MemoryPlan | None = None
        self._former = self.trunk.memory
        self._bound = self._pixels = 0
        self._recorder: Recorder | None = None
        self._before_update = (0, 0)
        self._is_on_gpu, self._allocated = fabric.device.type == "cuda", 0
        self._is_checked = False

    def close(self) -> None:
        """Restore what was set before the run."""
        self.trunk.memory = self._former

    # ---- before the first step --------------------------------------------------------------------------------------

    def begin(self, train: Dataset, saved: RunFacts | None) -> int:
        """Choose the levels and the batch size, which is returned; a resumed run keeps those of its start.

        Raises:
            OptionError: no step of this size, or of one picture, fits; or the model is compiled.
        """
        options = self.options
        self.trunk.memory = options.level
        size = options.batch_size if saved is None else saved["batch_size"]
        if options.batch_size != "auto" and options.memory_gb is None:
            return int(size)
        if self.step.model.is_compiled:
            name = "batch_size: auto" if options.memory_gb is None else "memory_gb"
            raise OptionError(f"train.{name}: what a compiled model keeps cannot be planned; set a number of pictures")
        given = options.memory_gb
        self._bound = int(given * 1e9) if given is not None else available(self.fabric.device)
        simulated = self._simulated(train)
        count, plan = self._chosen(simulated, size, len(train), saved)
        if self.fabric.world_size > 1:
            plan = self.fabric.broadcast(plan)
        self.plan, self.trunk.memory = plan, plan.levels
        return count

    def _simulated(self, train: Dataset) -> SimulatedStep:
        step, options = self.step, self.options
        sample, gaps = example_picture(train, step.tasks, options)
        height, width = sample.size
        self._pixels = height * width
        if options.cache is not None:
            kept = CachedTrunk(step.model, list(step.tasks), self.fabric)(sample)
            sample = unpack(pack(kept), step.tasks)
        world = self.fabric.world_size
        made = SimulatedStep(step, sample, gaps=gaps, processes=world, is_real=False)
        try:
            made.peak((options.level,) * made.num_blocks, 1)
        except GarnishError:
            raise
        except Exception as error:  # e.g. a loss that reads values, which fake tensors lack
            self.warnings.append(f"memory: counted in real steps, as one cannot be predicted ({one_line(error, 120)})")
            return SimulatedStep(step, sample, gaps=gaps, processes=world, is_real=True)
        return made

    def _chosen(
        self, simulated: SimulatedStep, size: int | str, pictures: int, saved: RunFacts | None
    ) -> tuple[int, MemoryPlan]:
        if saved is not None and "levels" in saved:
            levels, count = tuple(saved["levels"]), int(size)
            if len(levels) == simulated.num_blocks:  # else of another trunk, which is told when facts are compared
                peak = simulated.peak(levels, count)
                return count, MemoryPlan(levels, peak, peak <= self._bound)
        if size != "auto":
            plan = plan_levels(simulated, int(size), self._bound)
            if not plan.fits:
                raise OptionError(
                    f"train.memory_gb: a step of {plural(int(size), 'picture')} takes {size_in_words(plan.peak_bytes)}"
                    f" with blocks run again, and the bound is {size_in_words(self._bound)}; lower batch_size, train on"
                    " smaller pictures (augment.size), or raise memory_gb"
                )
            return int(size), plan
        most = max(1, pictures // int(self.fabric.world_size))
        count, plan = largest_batch(simulated, self.options, self._bound, most)
        if self._is_on_gpu:
            count = that_holds(count, plan.levels, simulated.allocated, self._bound)
        if self.fabric.world_size > 1:
            smallest = torch.tensor(count, device=self.fabric.device)
            self.fabric.all_reduce(smallest, reduce_op="min")
            count = int(smallest.item())
        return count, MemoryPlan(plan.levels, simulated.peak(plan.levels, count), True)

    # ---- in the first step ------------------------------------------------------------------------------------------

    def look_ahead(self, batch: Batch, watch: GradientWatch, seed: Callable[[], None]) -> None:
        """Before a pass under a bound: find each task's gradients in passes of their own, which keep no graph.

        Args:
            batch: on the device.
            watch: told of the gradients of tasks that it has not judged yet.
            seed: called before each pass, so that it draws what the step itself will.
        """
        if self.plan is None:
            return
        height, width = batch.images.shape[-2:]
        if height * width > self._pixels:
            self._pixels = height * width
            self._faults.append(
                f"memory: a picture of {height} × {width} is larger than those that were planned for, so a step may"
                " take more than the bound; set augment.size"
            )
        due = [task for task in batch.targets if watch.judges([task])]
        if not due:
            return
        begun = BegunStep(self.step.buffers().values())
        begun.begin()

        def loss_of(task: str) -> Tensor:
            seed()
            return self.step.loss_alone(task, batch)

        watch.observe_alone(due, loss_of)
        begun.undo()

    def faults(self) -> list[str]:
        """Warnings that arose since the last call."""
        found, self._faults = self._faults, []
        return found

    def line(self) -> str:
        """What the first step took, once; else empty."""
        found, self._line = self._line, ""
        return found

    @contextlib.contextmanager
    def counted(self, batch: Batch | None = None) -> Iterator[None]:
        """A part of a step, whose bytes are counted if it is the first step; without a batch its last part."""
        if self.plan is None or self._is_checked:
            yield
            return
        if self._recorder is None:
            self._recorder = Recorder([*loaded_tensors(self.step), *moments(self.step)])
            if self._is_on_gpu:
                here = (*moments(self.step), *(() if batch is None else batch.tensors()))
                self._allocated = torch.cuda.memory_allocated(self.fabric.device) - sum(t.nbytes for t in here)
                torch.cuda.reset_peak_memory_stats(self.fabric.device)
        self._recorder.add(() if batch is None else batch.tensors())
        handle = self.step.optimizer.register_step_pre_hook(self._updating)
        try:
            with self._recorder:
                yield
        finally:
            handle.remove()
        if batch is None:
            self._is_checked = True
            self._check(self.plan, self._recorder)
            self._recorder = None

    def _updating(self, *_: object) -> None:
        assert self._recorder is not None
        if not self.step.optimizer.state:
            self._before_update = self._recorder.peak_bytes, self._taken()

    def _taken(self) -> int:
        """Most bytes that a GPU's allocator has handed out in the step so far; 0 elsewhere."""
        return int(torch.cuda.max_memory_allocated(self.fabric.device)) if self._is_on_gpu else 0

    def _check(self, plan: MemoryPlan, recorder: Recorder) -> None:
        """Say what the first step took. The moments, which it makes at its end, are there in all others."""
        loaded = Recorder(loaded_tensors(self.step)).start_bytes
        before, taken_before = self._before_update
        later = sum(tensor.nbytes for tensor in moments(self.step)) if before else 0
        peak = max(recorder.peak_bytes, before + later) - loaded
        told = f"{size_in_words(plan.peak_bytes)} predicted, {size_in_words(peak)} in the first step"
        if self._is_on_gpu:
            taken = max(self._taken(), taken_before + later) - self._allocated
            told += f" ({size_in_words(taken)} with what the allocator rounds up)"
            peak = max(peak, taken)
        told = f"memory: {in_words(plan.levels)}; {told}, bound {size_in_words(self._bound)}"
        if peak <= self._bound:
            self._line = told
        else:
            self._faults.append(f"{told}, which it exceeds; lower batch_size or memory_gb")
