"""Several owners' rows in one batch against each owner alone, on the device: times of passes and of training steps.

A ViT-S/14 with a LoRA and a linear head of each of four tasks; every picture of the batch wants one task, in turn.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from arms import CASES, TINY, move_off_zero
from stepping import seconds_now
from torch import Tensor

import garnish as gn
import tiny
from garnish.model.model import Model

TASKS, BATCH, ROUNDS, WARM_UP = 4, 16, 15, 3
#: float32 rounding differs with the number of rows in a product; bf16 has three digits
BOUNDS = {False: 2e-3, True: 1e-1}


def model_of(first: int, quick: bool, device: str) -> Model:
    """LoRA of each task from block number ``first`` on."""
    torch.manual_seed(0)
    case = (TINY if quick else CASES)["ViT-S"]
    trunk = gn.backbone(case.trunk, options=dict(case.options) or None)
    blocks = list(dict.fromkeys((s.stage, s.block) for s in trunk.sites() if s.block is not None))
    roles = ("qkv", "proj", "fc1", "fc2")
    sites = [s for s in trunk.sites() if s.kind == "layer" and s.role in roles and s.block is not None]
    layers = tuple(s.name for s in sites if (s.stage, s.block) >= blocks[first])
    tasks = {f"task{number}": gn.Semantic(classes=4) for number in range(TASKS)}
    model = gn.adapt(trunk, gn.LoRA(rank=8, layers=layers, per_task=True), tasks, gn.LinearHead()).to(device)
    move_off_zero(list(model.trained_parameters().values()))
    return model


def items(device: str, quick: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """One item a depth, dtype and mode."""
    for bf16 in (False, True):
        for where, first in (("from block 0", 0), ("from the middle", 2 if quick else 6)):
            for training in (False, True):
                label = f"{where}, {'training step' if training else 'pass'}, {'bf16 autocast' if bf16 else 'float32'}"
                yield (
                    label,
                    lambda first=first, bf16=bf16, training=training: compare(
                        first, device, quick=quick, bf16=bf16, training=training
                    ),
                )


def compare(first: int, device: str, *, quick: bool, bf16: bool, training: bool) -> dict[str, Any]:
    """A mixed batch over owners one by one and, of passes, over the bare trunk; how far outputs are apart."""
    model = model_of(first, quick, device).train(training)
    case = (TINY if quick else CASES)["ViT-S"]
    batch = TASKS * (1 if quick else BATCH // TASKS)
    x = torch.rand(batch, 3, *case.size, generator=torch.Generator().manual_seed(1)).to(device)
    names = list(model.tasks)
    each = [[names[number % TASKS]] for number in range(batch)]
    parts = {name: x[number::TASKS].contiguous() for number, name in enumerate(names)}
    prepared = model.prepare(x)

    def mixed() -> dict[str, Tensor]:
        return model(x, each)

    def alone() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, own in parts.items():
            found |= model(own, [name])
        return found

    def trunk() -> dict[str, Tensor]:
        return {"maps": model.backbone(prepared, ())[-1]}

    def seconds(run: Callable[[], dict[str, Tensor]]) -> float:
        for parameter in model.parameters():
            parameter.grad = None
        start = seconds_now(device)
        with torch.set_grad_enabled(training), around():
            loss = sum(out.float().square().mean() for out in run().values())
        if training:
            loss.backward()  # type: ignore[union-attr]
        return seconds_now(device) - start

    def around() -> contextlib.AbstractContextManager[object]:
        return torch.autocast(device, torch.bfloat16) if bf16 else contextlib.nullcontext()

    with torch.no_grad(), around():
        one, other = mixed(), alone()
    apart = max(tiny.far(one[name].float(), other[name].float()) for name in names)
    ways = {"mixed": mixed, "alone": alone, **({} if training else {"trunk": trunk})}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    rounds = 2 if quick else ROUNDS
    for number in range(-WARM_UP, rounds):
        for way in list(ways)[:: 1 if number % 2 else -1]:
            spent = seconds(ways[way])
            if number >= 0:
                taken[way].append(spent)
    over = {
        way: statistics.median(m / o for m, o in zip(taken["mixed"], taken[way], strict=True)) for way in list(ways)[1:]
    }
    found = {"seconds": {way: statistics.median(spent) for way, spent in taken.items()}, "mixed_over": over}
    return {**found, "apart": apart, "over": [f"{apart:.2g}"] * (not apart <= BOUNDS[bf16]), "batch": batch}
