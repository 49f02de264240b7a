"""Every method on pictures of other bands: what it learns of red, green and blue is as without the others."""

from __future__ import annotations

import pytest
import torch

import band_cases
import tiny
from conformance.cases import NAMES, product

#: a model of each method in both ways on one family, the rest with the slow suite
every = pytest.mark.parametrize(NAMES, product(fast_on=("swin",)))


@every
def test_filters_of_zero_change_nothing_and_learn(case, short, per_task):
    methods = tiny.methods(case, per_task=per_task)
    five, rgb = band_cases.model(short, methods), tiny.model(short, methods)
    images = band_cases.pictures()
    with torch.no_grad():
        for name, tensor in five.own_tensors().items():
            if name.startswith("bands."):
                tensor.zero_()
            else:
                tensor.copy_(rgb.own_tensors()[name])
        assert {n for n in five.own_tensors() if not n.startswith("bands.")} == set(rgb.own_tensors())
        for task in rgb.tasks:  # each alone: of several, as many rows as there are filters go through a product at once
            want = rgb(images[:, band_cases.RGB], tasks=[task])[task]
            assert torch.equal(five(images, tasks=[task])[task], want)
    tiny.one_loss(five.train()(images)).backward()
    for owner in five.owners:
        if owner.parent is None:
            grad = owner.others.weight.grad
            assert grad is not None and torch.isfinite(grad).all() and grad.any()


@every
def test_mixed_rows_equal_rows_alone(case, short, per_task):
    model = band_cases.model(short, tiny.methods(case, per_task=per_task)).double()
    x = band_cases.pictures().double()
    with torch.no_grad():
        alone = {task: model(x, [task])[task] for task in model.tasks}
        for task, out in model(x, tiny.MIX).items():
            rows = [i for i, names in enumerate(tiny.MIX) if task in names]
            assert tiny.far(out, alone[task][rows]) < 1e-9
