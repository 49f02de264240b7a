"""Training steps of a trunk alone on the device: garnish, PEFT and full fine-tuning, float32 and bf16, eager, compiled.

Arms, steps and bytes are those of benchmarks/training (arms.py, stepping.py); here the arms are in one process.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from arms import CASES, LEVELS, TINY, LeftOutError, build
from stepping import Stepper

ARMS = (*LEVELS, "peft", "full")
COMPILED = ("lean", "fast", "peft", "full")
#: pictures of a batch: enough to fill an accelerator, few enough for 8 GB
BATCH = 16
ROUNDS, WARM_UP = 15, 3


def stepper(
    arm: str, trunk: str, device: str, *, quick: bool, bf16: bool, compiled: dict[str, Any] | None = None
) -> Stepper:
    """An arm of LoRA, rank 8."""
    case = TINY[trunk] if quick else dataclasses.replace(CASES[trunk], batch=BATCH)
    made = build(arm, case, "LoRA", {"rank": 8}, LEVELS.get(arm, ""), device, compiled)
    return Stepper(made, case.pictures(device), bf16=bf16)


def in_turn(steppers: dict[str, Stepper], rounds: int) -> dict[str, list[float]]:
    """Seconds of each arm's steps, round by round; every other round runs in the opposite order."""
    taken: dict[str, list[float]] = {arm: [] for arm in steppers}
    for number in range(-WARM_UP, rounds):
        for arm in list(steppers)[:: 1 if number % 2 else -1]:
            seconds = steppers[arm].step()
            if number >= 0:
                taken[arm].append(seconds)
    return taken


def told(taken: dict[str, list[float]], reference: str) -> dict[str, Any]:
    """Median seconds of each arm, and the median ratio within a round to the reference."""
    found: dict[str, Any] = {}
    for arm, seconds in taken.items():
        found[arm] = {"seconds": statistics.median(seconds)}
        if reference in taken:
            ratios = [mine / theirs for mine, theirs in zip(seconds, taken[reference], strict=True)]
            found[arm]["over"] = statistics.median(ratios)
    return found


def items(device: str, quick: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """One item a trunk and dtype."""
    for trunk in ("ViT-S",) if quick else ("ViT-S", "Swin-T"):
        for bf16 in (False, True):
            label = f"{trunk}, {'bf16 autocast' if bf16 else 'float32'}"
            yield label, lambda trunk=trunk, bf16=bf16: eager(trunk, device, quick=quick, bf16=bf16)


def eager(trunk: str, device: str, *, quick: bool, bf16: bool) -> dict[str, Any]:
    """Bytes and steps of all arms, over PEFT's where it is there."""
    steppers, bytes_of, left_out = {}, {}, {}
    for arm in ARMS:
        try:
            made = stepper(arm, trunk, device, quick=quick, bf16=bf16)
        except LeftOutError as error:
            left_out[arm] = str(error)
            continue
        held = made.bytes()  # the first step of the arm
        if device == "cuda":
            held["cuda_peak"] = made.cuda_peak()
        steppers[arm], bytes_of[arm] = made, held
    rounds = 2 if quick else ROUNDS
    found = told(in_turn(steppers, rounds), "peft" if "peft" in steppers else "fast")
    for arm, held in bytes_of.items():
        found[arm]["bytes"] = held
    return {
        "arms": found,
        "reference": "peft" if "peft" in steppers else "fast",
        "left_out": left_out,
        "batch": steppers["fast"].images.shape[0],
        "rounds": rounds,
    }


def compiled_items(device: str, quick: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """One item an arm and dtype: each compiles, then steps in turn with itself uncompiled; bf16 first."""
    # quick: graphs run as they are, for to compile them for a CPU takes minutes
    options = {"backend": "aot_eager"} if quick else {}
    for bf16 in (True,) if quick else (True, False):
        for arm in ("fast", "peft") if quick else COMPILED:
            label = f"{arm}, {'bf16 autocast' if bf16 else 'float32'}"
            yield label, lambda arm=arm, bf16=bf16: compiled(arm, device, options, quick=quick, bf16=bf16)


def compiled(arm: str, device: str, options: dict[str, Any], *, quick: bool, bf16: bool) -> dict[str, Any]:
    """Seconds to compile, and a compiled step over an eager one; on CUDA the peaks of both."""
    torch._dynamo.reset()
    try:
        plain = stepper(arm, "ViT-S", device, quick=quick, bf16=bf16)
        made = stepper(arm, "ViT-S", device, quick=quick, bf16=bf16, compiled=options)
    except LeftOutError as error:
        return {"arm": arm, "left_out": str(error)}
    start = time.perf_counter()
    made.step()
    warming = time.perf_counter() - start
    with torch.no_grad():
        apart = abs(float(made.loss()) / float(plain.loss()) - 1)
    rounds = 2 if quick else ROUNDS
    found = told(in_turn({"eager": plain, "compiled": made}, rounds), "eager")
    if device == "cuda":
        found["peaks"] = {"eager": plain.cuda_peak(), "compiled": made.cuda_peak()}
    return {"arm": arm, "backend": options.get("backend", "inductor"), "warm_up": warming, "loss_apart": apart, **found}
