"""Memory levels under every way of differentiating: kept graphs, hooks, checkpoints, errors, threads."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

import garnish as gn
import tiny
from garnish.engine.adapted import Adapted
from garnish.model.model import Model
from memory_cases import gradients, made, nothing_left_behind
from memory_runs import METHODS, Found, backward, compare, loss, pictures, trained

pytestmark = pytest.mark.usefixtures("one_thread")

DROPPED = gn.LoRA(rank=2, dropout=0.3)


@pytest.fixture(
    params=[
        "vit-LoRA",
        "vit-DoRA",
        *(pytest.param(case, marks=pytest.mark.slow) for case in ("swin-LoRA", "mit-SSF")),
    ],
    scope="module",
)
def model(request) -> Model:
    short, name = request.param.split("-")
    return made(short, METHODS[name], drop_path=0.1)


# ---- one graph, many backward passes --------------------------------------------------------------------------------


def test_a_graph_that_is_kept_gives_the_same_twice(model):
    def run() -> Found:
        total = loss(model)
        one = torch.autograd.grad(total, trained(model), retain_graph=True)
        two = torch.autograd.grad(total, trained(model))
        assert all(map(torch.equal, one, two))
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(total, trained(model))
        return {str(i): g for i, g in enumerate(one)}

    compare(model, run)


def test_several_losses_one_after_another(model):
    def run() -> Found:
        outputs = list(model(pictures()).values())
        for number, out in enumerate(outputs):
            (out**2).mean().backward(retain_graph=number < len(outputs) - 1)
        return gradients(model)

    compare(model, run)


def test_passes_that_overlap(model):
    def run() -> Found:
        one, two = loss(model), loss(model, pictures().flip(0))
        found = {f"1 {n}": g for n, g in backward(model, one).items()}
        return found | backward(model, two)

    compare(model, run)


@pytest.mark.parametrize("method", [*METHODS.values(), DROPPED], ids=repr)
def test_second_derivatives(method):
    model = made("vit", method)

    def run() -> Found:
        with sdpa_kernel(SDPBackend.MATH):
            first = torch.autograd.grad(loss(model), trained(model), create_graph=True)
            total = sum((g**2).sum() for g in first)
            second = torch.autograd.grad(total, trained(model), allow_unused=True)
        return {f"second {i}": g for i, g in enumerate(second)} | {str(i): g.detach() for i, g in enumerate(first)}

    compare(model, run)


# ---- what others do to a pass ---------------------------------------------------------------------------------------


def test_saved_tensor_hooks_of_others_see_what_plain_autograd_keeps(model):
    def run() -> Found:
        seen: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (seen.append(t.numel()), t.clone())[1], lambda t: t):
            total = loss(model)
        return {"kept": torch.tensor(seen), **backward(model, total)}

    compare(model, run)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_around_the_model(model, reentrant):
    def run() -> Found:
        x = pictures().requires_grad_()
        total = tiny.one_loss(
            dict(enumerate(checkpoint(lambda x: tuple(model(x).values()), x, use_reentrant=reentrant)))
        )
        return {"pictures": None, **backward(model, total)} | {"pictures": x.grad}

    compare(model, run)


def test_kept_on_the_host(model):
    def run() -> Found:
        with torch.autograd.graph.save_on_cpu():
            total = loss(model)
        return backward(model, total)

    compare(model, run)


def test_hooks_on_parameters_and_maps(model):
    def run() -> Found:
        seen: Found = {}
        hooks = [
            p.register_hook(lambda g, n=n: seen.update({n: g.clone()}))
            for n, p in model.named_parameters()
            if p.requires_grad
        ]

        def tapped(number: int, _: nn.Module, _given: object, out: Tensor) -> None:
            out.register_hook(lambda g: seen.update({f"map {number}": g.clone()}))

        for number, tap in enumerate(model.backbone.taps):
            hooks.append(tap.register_forward_hook(lambda *a, n=number: tapped(n, *a)))
        try:
            backward(model, loss(model))
        finally:
            for hook in hooks:
                hook.remove()
        return dict(sorted(seen.items()))

    compare(model, run)


@pytest.mark.parametrize("short", ["vit", "swin"])
def test_forward_hooks_on_layers_are_called(short):
    model = made(short, gn.LoRA(rank=2))

    def run() -> Found:
        calls: Found = {}
        hooks = [
            m.register_forward_hook(lambda *_, n=n: calls.update({n: torch.ones(1)}))
            for n, m in model.backbone.named_modules()
            if type(m) is nn.Linear
        ]
        try:
            loss(model)
        finally:
            for hook in hooks:
                hook.remove()
        return dict(sorted(calls.items()))

    compare(model, run)


@pytest.mark.parametrize("method", [DROPPED, gn.MTLoRA(rank=2, task_rank=2), *METHODS.values()], ids=repr)
def test_hooks_may_write_to_what_adapted_layers_put_out(method):
    model = made("vit", method)

    def run() -> Found:
        hooks = [
            m.register_forward_hook(lambda _m, _x, y: y.mul_(1.1))
            for m in model.backbone.modules()
            if isinstance(m, Adapted)
        ]
        assert hooks
        try:
            return backward(model, loss(model))
        finally:
            for hook in hooks:
                hook.remove()

    compare(model, run)


def test_losses_on_maps_inside_blocks(model):
    def run() -> Found:
        inside: list[Tensor] = []
        hooks = [
            m.register_forward_hook(lambda _m, _x, y: inside.append(y))
            for m in model.backbone.modules()
            if isinstance(m, (nn.GELU, nn.LayerNorm))
        ]
        x = pictures().requires_grad_()
        try:
            total = loss(model, x)
        finally:
            for hook in hooks:
                hook.remove()
        assert len(inside) > 8
        total = total + sum((y**2).mean() for y in inside)
        return {str(i): g for i, g in enumerate(torch.autograd.grad(total, [*trained(model), *inside, x]))}

    compare(model, run)


def test_an_error_leaves_nothing_behind(model):
    def stop(*_: object) -> None:
        raise KeyError("stop")

    def run() -> Found:
        layers = [m for m in model.backbone.modules() if isinstance(m, nn.LayerNorm)]
        with nothing_left_behind():
            hook = layers[3].register_forward_hook(stop)
            with pytest.raises(KeyError):
                loss(model)
            hook.remove()
        hook = layers[3].register_forward_hook(lambda _m, _x, y: y.register_hook(stop) and None)
        total = loss(model)
        hook.remove()
        with nothing_left_behind(), pytest.raises(KeyError):
            total.backward()
        model.zero_grad()
        torch.manual_seed(7)
        return backward(model, loss(model))

    compare(model, run)


def test_threads_share_a_model(model):
    model.eval()

    def run() -> Found:
        found: list[object] = [None] * 4

        def work(number: int) -> None:
            try:
                for _ in range(2):
                    found[number] = torch.autograd.grad(loss(model, pictures().roll(number, 0)), trained(model))
            except BaseException as error:
                found[number] = error

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(isinstance(one, tuple) for one in found), found
        return {f"{i} {j}": g for i, one in enumerate(found) for j, g in enumerate(one)}  # type: ignore[arg-type]

    try:
        compare(model, run)
    finally:
        model.train()
