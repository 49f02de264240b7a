"""``benchmarks/engine/measure.py``: what its numbers are of, with workers that answer at once."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[1] / "benchmarks" / "engine" / "measure.py"


@pytest.fixture(scope="module")
def measure():
    spec = importlib.util.spec_from_file_location("measure_engine", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Answering:
    """Adding the n-th owner takes n seconds, loading beside n others 10 + n; the k-th step takes ``seconds[k]``."""

    def __init__(self, seconds=()):
        self.added, self.seconds = 0, list(seconds)

    def ask(self, what, *given):
        if what == "add":
            self.added += 1
            return self.added
        if what == "load_and_remove":
            return {"load": 10 + self.added, "remove": None}
        return self.seconds.pop(0) if what == "step" else {"first": 1.0, "run": 2.0}.get(what)


def test_times_are_those_of_the_nth_owner(measure):
    found = measure.curve(Answering(), 130)
    assert list(found) == ["1", "10", "100", "130"]
    assert (
        [row["add"] for row in found.values()] == [row["add_over_first"] for row in found.values()] == [1, 10, 100, 130]
    )
    # windows overlap where marks are near: what is loaded is loaded beside those that are there by then
    assert [row["load"] for row in found.values()] == [10, 19, 109, 139]
    assert found["100"]["load_over_first"] == 10.9 and "remove_over_first" not in found["100"]


def test_ratios_are_taken_within_pairs_and_warming_up_does_not_count(measure):
    warm = [100.0] * measure.WARM_UP
    found = measure.compare_steps(
        Answering([*warm, 1, 2, 4]), Answering([*warm, 1, 3, 4.4]), "ViT-S", "LoRA", pairs=3, batch=2
    )
    assert found["new_over_old"] == 1.1 and found["quartiles"] == [1.0, 1.5]
    assert found["seconds"] == {"old": 2, "new": 3}


def test_what_is_kept_for_backward_is_counted(measure):
    steps = object.__new__(measure.Steps)
    steps.model = torch.nn.Linear(3, 5, bias=False)
    steps.model.backbone = type("Trunk", (), {"frozen_tensors": staticmethod(dict)})
    images = torch.rand(2, 3)
    steps._loss = lambda: steps.model(images).square().mean()
    assert steps._kept() == 4 * (2 * 3 + 2 * 5)  # the input, and the output that is squared; not the weight
