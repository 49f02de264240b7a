"""Deformable convolution: torchvision's operator, the twin, and the rule that chooses.

Truths: torchvision in float64, gradients included; a loop over samples; a plain convolution where offsets are zero.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torchvision.ops
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from garnish.heads.layers import deformable
from garnish.heads.layers.deformable import DeformableConv, deform_conv2d, deform_conv2d_twin

EXACT = {"atol": 1e-10, "rtol": 1e-10}
#: batch, channels, outputs, height, width, kernel, stride, padding, dilation, groups, offset groups
SHAPES = [
    (2, 8, 8, 7, 5, (1, 1), 1, 0, 1, 1, 8),
    (1, 8, 6, 1, 9, (1, 1), 1, 0, 1, 2, 4),
    (2, 4, 3, 9, 8, (3, 3), 1, 1, 1, 1, 1),
    (3, 6, 4, 11, 7, (3, 3), 2, 1, 1, 2, 3),
    (1, 6, 6, 12, 13, (3, 2), (2, 1), (2, 0), (1, 3), 3, 2),
    (2, 4, 8, 10, 10, (1, 5), (3, 2), (0, 2), 2, 4, 4),
    (2, 2, 2, 5, 5, (5, 5), 1, 2, 1, 1, 2),
    (1, 1, 1, 1, 1, (1, 1), 1, 0, 1, 1, 1),
]
#: offsets of less than a pixel, of whole pixels (where derivatives are one-sided), far beyond the map, and zero
OFFSETS = ["small", "whole", "far", "zero"]


def case(shape, offsets, *, masked, dtype=torch.float64):
    b, c, o, h, w, kernel, stride, padding, dilation, groups, offset_groups = shape
    generator = torch.Generator().manual_seed(0)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    taps = math.prod(kernel)
    grid = F.conv2d(torch.zeros(1, 1, h, w), torch.zeros(1, 1, *kernel), None, stride, padding, dilation).shape[-2:]
    offset = draw(b, 2 * taps * offset_groups, *grid)
    offset = {"small": offset, "whole": (2 * offset).round(), "far": 1e4 * offset, "zero": 0 * offset}[offsets]
    tensors = {"x": draw(b, c, h, w), "offset": offset, "weight": draw(o, c // groups, *kernel), "bias": draw(o)}
    if masked:
        tensors["mask"] = draw(b, taps * offset_groups, *grid)
    tensors = {k: t.to(dtype).requires_grad_() for k, t in tensors.items()}
    return tensors, {"stride": stride, "padding": padding, "dilation": dilation}


def outputs_and_gradients(run, tensors, options):
    out = run(**tensors, **options)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return [out, *torch.autograd.grad((out * weights).sum(), list(tensors.values()))]


@pytest.mark.reference
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("offsets", OFFSETS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_twin_equals_torchvision(shape, offsets, masked):
    tensors, options = case(shape, offsets, masked=masked)

    def theirs(*, x, **rest):
        return torchvision.ops.deform_conv2d(x, **rest)

    expected = outputs_and_gradients(theirs, tensors, options)
    assert offsets == "far" or shape[1] == 1 or expected[1].abs().max() > 0.1
    for run in (deform_conv2d_twin, deform_conv2d):
        for got, want in zip(outputs_and_gradients(run, tensors, options), expected, strict=True):
            torch.testing.assert_close(got, want, **EXACT)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_without_offsets_it_is_a_convolution(shape):
    tensors, options = case(shape, "zero", masked=False)
    expected = F.conv2d(tensors["x"], tensors["weight"], tensors["bias"], **options, groups=shape[9])
    torch.testing.assert_close(deform_conv2d_twin(**tensors, **options), expected, **EXACT)


def test_a_loop_over_samples():
    tensors, options = case(SHAPES[3], "small", masked=True)
    x, offset, weight, bias, mask = (t.detach() for t in tensors.values())
    got = deform_conv2d_twin(**tensors, **options).detach()
    padded = F.pad(x, (20, 20, 20, 20))

    def at(b, c, y, z):
        top, left = math.floor(y), math.floor(z)
        square = padded[b, c, top + 20 : top + 22, left + 20 : left + 22]
        down, right = y - top, z - left
        return float(square[0] @ x.new_tensor([1 - right, right])) * (1 - down) + down * float(
            square[1] @ x.new_tensor([1 - right, right])
        )

    for b, o, i, j in itertools.product((0, 2), (0, 3), (0, 2, 5), (0, 3)):
        total = float(bias[o])
        for c, tap in itertools.product(range(3), range(9)):
            channel = c + 3 * (o // 2)
            k = 9 * (channel // 2) + tap
            y = 2 * i - 1 + tap // 3 + float(offset[b, 2 * k, i, j])
            z = 2 * j - 1 + tap % 3 + float(offset[b, 2 * k + 1, i, j])
            total += float(weight[o, c].flatten()[tap] * mask[b, k, i, j]) * at(b, channel, y, z)
        assert math.isclose(float(got[b, o, i, j]), total, abs_tol=1e-10)


def test_the_twin_has_second_derivatives():
    tensors, options = case((1, 2, 2, 4, 3, (1, 1), 1, 0, 1, 1, 2), "small", masked=True)
    torch.autograd.gradgradcheck(lambda *t: deform_conv2d_twin(*t[:4], mask=t[4], **options), tuple(tensors.values()))


def test_shifts_move_the_picture():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    offset = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    out = deform_conv2d(x, offset, torch.ones(1, 1, 1, 1))
    assert out.tolist() == [[[[6, 7, 0, 0], [10, 11, 0, 0], [0, 0, 0, 0]]]]


def calls(monkeypatch):
    """Names of the implementations that run from here on."""
    seen = []
    for where, name in ((torchvision.ops, "deform_conv2d"), (deformable, "deform_conv2d_twin")):
        original = getattr(where, name)
        monkeypatch.setattr(where, name, lambda *a, n=name, f=original, **k: seen.append(n) or f(*a, **k))
    return seen


def test_the_rule(monkeypatch):
    seen = calls(monkeypatch)
    tensors, options = case(SHAPES[0], "small", masked=False, dtype=torch.float32)
    eager = deform_conv2d(**tensors, **options)
    assert seen.pop() == "deform_conv2d"
    monkeypatch.setattr(deformable, "_operator", lambda: None)
    torch.testing.assert_close(deform_conv2d(**tensors, **options), eager)
    assert seen.pop() == "deform_conv2d_twin"
    meta = {k: t.detach().to("meta") for k, t in tensors.items()}
    assert deform_conv2d(**meta, **options).shape == eager.shape
    assert seen.pop() == "deform_conv2d_twin"
    none = {k: t[:0] if k in ("x", "offset") else t for k, t in tensors.items()}
    assert deform_conv2d(**none, **options).shape == (0, *eager.shape[1:])
    assert seen.pop() == "deform_conv2d_twin"


@pytest.mark.compile
def test_compiles_to_one_graph_of_plain_operations():
    layer = DeformableConv(8, 6, 3).eval()
    x, offset = torch.randn(2, 8, 7, 9), torch.randn(2, 2 * 9 * 4, 7, 9)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    with torch.no_grad():
        got = torch.compile(layer, backend=backend, fullgraph=True)(x, offset)
        torch.testing.assert_close(got, layer(x, offset))
    assert len(graphs) == 1 and "torchvision" not in graphs[0].code


@pytest.mark.export
@pytest.mark.parametrize("strict", [False, True])
def test_exports_plain_operations(strict):
    layer = DeformableConv(8, 6).eval()
    x, offset = torch.randn(2, 8, 7, 9), torch.randn(2, 16, 7, 9)
    sizes = {"x": {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}}
    sizes["offset"] = sizes["x"]
    program = torch.export.export(layer, (x, offset), dynamic_shapes=sizes, strict=strict)
    assert "torchvision" not in str(program.graph)
    for h, w in ((7, 9), (4, 12)):
        x, offset = torch.randn(3, 8, h, w), torch.randn(3, 16, h, w)
        torch.testing.assert_close(program.module()(x, offset), layer(x, offset))


@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype, twin, monkeypatch):
    if twin:
        monkeypatch.setattr(deformable, "_operator", lambda: None)
    tensors, options = case(SHAPES[2], "small", masked=True, dtype=dtype)
    got = deform_conv2d(**tensors, **options)
    expected = deform_conv2d(**{k: t.float() for k, t in tensors.items()}, **options)
    assert got.dtype == dtype and torch.equal(got, expected.to(dtype))
    wide = {k: t.detach().float() for k, t in tensors.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(deform_conv2d(**wide, **options), expected)


@pytest.mark.parametrize("twin", [False, True])
def test_an_offset_that_is_no_number_gives_no_number_there(twin, monkeypatch):
    if twin:
        monkeypatch.setattr(deformable, "_operator", lambda: None)
    tensors, options = case(SHAPES[0], "small", masked=False)
    expected = deform_conv2d(**tensors, **options)
    offset = tensors["offset"].detach().clone()
    offset[1, 3, 2, 4] = math.nan
    offset[0, 0, 1, 1] = math.inf
    got = deform_conv2d(**{**tensors, "offset": offset}, **options)
    assert got[1, :, 2, 4].isnan().all() and got.isnan().sum() == 8
    assert got[0, :, 1, 1].isfinite().all()
    got[1, :, 2, 4], got[0, :, 1, 1] = expected[1, :, 2, 4], expected[0, :, 1, 1]
    assert torch.equal(got, expected)


@pytest.mark.parametrize("twin", [False, True])
def test_both_cost_the_same(twin, monkeypatch):
    if twin:
        monkeypatch.setattr(deformable, "_operator", lambda: None)
    tensors, options = case(SHAPES[3], "small", masked=True)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        out = deform_conv2d(**tensors, **options)
    assert counter.get_total_flops() == 2 * out.numel() * 3 * 9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"offset": (2, 17, 7, 5)}, "17 offset channels for 8 channels and 1 taps; give 2 times a divisor of 8"),
        ({"offset": (2, 12, 7, 5)}, "12 offset channels for 8 channels"),
        ({"offset": (2, 16, 6, 5)}, r"an output grid of \(7, 5\) and 2 pictures; give \(2, 16, 7, 5\)"),
        ({"offset": (1, 16, 7, 5)}, "and 2 pictures"),
        ({"weight": (8, 3, 1, 1)}, "does not divide 8 channels"),
        ({"mask": (2, 7, 7, 5)}, r"mask \(2, 7, 7, 5\); give \(2, 8, 7, 5\)"),
    ],
)
def test_shapes_that_do_not_fit(change, said):
    tensors, options = case(SHAPES[0], "small", masked=True)
    tensors |= {name: torch.zeros(shape, dtype=torch.float64) for name, shape in change.items()}
    with pytest.raises(ValueError, match=said) as caught:
        deform_conv2d(**tensors, **options)
    assert "\n" not in str(caught.value)
