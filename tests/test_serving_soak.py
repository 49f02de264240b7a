"""``garnish serve`` under mixed traffic: five minutes of ``benchmarks/serving/soak.py``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "serving" / "soak.py"


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("soak_of_the_server", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks its module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.slow
def test_nothing_breaks_and_nothing_grows(soak, tmp_path):
    found = soak.measure(300, tmp_path)
    assert found["faults"] == []
    for what in ("answered", "refused", "came and went", "broken off"):
        assert found["counts"].get(what, 0) > 0, found["counts"]
    assert found["largest_relative_difference"] <= 1e-5
    assert found["labels_that_differ"] <= 1e-4 * found["labels"]
    assert found["memory_ratio"] <= 1.05
