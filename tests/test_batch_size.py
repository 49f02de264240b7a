"""Batches as small as they can be, and the largest that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import garnish as gn
import tiny as tiny_models
from garnish.errors import OptionError
from garnish.heads.head import Head
from garnish.heads.layers.batch_norm import BatchNorm1d, BatchNorm2d, accept_single_values
from garnish.planning.step_cost_prediction import record_step
from garnish.training.fit import fit
from training_cases import QUIET, TASKS, Blobs, every, tensors_of, tiny

SHORT = {"check_pictures": 0, **QUIET}
#: trunk → pictures of which it makes a map of one position
ONE_POSITION = {"mit": (32, 32), "vit": (16, 16)}


# ---- one value a channel ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("short", ONE_POSITION)
@pytest.mark.parametrize("name", tiny_models.HEADS)
@pytest.mark.parametrize(
    ("labels", "size"),
    [
        ([["seg", "depth"]] * 2, 1),
        ([["seg", "depth"], ["depth"], ["depth"], ["depth"]], 4),  # one of four has labels of a task
        ([["seg", "depth"]] * 2, "auto"),  # which tries one picture
    ],
    ids=["one picture", "one labelled", "auto"],
)
def test_every_head_trains_on_one_value_a_channel(short, name, labels, size):
    torch.manual_seed(0)
    model = gn.adapt(tiny_models.backbone(short), gn.LoRA(rank=2), TASKS, tiny_models.example("heads", name))
    before = tensors_of(model)
    result = fit(model, Blobs(labels, sizes=[ONE_POSITION[short]]), steps=2, batch_size=size, memory_gb=1, **SHORT)
    assert result.steps == 2
    after = tensors_of(model)
    assert all(bool(tensor.isfinite().all()) for tensor in after.values())
    assert not torch.equal(after[(n := next(n for n in after if n.endswith("bias")))], before[n])


@dataclass(frozen=True, kw_only=True)
class Theirs(Head):
    """A head of somebody else's, with torch's batch norms."""

    def build(self, features, out_channels: int) -> nn.Module:
        return TheirModule(features[-1].channels, out_channels)


class TheirModule(nn.Module):
    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm, self.pooled = nn.BatchNorm2d(channels), nn.BatchNorm1d(channels)
        self.classifier = nn.Conv2d(channels, out_channels, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = features[-1]
        x = self.norm(x) + self.pooled(x.mean((2, 3)))[:, :, None, None]
        return F.interpolate(self.classifier(x), features[0].shape[-2:])


def test_so_does_a_head_of_somebody_elses():
    torch.manual_seed(0)
    model = gn.adapt(tiny_models.backbone("mit"), gn.LoRA(rank=2), TASKS, Theirs())
    assert fit(model, Blobs(every(2), sizes=[(32, 32)]), steps=2, batch_size=1, **SHORT).steps == 2
    assert fit(model, Blobs(every(2), sizes=[(64, 64)]), steps=2, batch_size=1, **SHORT).steps == 2  # pooled


@pytest.mark.parametrize(
    ("torchs", "ours", "one", "two"),
    [
        (nn.BatchNorm2d, BatchNorm2d, (1, 5, 1, 1), [(2, 5, 1, 1), (1, 5, 1, 2), (1, 5, 3, 1)]),
        (nn.BatchNorm1d, BatchNorm1d, (1, 5), [(2, 5), (1, 5, 2)]),
    ],
)
def test_one_value_goes_by_the_running_statistics_and_more_as_in_torch(torchs, ours, one, two):
    torch.manual_seed(0)
    theirs, other = torchs(5), nn.Sequential(torchs(5))
    for norm in (theirs, other[0]):
        norm(torch.randn(4, *one[1:]).sinh() if len(one) == 2 else torch.randn(4, 5, 3, 3).sinh())
        nn.init.uniform_(norm.weight)
    other.load_state_dict({f"0.{name}": tensor for name, tensor in theirs.state_dict().items()})
    norm = other[0]
    accept_single_values(other)
    assert type(norm) is ours and other[0] is norm
    state = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    x = torch.randn(one, requires_grad=True)
    y = norm(x)
    shape = [1, 5] + [1] * (x.ndim - 2)
    mean, var, weight, bias = (state[k].view(shape) for k in ("running_mean", "running_var", "weight", "bias"))
    torch.testing.assert_close(y, (x - mean) / (var + 1e-5).sqrt() * weight + bias)
    y.sum().backward()
    assert bool((x.grad != 0).all()) and bool((norm.weight.grad != 0).all())
    assert all(torch.equal(tensor, state[name]) for name, tensor in norm.state_dict().items())
    for size in two:
        x = torch.randn(size)
        assert torch.equal(norm(x), theirs(x)) and torch.equal(norm.running_var, theirs.running_var)
    assert torch.equal(norm.eval()(x), theirs.eval()(x))


# ---- the largest that fits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("megabytes", [12, pytest.param(30, marks=pytest.mark.slow)])
def test_gradients_and_moments_count(megabytes):
    def model():
        return tiny(gn.FullFineTuning())

    trained = sum(p.numel() for p in model().trained_parameters().values())
    result = fit(model(), Blobs(every(300)), steps=1, batch_size="auto", memory_gb=megabytes / 1000, **SHORT)
    record = record_step(model(), result.batch_size, (48, 64))  # every storage of a real step
    added = record.peak_bytes - sum(p.numel() * 4 for p in model().parameters())
    assert added > 12 * trained  # gradients and moments, two thirds of the smaller bound
    assert added <= megabytes * 1e6
    larger = record_step(model(), result.batch_size + 1, (48, 64)).peak_bytes - record.peak_bytes
    assert added + larger > megabytes * 1e6  # and the bound is used


def test_what_is_trained_may_be_too_much_already():
    with pytest.raises(
        OptionError, match=r"gradients and moments of what is trained take 1\.\d\d MB, the bound is 1\.00 MB"
    ):
        fit(tiny(gn.FullFineTuning()), Blobs(every(4)), steps=1, batch_size="auto", memory_gb=0.001, **SHORT)


def test_looking_for_the_largest_batch_leaves_no_trace():
    """Running statistics, too, are then those of a run of this batch size from the start."""

    def trained(batch_size: int | str) -> tuple[int, dict[str, Tensor]]:
        model = tiny(head=gn.SegFormerHead(channels=8))
        result = fit(model, Blobs(every(8)), steps=2, batch_size=batch_size, memory_gb=0.05, **SHORT)
        return result.batch_size, tensors_of(model)

    size, found = trained("auto")
    again, want = trained(size)
    assert size == again and any(name.endswith("running_var") for name in want)
    assert all(torch.equal(found[name], want[name]) for name in want)
