"""Every test draws the same random numbers each time it runs, alone or beside others."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)
