"""Small comparisons on Ray for the tests; also run as a script, to be killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from comparing_cases import conditions


def run_on(on: str, folder: Path, weights: Path, *, jobs: int | None = None, **given: Any) -> dict[str, Any]:
    """The results of a comparison whose runs have one CPU each on a cluster."""
    from garnish.cluster.recruiting import on_ray
    from garnish.comparing.compare import compare
    from garnish.comparing.typed_json import as_json

    recruits = on_ray(on, jobs=jobs, cpus=1, gpus=None)
    return as_json(compare(conditions(folder, weights, **given), recruits=recruits))


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    run_on(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), **json.loads(sys.argv[4]))
