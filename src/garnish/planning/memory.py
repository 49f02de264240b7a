"""Memory of this process, and free memory of the machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

from garnish.adapters.reference import Frozen
from garnish.backbones.build import backbone
from garnish.checking.machine_memory import machine_bytes
from garnish.model.model import adapt
from garnish.planning.example_step import ExampleStep
from garnish.tasks.semantic import Semantic

_TINY = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}


def baseline_bytes() -> int:
    """Resident memory after a tiny training step, which loads everything that steps need: Python and its libraries."""
    ExampleStep(adapt(backbone("mit_b0", options=_TINY), Frozen(), {"seg": Semantic(classes=2)}), 1, (32, 32))()
    return resident_bytes()


def resident_bytes() -> int:
    """Resident memory of this process; 0 if the system does not report it."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def free_bytes() -> float:
    """Memory that this process may still allocate; infinite if the system does not report it."""
    told = Path("/proc/meminfo")
    if not told.exists():
        return math.inf
    line = next(line for line in told.read_text().splitlines() if line.startswith("MemAvailable:"))
    return min(int(line.split()[1]) * 1024, machine_bytes() - resident_bytes())
