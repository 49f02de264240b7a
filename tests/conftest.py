"""Every test draws the same random numbers each time it runs, alone or beside others."""

import pytest
import torch


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
