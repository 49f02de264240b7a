"""Small comparisons for the tests; also run as a script, to be killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from garnish.recipes.recipe import read_recipe

OPTIONS = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
ARMS = {"adapters": "LoRA(rank=2)", "references": ["frozen", "single"], "seeds": 2}
#: in results.json, what is of the clock
TIMES = {"created", "wall_seconds", "seconds", "step_seconds", "step_ratio", "command", "environment"}


def write_weights(file: Path) -> Path:
    """Weights of a tiny MiT."""
    import torch
    from safetensors.torch import save_file

    from garnish.backbones.build import backbone

    torch.manual_seed(7)  # no seed of a run
    trunk = backbone("mit_b0", options=OPTIONS)
    save_file({n: getattr(m, leaf).detach().contiguous() for n, m, leaf in trunk.named_slots()}, file)
    return file


def conditions(folder: Path, weights: Path, *, train: dict[str, Any] | None = None, **compare: Any):
    """A comparison on eight scenes of 32 pixels, four steps a run, two rates."""
    from garnish.comparing.compare_options import read_options
    from garnish.comparing.conditions import Conditions

    plain = {
        "backbone": {"name": "mit_b0", "weights": str(weights), "options": OPTIONS},
        "head": "LinearHead",
        "tasks": ["seg", "depth"],
        "data": {"name": "scenes", "train": 8, "val": 3, "test": 4, "size": 32},
        "train": {"steps": 4, "batch_size": 2, "eval_every": 1, "eval_batch_size": 3, "save_every": 1, "log": []}
        | (train or {}),
    }
    given = {"rates": [1e-3, 3e-3], "reference_rates": [1e-4, 3e-4], "widen": 0, "out": str(folder)} | ARMS | compare
    return Conditions(read_recipe(None, plain), read_options(None, given))


def run(folder: Path, weights: Path, **given: Any) -> dict[str, Any]:
    """Its results."""
    from garnish.comparing.compare import compare
    from garnish.comparing.typed_json import as_json

    return as_json(compare(conditions(folder, weights, **given)))


def trained(scores: list[tuple[int, float | None]], run: Any = None, warnings: tuple[str, ...] = ()) -> Any:
    """What a run came to whose evaluations had these scores at these steps."""
    from garnish.comparing.arms import ArmRun
    from garnish.comparing.outcomes import ScoredStep, Trained

    return Trained(
        run=run or ArmRun("LoRA", ("seg",), 1e-3, 0),
        best_step=max(step for step, _ in scores),
        steps=max(step for step, _ in scores),
        history=tuple(ScoredStep(step=step, score=score, metrics={}) for step, score in scores),
        seconds=1.5,
        batch_size=2,
        cached=False,
        warnings=warnings,
    )


def without_times(found: Any) -> Any:
    """Results without what is of the clock."""
    if isinstance(found, dict):
        return {key: without_times(value) for key, value in found.items() if key not in TIMES}
    return [without_times(value) for value in found] if isinstance(found, list) else found


def ask_late(whom: str) -> None:
    """Have runs ask "own" process or its "parent" to stop when their last step is done."""
    from garnish.training.run import Run

    finish = Run.finish

    def asking(self: Run) -> None:
        os.kill(os.getppid() if whom == "parent" else os.getpid(), signal.SIGTERM)
        time.sleep(2 if whom == "parent" else 0)  # until the parent has passed it on
        finish(self)

    Run.finish = asking  # type: ignore[method-assign]


if "LATE_SIGTERM" in os.environ:  # at import, for the processes of --jobs import this file too
    ask_late(os.environ["LATE_SIGTERM"])

if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    run(Path(sys.argv[1]), Path(sys.argv[2]), **json.loads(sys.argv[3]))
