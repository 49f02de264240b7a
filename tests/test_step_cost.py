"""What a step is expected to take is told where it is much, and only there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import garnish as gn
import tiny as tiny_models
from garnish.checking.recording import Recorder
from garnish.data.augment import Augment
from garnish.model.report import count_macs, flop_counter
from garnish.training import step_cost
from garnish.training.fit import fit
from garnish.training.step_cost import StepCost, counted
from training_cases import QUIET, TASKS, Blobs, every, tensors_of, tiny


@pytest.mark.parametrize("short", ["vit", "swin", "mit", "convnext", "cnn"])
def test_counted_as_a_real_pass_would_be(short):
    torch.manual_seed(0)
    model = gn.adapt(tiny_models.backbone(short), gn.LoRA(rank=2), TASKS, gn.SegFormerHead(channels=8)).train()
    size, before, state = (96, 64), tensors_of(model), torch.get_rng_state()
    taken, work = counted(model, 3, size)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors_of(model).items())
    recorder = Recorder([*model.parameters(), *model.buffers()])
    with recorder:
        with flop_counter() as operations:
            outputs = model(torch.zeros(3, 3, *size))
        loss = step_cost._total(outputs)
        del outputs
        loss.backward()
    assert taken == recorder.peak_bytes - recorder.start_bytes
    assert work == operations.get_total_flops()
    if short == "cnn":  # in others LoRA's product and the layer's are taken in one, which evaluation does not do
        assert work == 3 * 2 * count_macs(model, size)[0]


def test_more_pictures_of_more_pixels_take_more():
    model = tiny().train()
    (one, work), (four, fourfold) = counted(model, 1, (64, 64)), counted(model, 4, (64, 64))
    assert fourfold == 4 * work and 4 * one >= four > 3.5 * one
    assert counted(model, 1, (128, 128))[1] > 4 * work  # attention grows faster


def test_only_what_is_much_makes_a_line():
    assert StepCost((96, 96), int(1e8), 2.0).line(int(8e9)) == ""
    large = StepCost((966, 1296), int(9.04e9), 700.0)
    text = "a step on pictures of 966 × 1296 is expected to take about 9.0 GB beside the model and 12 minutes"
    assert large.line(int(64e9)).startswith(f"{text}; for less, train on a part of each (train.augment.size), or on")
    assert large.line(int(8e9)).startswith(f"{text}, more than the 8.0 GB that may be used; for less")
    assert "GB beside the model; for less" in StepCost((966, 1296), int(9e9), None).line(int(64e9))
    assert StepCost((96, 96), int(1e8), 61.0).line(int(8e9)) != ""
    assert StepCost((96, 96), int(1e8), 1.0).line(int(9e7)) != ""  # of little memory it is much


def said(capsys, **given) -> str:
    options = QUIET | {"progress": True, "check_pictures": 1, "batch_size": 2, "steps": 1} | given
    fit(tiny(), Blobs(every(4), sizes=[(160, 192)]), **options)
    found = [line for line in capsys.readouterr().err.splitlines() if "is expected to take" in line]
    assert len(found) <= 1
    return found[0] if found else ""


def test_a_run_says_it_before_the_first_step_and_its_remedies_help(capsys, monkeypatch):
    assert said(capsys) == ""
    monkeypatch.setattr(step_cost, "_MANY_PIXELS", 0)
    assert said(capsys) == ""
    monkeypatch.setattr(step_cost, "_MUCH_BYTES", 5e6)  # in place of pictures that are large
    assert "on pictures of 160 × 192 is expected to take about 0.0 GB" in said(capsys)
    assert (
        said(capsys, augment=Augment(size=(32, 32))) == "" == said(capsys, batch_size=1, augment=Augment(size=(64, 64)))
    )
    assert said(capsys, check_pictures=0) == "" == said(capsys, progress=False)


class Looks(nn.Module):
    def forward(self, x):
        assert x.sum().item() == x.sum().item()
        return x


def test_what_cannot_be_foreseen_is_said(monkeypatch):
    monkeypatch.setattr(step_cost, "_MANY_PIXELS", 0)
    model = tiny().train()
    model.backbone.taps[0] = Looks()
    from garnish.training.train_options import TrainOptions

    line = step_cost.about_step(model, Blobs(every(1)), TrainOptions(steps=1, augment=None), 2, [])
    assert line.startswith("the cost of a step cannot be predicted (") and "\n" not in line
