"""Every test draws the same random numbers each time it runs, alone or beside others."""

from pathlib import Path

import pytest
import torch

LONG = Path(__file__).with_name("long_tests.txt")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark the tests of ``long_tests.txt`` as slow; where whole files were asked for, each line must fit a test."""
    lines = [line for line in LONG.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    unused = set(lines)
    for item in items:
        for line in lines:
            if item.nodeid.startswith(line):
                item.add_marker(pytest.mark.slow)
                unused.discard(line)
    files = {item.nodeid.partition("::")[0] for item in items}
    stale = sorted(line for line in unused if line.partition("::")[0] in files)
    if stale and not any("::" in str(each) for each in config.args):
        raise pytest.UsageError(f"{LONG.name}: fits no test: {', '.join(stale)}")


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread():
    """For sums that must come out the same: threads would add them up in other orders."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def mit_weights(tmp_path_factory):
    """Of the tiny trunk of small comparisons."""
    from comparing_cases import write_weights

    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")
