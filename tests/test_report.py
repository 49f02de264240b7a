"""What reports count."""

from __future__ import annotations

import gc
import weakref

import torch

from garnish.model.report import bytes_for_backward


def test_counting_saved_bytes_frees_what_it_counted():
    x = torch.randn(8, 8, requires_grad=True)
    made = []

    def forward():
        y = (2 * x).tanh()  # tanh saves its own output
        made.append(weakref.ref(y))
        return y.square().sum()

    assert bytes_for_backward(forward, [x]) == 8 * 8 * 4  # not the loss itself
    gc.collect()
    assert made[0]() is None
