"""``batch_size="auto"``: the largest batch whose training step fits into a memory limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from garnish.checking.machine_memory import machine_bytes
from garnish.data.dataset import Batch, Dataset, Sample, collate
from garnish.errors import OptionError
from garnish.model.model import Model
from garnish.model.report import bytes_for_backward
from garnish.training.train_options import TrainOptions

#: Memory of a step on a CPU, temporaries included, over what it saves for backward (which alone can be counted there).
IN_PASSING = 1.5
#: Pictures among which the one with the most labels is searched.
_LOOKED_AT = 16
_MOST = 512


def largest_batch(
    model: Model, dataset: Dataset, options: TrainOptions, loss_of: Callable[[Batch], Tensor], fabric: Fabric
) -> int:
    """The largest batch size (at most the pictures of a process, and 512) that fits; the same on every rank.

    Memory is measured with one and with two copies of the picture that has the most labels, and extrapolated linearly.
    On a GPU the peak of a whole step is measured, and the result is verified; elsewhere the bytes saved for the
    backward pass are counted, with 50 % added for temporaries. What every step but the first also holds is added: a
    gradient and AdamW's two moments of each trained parameter.

    Args:
        model: on its device; its tensors are restored afterwards.
        dataset: the training pictures.
        options: augmentation, precision, ``memory_gb``.
        loss_of: the loss of a batch.
        fabric: device, precision and ranks.

    Raises:
        OptionError: even one picture does not fit.
    """
    kept = optimizer_bytes(model.trained_parameters().values(), fabric.world_size)
    bound = int(options.memory_gb * 1e9) if options.memory_gb is not None else available(fabric.device)
    seen = [dataset[i] for i in range(min(len(dataset), _LOOKED_AT))]
    sample = max(seen, key=lambda s: len(s.targets))
    if options.augment is not None:
        sample = options.augment(sample, (options.seed, 0, 0))
    buffers = {n: t for n, t in model.own_tensors().items() if not isinstance(t, nn.Parameter)}
    former = {n: t.clone() for n, t in buffers.items()}
    try:
        size = _fit(lambda n: measure(sample, n, loss_of, model, fabric) + kept, bound, kept, fabric.device)
    finally:
        for name, buffer in buffers.items():
            buffer.copy_(former[name])
        for parameter in model.trained_parameters().values():
            parameter.grad = None
    smallest = torch.tensor(size, device=fabric.device)
    if fabric.world_size > 1:
        fabric.all_reduce(smallest, reduce_op="min")
    most = max(1, len(dataset) // int(fabric.world_size))
    return min(int(smallest.item()), _MOST, most)


def _fit(measured: Callable[[int], int], bound: int, kept: int, device: torch.device) -> int:
    if kept >= bound:
        raise OptionError(
            f"train.batch_size: auto: gradients and moments of what is trained take {kept / 1e9:.2f} GB, the bound is"
            f" {bound / 1e9:.2f} GB; raise memory_gb, or train less of the model"
        )
    one, two = measured(1), measured(2)
    each = max(two - one, 1)
    size = (bound - one) // each + 1
    if size < 1:
        raise OptionError(
            f"train.batch_size: auto: one picture takes {one / 1e9:.2f} GB, the bound is {bound / 1e9:.2f} GB; raise"
            " memory_gb, set checkpointing, or train on smaller pictures (augment.size)"
        )
    size = min(size, _MOST)
    while device.type == "cuda" and size > 1 and not _holds(measured, size, bound):
        size = int(size * 0.9)
    return size


def _holds(measured: Callable[[int], int], size: int, bound: int) -> bool:
    try:
        return measured(size) <= bound
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return False


def optimizer_bytes(trained: Iterable[Tensor], world: int) -> int:
    """Bytes of a gradient and two moments per trained tensor; plus, with several processes, a flat gradient buffer."""
    each = sum(tensor.numel() * tensor.element_size() for tensor in trained)
    return each * (3 if world == 1 else 4)


def measure(sample: Sample, count: int, loss_of: Callable[[Batch], Tensor], model: Model, fabric: Fabric) -> int:
    """Bytes that a forward and backward pass over ``count`` copies of a picture takes, without the gradients.

    See :func:`largest_batch`. Gradients are allocated (as zeros) before it, as in each step after the first.
    """
    batch = collate([sample] * count).to(fabric.device)
    on_gpu = fabric.device.type == "cuda"
    if on_gpu:
        trained = list(model.trained_parameters().values())
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        torch.cuda.reset_peak_memory_stats(fabric.device)
        fabric.backward(loss_of(batch))
        peak = int(torch.cuda.max_memory_allocated(fabric.device))
        return peak - sum(p.grad.nbytes for p in trained if p.grad is not None)
    saved = bytes_for_backward(lambda: loss_of(batch), (*model.parameters(), *model.buffers()))
    return int(saved * IN_PASSING)


def available(device: torch.device) -> int:
    """Bytes that a step may use by default: 0.9 of a GPU's free memory, else half of the machine's (or container's)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(0.9 * (free + torch.cuda.memory_reserved(device)))
    return machine_bytes() // 2
