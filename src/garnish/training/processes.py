"""The processes of a run: devices and precision, equal weights at the start, and errors raised on every rank."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterable, Iterator

import torch
from lightning.fabric import Fabric
from torch import Tensor

from garnish.backbones.backbone import Backbone
from garnish.data.check import check
from garnish.data.dataset import Dataset
from garnish.errors import DataError, GarnishError, OptionError, one_line
from garnish.training.train_options import TrainOptions


def make_fabric(options: TrainOptions) -> Fabric:
    """Set up devices, precision and processes; those started by torchrun are used as they are.

    Raises:
        OptionError: a device or precision that this machine does not have.
    """
    devices, nodes = options.devices, 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices, nodes = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["GROUP_WORLD_SIZE"])
    several = options.strategy == "ddp" or devices != 1 or nodes != 1
    try:
        with warnings.catch_warnings(), _without_news():
            warnings.filterwarnings("ignore", message=".*fp16 is not supported on CPU.*")  # refused below
            fabric = Fabric(
                accelerator=options.accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy="ddp" if several and options.accelerator != "mps" else "auto",
                precision=options.precision,
            )
    except (RuntimeError, ValueError, TypeError) as error:
        raise OptionError(
            f"train: accelerator {options.accelerator}, devices {options.devices}, precision {options.precision}:"
            f" {one_line(error, 200)}; choose what this machine has"
        ) from None
    if options.precision == "16-mixed" and fabric.device.type == "cpu":
        raise OptionError("train.precision: 16-mixed needs a GPU; use 32-true or bf16-mixed on a CPU")
    fabric.launch()
    return fabric


@contextlib.contextmanager
def _without_news() -> Iterator[None]:
    """Suppress Fabric's log line about precision, which would come with each run of a comparison."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))  # all loggers, as the name of Fabric's depends on other imports
    try:
        yield
    finally:
        logging.disable(before)


def check_data(sets: Iterable[Dataset], limit: int, fabric: Fabric, trunk: Backbone | None = None) -> list[str]:
    """Read pictures and labels on the first rank; returns its warnings.

    Args:
        sets: the data sets to read.
        limit: pictures of each, evenly spaced; 0: none.
        fabric: every rank raises what the first one found.
        trunk: what bands are compared with; 8-bit RGB is not.

    Raises:
        DataError: the first fault, with the number of others.
    """
    fault = ""
    cause: BaseException | None = None
    found: list[str] = []
    if fabric.is_global_zero and limit:
        try:
            for dataset in sets:
                report = check(dataset, limit=limit, trunk=None if dataset.bands.is_rgb else trunk)
                report.raise_first()
                found += [line for line in report.warnings if line not in found]  # two splits may give the same warning
        except GarnishError as error:  # any of them, since the other ranks wait for the result
            fault, cause = str(error), error.__cause__
    if fabric.world_size > 1:
        fault = fabric.broadcast(fault)
    if fault:
        raise DataError(fault) from cause
    return found


def agreed(number: int | None, fabric: Fabric) -> int:
    """The largest number that any process has, 0 where none has one; all of them call this."""
    if fabric.world_size == 1:
        return number or 0
    return int(fabric.all_reduce(torch.tensor(number or 0, device=fabric.device), reduce_op="max"))


def is_first_process() -> bool:
    """Whether this is the first process of those that trained, or the only one: the one that speaks."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def start_alike(backbone: Backbone, tensors: Iterable[Tensor], fabric: Fabric) -> None:
    """Copy the first rank's tensors to every rank.

    Raises:
        OptionError: backbones whose weights differ between ranks.
    """
    if fabric.world_size == 1:
        return
    mark = torch.tensor(int(backbone.fingerprint()[:12], 16), device=fabric.device)
    largest = fabric.all_reduce(mark.clone(), reduce_op="max")
    if largest != fabric.all_reduce(mark.clone(), reduce_op="min"):
        raise OptionError("train: the backbones of the processes differ; load weights, or seed before building one")
    with torch.no_grad():
        for tensor in tensors:
            value = tensor.clone() if fabric.global_rank == 0 else torch.zeros_like(tensor)
            tensor.copy_(fabric.all_reduce(value, reduce_op="sum"))
