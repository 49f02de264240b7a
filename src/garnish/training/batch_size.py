"""``batch_size="auto"``: the largest batch whose training step fits into a memory limit."""

from __future__ import annotations

from collections.abc import Callable

import torch

from garnish.checking.machine_memory import machine_bytes
from garnish.errors import OptionError
from garnish.training.memory_plan import MemoryPlan, plan_levels, size_in_words
from garnish.training.simulated_step import Levels, SimulatedStep
from garnish.training.train_options import TrainOptions

MOST_PICTURES = 512


def largest_batch(simulated: SimulatedStep, options: TrainOptions, bound: int, most: int) -> tuple[int, MemoryPlan]:
    """The largest batch size (at most ``most``, and 512) whose step takes at most ``bound`` bytes, and its plan.

    The blocks have the level that ``options`` sets, else ``lean``: blocks that run again would make room for more
    pictures, but each of them would take longer. Only where not even one picture fits so do blocks run again.

    Raises:
        OptionError: even one picture does not fit.
    """
    if simulated.kept_bytes >= bound:
        raise OptionError(
            "train.batch_size: auto: gradients and moments of what is trained take"
            f" {size_in_words(simulated.kept_bytes)}, the bound is {size_in_words(bound)}; raise memory_gb, or train"
            " less of the model"
        )
    levels = (options.level,) * simulated.num_blocks

    def peak(count: int) -> int:
        return simulated.peak(levels, count)

    one = peak(1)
    if one > bound:
        found = MemoryPlan(levels, one, False) if options.sets_level else plan_levels(simulated, 1, bound)
        if not found.fits:
            again = "" if options.level == "least" or not options.sets_level else "set memory to least, "
            raise OptionError(
                f"train.batch_size: auto: one picture takes {size_in_words(found.peak_bytes)}, the bound is"
                f" {size_in_words(bound)}; raise memory_gb, {again}or train on smaller pictures (augment.size)"
            )
        return 1, found
    most = min(most, MOST_PICTURES)
    size = _largest(peak, bound, most) if most > 1 else 1
    return size, MemoryPlan(levels, peak(size), True)


def _largest(peak: Callable[[int], int], bound: int, most: int) -> int:
    """The largest count up to ``most`` with ``peak(count) <= bound``, which grows about linearly."""
    each = max(peak(2) - peak(1), 1)
    size = min((bound - peak(1)) // each + 1, most)
    while size > 1 and peak(size) > bound:
        size -= max(1, min((peak(size) - bound) // each, size - 1))
    while size < most and peak(size + 1) <= bound:
        size += 1
    return size


def that_holds(size: int, levels: Levels, measured: Callable[[Levels, int], int], bound: int) -> int:
    """The size, lowered by tenths until a real step on a GPU takes at most ``bound`` bytes of its allocator."""
    while size > 1 and not _holds(size, levels, measured, bound):
        size = int(size * 0.9)
    return size


def _holds(size: int, levels: Levels, measured: Callable[[Levels, int], int], bound: int) -> bool:
    try:
        return measured(levels, size) <= bound
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return False


def available(device: torch.device) -> int:
    """Bytes that a step may use by default: 0.9 of a GPU's free memory, else half of the machine's (or container's)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(0.9 * (free + torch.cuda.memory_reserved(device)))
    return machine_bytes() // 2
