"""The one training step, against torch's own pieces put together by hand."""

from __future__ import annotations

import contextlib

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from torch import Tensor

import garnish as gn
from garnish.balancing.balancing import balancing_of
from garnish.data.dataset import collate
from garnish.training.step import TrainingStep
from garnish.training.train_options import TrainOptions
from training_cases import TASKS, Blobs, every, tensors_of, tiny

BATCH = collate([Blobs(every(3))[i] for i in range(3)])


class Scaling(MixedPrecision):
    """Float16's scaler, with passes in float32."""

    def __init__(self, scale: float) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))

    def forward_context(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()


def step_of(fabric: Fabric | None = None, **options) -> TrainingStep:
    torch.manual_seed(0)
    options = TrainOptions(steps=3, precision="16-mixed", **options)  # whose AdamW is not the fused one
    return TrainingStep(tiny(gn.LoRA(rank=2)).train(), TASKS, balancing_of(None).build(TASKS), options, fabric)


def stepped(step: TrainingStep, times: int = 3) -> dict[str, Tensor]:
    for _ in range(times):
        step(BATCH)
    return tensors_of(step.model)


@pytest.mark.parametrize("clip", [1e-3, None])
def test_a_step_is_torchs_backward_pass_clipping_and_adamw(clip):
    step = step_of(clip=clip, weight_decay=0.1, lr=1e-2)
    torch.manual_seed(0)
    model = tiny(gn.LoRA(rank=2)).train()
    named = model.trained_parameters()
    groups = [[p for p in named.values() if p.ndim > 1], [p for p in named.values() if p.ndim < 2]]
    decays = [{"params": group, "weight_decay": d} for group, d in zip(groups, (0.1, 0.0), strict=True)]
    optimizer = torch.optim.AdamW(decays, lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        outputs = model(BATCH.images)
        sum(t.loss_weight * t.loss(t.sums(outputs[n], BATCH.targets[n])) for n, t in TASKS.items()).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(named.values(), clip)
        optimizer.step()
    wanted = tensors_of(model)
    for name, tensor in stepped(step).items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", [1e-3, None])
def test_a_power_of_two_as_scale_changes_no_bit(clip):
    scaled = step_of(Fabric(accelerator="cpu", devices=1, plugins=[Scaling(2.0**10)]), clip=clip)
    wanted = stepped(step_of(clip=clip))
    for name, tensor in stepped(scaled).items():
        assert torch.equal(tensor, wanted[name]), name


def test_the_scaler_leaves_out_a_step_whose_gradients_overflow():
    step = step_of(Fabric(accelerator="cpu", devices=1, plugins=[Scaling(2.0**126)]))
    before = {name: tensor.clone() for name, tensor in step.trained.items()}
    step.backward(step.balance(step.losses(step.outputs(BATCH), BATCH).losses) * 2.0**20)
    norm = step.norm()
    assert norm is not None and not norm.isfinite()
    step.update(None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in step.trained.items())
    assert step.precision.state_dict()["scale"] == 2.0**125
