"""Two processes give the tensors and the metrics of one, with partial labels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import garnish as gn
from garnish.data.loader import StepBatches
from training_cases import DDP_SEED, PARTIAL, TASKS, Blobs, ddp_run, tensors_of, tiny

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    script = Path(__file__).with_name("training_cases.py")
    # the first process starts the second one itself
    env = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "RANK")}
    done = subprocess.run(
        [sys.executable, str(script), "ddp", str(folder)],
        env=env | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_case_has_every_kind_of_gap():
    seen = set()
    for step in range(6):
        ranks = [StepBatches(Blobs(PARTIAL), 2, seed=DDP_SEED, rank=rank, world=2) for rank in (0, 1)]
        here = [set(batches.batch_at(step).where) for batches in ranks]
        seen |= {f"{task} on one rank only" for task in here[0] ^ here[1]}
        seen |= {"a rank without any label"} if set() in here else set()
        seen |= {"a task on no rank"} if here[0] | here[1] != {"seg", "depth"} else set()
    assert seen == {
        "a rank without any label", "a task on no rank", "seg on one rank only", "depth on one rank only",
    }  # fmt: skip


# Where a gradient is all rounding, AdamW's step is a sign, so in float32 a few entries differ visibly after six steps.
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_two_processes_equal_one(two_processes, dtype, bound):
    files = [f"{two_processes}/{dtype}-rank{rank}" for rank in (0, 1)]
    tensors = [load_file(f"{file}.safetensors") for file in files]
    metrics, warnings = zip(*(json.loads(Path(f"{file}.json").read_text()) for file in files), strict=True)
    before = tensors_of(tiny(gn.LoRA(rank=2)).to(dtype))
    model, result = ddp_run(4, 1, dtype)
    assert warnings == ([], []) and not result.warnings
    for name, tensor in tensors_of(model).items():
        assert torch.equal(tensors[0][name], tensors[1][name]), name
        assert (tensor - before[name]).norm() > 10 * bound * tensor.norm(), name
        assert (tensors[0][name] - tensor).norm() <= bound * tensor.norm(), name
    assert metrics[0] == metrics[1]
    for task, values in result.metrics.items():
        for name, value in values.items():
            assert metrics[0][task][name] == pytest.approx(value, rel=bound, nan_ok=True), (task, name)


def test_uncertainty_weights_are_those_of_one_process(two_processes):
    ranks = [load_file(f"{two_processes}/uncertainty-rank{rank}.safetensors") for rank in (0, 1)]
    learnt = gn.Uncertainty().build(TASKS)
    model, _ = ddp_run(4, 1, torch.float64, learnt)
    s = {name: parameter.detach() for name, parameter in learnt.named_parameters()}
    assert len(s) == 2 and all(1e-3 < abs(value) < 6.1e-3 for value in s.values()), "each moved, as far as it can"
    for name, tensor in (tensors_of(model) | s).items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        assert (ranks[0][name] - tensor).norm() <= 1e-6 * tensor.norm(), name
