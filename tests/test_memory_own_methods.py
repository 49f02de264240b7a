"""Memory levels with methods of others: what an adapter may do to tensors gives right gradients, or an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.engine.adapter import Adapter, Method, Plan, select_layers
from garnish.engine.context import ForwardContext
from garnish.engine.trunk import Trunk
from memory_cases import check_levels, differences, made, nothing_left_behind, training_pass

pytestmark = pytest.mark.usefixtures("one_thread")

#: (input, output, factor, shift) of a layer → what leaves the adapter
Edit = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class OwnAdapter(Adapter):
    """Runs a function of the layer's input and output and of two vectors."""

    def __init__(self, width: int, edit: Edit) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.norm = nn.BatchNorm1d(width)
        self.edit = edit

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        if self.edit is normed:
            return y * self.factor + self.norm(y.flatten(0, -2)).view(y.shape) * self.shift
        return self.edit(x, y, self.factor, self.shift)


def own(edit: Edit) -> Method:
    """A method that puts ``edit`` on every linear layer of the blocks; functions are no options."""

    @dataclass(frozen=True, kw_only=True)
    class Own(Method):
        def plan(self, backbone: Trunk) -> Plan:
            chosen = select_layers(backbone, (), (nn.Linear,), "Own")
            return Plan({site.name: OwnAdapter(layer.out_features, edit) for site, layer in chosen})

    return Own()


def normed(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    raise AssertionError("the adapter does it, with its own batch norm")


def random_like(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    return y * f + torch.rand_like(y) * g + torch.empty_like(y).normal_() * f


def dropped(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    return y + F.dropout(y * f, 0.5, True) + torch.bernoulli(torch.full_like(y, 0.5)) * g


def in_place_sums(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    z = F.gelu(y * f)
    z.add_(g)
    z[:, 1:] += g
    z[..., :2] *= 3.0
    return z.mul_(2.0)


def in_place_on_output(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    return y.mul_(f).add_(g)


def indexed(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    z = torch.zeros_like(y)
    z[:, 1:] = y[:, 1:] * f
    z[:, torch.tensor([0, 2])] = F.gelu(y[:, :2]) + g
    return z.masked_fill_(z < -1, 0.1)


def views(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    one, other = y.chunk(2, -1)
    z = torch.cat([other, one], -1).transpose(-1, -2).contiguous().transpose(-1, -2)
    return y + torch.einsum("...c,c->...c", z, f) + z.narrow(-1, 0, 1) * g + z.unflatten(-1, (2, -1)).flatten(-2)


def out_arguments(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    with torch.no_grad():
        out = torch.empty_like(y)
        torch.mul(y, 2.0, out=out)
        torch.add(out, 1.0, out=out)
    return y * f + out * g + out.sigmoid() * f


def through_numpy(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    outside = torch.from_numpy(np.tanh(y.detach().numpy()))
    return y * f * float(y.detach().mean().item()) + outside * g


def inner_gradient(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """A step of gradient descent inside the layer."""
    (step,) = torch.autograd.grad(F.gelu(y).pow(2).sum(), y, create_graph=True)
    return y * f + step * g


def many_kinds(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    z, order = (y * f).sort(-1)
    z = z + y.gather(-1, order) + y.cumsum(-1) * g + F.layer_norm(y, (y.shape[-1],), f, g)
    return z + (y.float() * f.float()).double() + torch.fft.irfft(torch.fft.rfft(y), n=y.shape[-1]) * f


def relu_in_place(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    return F.relu(y * f + g, inplace=True)


def silu_in_place(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    return F.silu(y * f + g, inplace=True)


def dropout_in_place(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    return y + F.dropout(y * f, 0.5, True, inplace=True)


def named_arguments(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    z = F.linear(input=torch.mul(input=y, other=f), weight=torch.diag(input=g))
    return torch.relu_(input=torch.add(input=z, other=y))


def filled_by_init(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    noise = nn.init.normal_(torch.empty_like(y))
    return y * f + nn.init.constant_(noise, 0.5) * g


def several_in_place(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    z, w = F.gelu(y * f), y * g
    torch._foreach_mul_([z, w], 2.0)
    return F.gelu(z) + F.silu(w)


def asked_for_gradients(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    z = F.relu(y * f)  # keeps its output
    return z.requires_grad_() + g


def out_of_an_activation(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    z = F.gelu(y * f)
    with torch.no_grad():
        torch.mul(z, 2.0, out=z)
    return F.gelu(z) * g


RIGHT = [
    filled_by_init,
    several_in_place,
    asked_for_gradients,
    out_of_an_activation,
    named_arguments,
    random_like,
    dropped,
    in_place_sums,
    in_place_on_output,
    indexed,
    views,
    out_arguments,
    through_numpy,
    many_kinds,
    relu_in_place,
    silu_in_place,
    dropout_in_place,
]


@pytest.mark.parametrize("edit", RIGHT)
def test_gradients_of_what_a_method_may_do(edit):
    with nothing_left_behind():
        check_levels(made("vit", own(edit), drop_path=0.1), tolerance=1e-12)


def test_a_gradient_inside_a_layer():
    check_levels(made("vit", own(inner_gradient), drop_path=0.1), ("lean",), 1e-12)
    with pytest.raises(RuntimeError, match="takes gradients while it runs"):
        training_pass(made("vit", own(inner_gradient)), "least")


# ---- writes to what the backward pass needs -------------------------------------------------------------------------


def saved_output(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    return torch.sigmoid(y * f).add_(1.0)


def input_of_the_layer(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    with torch.no_grad():
        x.add_(1.0)
    return y * f


def detached_input(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    x.detach()[..., :1].zero_()
    return y * f


def output_used_before(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    scaled = y * f
    y.add_(1.0)
    return scaled + y


@pytest.mark.parametrize("level", ["fast", "lean", "least"])
@pytest.mark.parametrize("edit", [saved_output, input_of_the_layer, detached_input, output_used_before])
def test_writes_to_what_is_needed_are_refused(edit, level):
    model = made("vit", own(edit))
    with nothing_left_behind(), pytest.raises(RuntimeError, match=r"in ?place"):
        training_pass(model, level)


def input_of_an_activation(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    z = y * f
    active = F.gelu(z)
    z.add_(1.0)
    return active + z


def the_same_without_writing(x: Tensor, y: Tensor, f: Tensor, g: Tensor) -> Tensor:
    z = y * f
    return F.gelu(z) + (z + 1.0)


@pytest.mark.parametrize("level", ["lean", "least"])
def test_a_write_that_only_plain_autograd_cannot_bear_is_right(level):
    want = training_pass(made("vit", own(the_same_without_writing)), "fast")
    got = training_pass(made("vit", own(input_of_an_activation)), level)
    assert differences(got, want) == {}


def test_running_statistics_are_updated_once():
    check_levels(made("vit", own(normed)), ("lean",), 1e-12)
    with pytest.raises(RuntimeError, match="running statistics were written"):
        training_pass(made("vit", own(normed)), "least")
