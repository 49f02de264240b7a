"""One arm, stepped: seconds of a step, and the bytes that are alive in one.

Bytes are of all storages but those of parameters, buffers and pictures, counted for every arm by one tool, the
``Recorder`` of this tree (read from its file: the package that is imported may be an older tree's).
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from arms import Arm, Case, LeftOutError, Levels, build, set_levels
from bounded import levels_within
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]


def _recorder() -> Any:
    """The class that counts bytes."""
    spec = importlib.util.spec_from_file_location("recording", ROOT / "src" / "garnish" / "checking" / "recording.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Recorder


Recorder = _recorder()


def tf32_off() -> None:
    """Products and convolutions of float32 in float32, where a GPU would round their factors to TF32."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def seconds_now(device: str) -> float:
    """On the CPU the processor time of this thread, which does all the work; on CUDA, once it is idle, wall time."""
    if device == "cpu":
        return time.thread_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class Stepper:
    """A step is forward, the loss of all maps and backward; gradients are made anew in each.

    Args:
        arm: what is stepped.
        images: (B, 3, H, W), on the arm's device.
        bf16: under autocast to bfloat16.
    """

    def __init__(self, arm: Arm, images: Tensor, *, bf16: bool = False) -> None:
        self.arm = arm
        self.images = images
        self.device = images.device.type
        self.bf16 = bf16

    def loss(self) -> Tensor:
        """Forward, and the loss alone is held."""
        context = torch.autocast(self.device, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with context:
            return self.arm.loss(self.images)

    def clear(self) -> None:
        """Drop all gradients."""
        for parameter in self.arm.trained:
            parameter.grad = None

    def step(self) -> float:
        """Seconds of one step."""
        self.clear()
        start = seconds_now(self.device)
        self.loss().backward()
        return seconds_now(self.device) - start

    def bytes(self) -> dict[str, int]:
        """Bytes alive in a step: call it before any other, so that what an arm keeps between steps is seen, too.

        ``kept``: when the forward pass has returned and the loss is held; ``peak``: most at any moment of forward and
        backward; ``gradients``: of them the gradients, after it; ``left``: what stays when they are dropped.
        """
        self.clear()
        gc.collect()
        with Recorder([*self.arm.present, self.images]) as recorder:
            loss = self.loss()
            kept = recorder.alive_bytes
            loss.backward()
        del loss
        gradients = {p.grad.untyped_storage() for p in self.arm.trained if p.grad is not None}
        sizes = sum(storage.nbytes() for storage in gradients)
        peak = recorder.peak_bytes
        del gradients
        self.clear()
        gc.collect()
        start = recorder.start_bytes
        return {
            "kept": kept - start,
            "peak": peak - start,
            "gradients": sizes,
            "left": recorder.alive_bytes - start,
        }

    def cuda_peak(self) -> int:
        """Most bytes that CUDA's allocator held in a step, above what was held before; after a step to warm up."""
        self.clear()
        gc.collect()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self.loss().backward()
        torch.cuda.synchronize()
        found = torch.cuda.max_memory_allocated() - before
        self.clear()
        return found


class Working:
    """What a worker process does: one arm, built and asked over pipes."""

    def __init__(
        self,
        arm: str,
        case: Mapping[str, Any],
        method: str,
        options: Mapping[str, Any],
        levels: Levels | list[str] | int,
        device: str,
        bf16: bool,
    ) -> None:
        tf32_off()
        self.left_out = ""
        chosen = Case(**{**case, "size": tuple(case["size"])})
        bound = levels if isinstance(levels, int) else None  # bytes, for which levels are planned
        levels = tuple(levels) if isinstance(levels, list) else "fast" if isinstance(levels, int) else levels
        try:
            made = build(arm, chosen, method, options, levels, device)
        except LeftOutError as error:
            self.left_out = str(error)
            return
        self.stepper = Stepper(made, chosen.pictures(device), bf16=bf16)
        self.levels: list[str] | None = None
        if bound is not None:
            found = levels_within(self.stepper, made.trunk, bound)
            set_levels(made.trunk, found)
            self.levels = list(found)

    def facts(self) -> dict[str, Any]:
        """Why it is left out, or its bytes, its trained numbers and the shapes of its maps."""
        if self.left_out:
            return {"left_out": self.left_out}
        found: dict[str, Any] = {"bytes": self.stepper.bytes()}
        if self.stepper.device == "cuda":
            self.stepper.step()
            found["bytes"]["cuda_peak"] = self.stepper.cuda_peak()
        if self.levels is not None:
            found["levels"] = self.levels
        found["trained"] = sum(p.numel() for p in self.stepper.arm.trained)
        with torch.no_grad():
            found["maps"] = [list(x.shape) for x in self.stepper.arm.maps(self.stepper.images)]
        return found

    def step(self) -> float:
        """Seconds of one step."""
        return self.stepper.step()
