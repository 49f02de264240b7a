"""Training passes at each memory level, side by side, for ``test_memory_levels*.py``."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import garnish
import tiny
from garnish import registry
from garnish.engine.memory import LEVELS
from garnish.model.model import Model

#: relative difference that LoRA's one product may make in float64; everything else is the same to the bit
ONE_PRODUCT = 1e-10


def blocks_of(model: Model) -> int:
    """Blocks of the trunk over all stages."""
    return sum(len(stage.blocks) for stage in model.backbone.stages)


def mixed(model: Model, first: int = 0) -> tuple[str, ...]:
    """One level per block, all three in turn."""
    return tuple(LEVELS[(first + i) % len(LEVELS)] for i in range(blocks_of(model)))


def made(
    short: str,
    method: Any,
    *,
    tasks: Sequence[str] = tuple(tiny.TASKS),
    drop_path: float = 0.0,
    dtype: torch.dtype = torch.float64,
    head: Any = None,
    **options: Any,
) -> Model:
    """A tiny model in training mode whose every tensor is random; ``options`` go over those of the tiny trunk."""
    _, name, own = tiny.BACKBONES[short]
    trunk = garnish.backbone(name, options={**own, **options}, drop_path=drop_path)
    tiny.randomise_trunk(trunk)
    torch.manual_seed(0)
    specs = {task: registry.build("tasks", *tiny.TASKS[task]) for task in tasks}
    model = garnish.adapt(trunk, method, specs, head or garnish.LinearHead())
    tiny.randomise_own(model)
    return model.to(dtype).train()


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    """A copy of each gradient, by name; None where there is none."""
    return {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def training_pass(
    model: Model, level: str | Sequence[str], pictures: Tensor | None = None, tasks: Any = None, *, seed: int = 5
) -> dict[str, Tensor | None]:
    """One forward and backward pass at a level: outputs, gradients (of the pictures too), torch's random state after.

    Buffers (running statistics) are as before afterwards, and what the pass made of them is in the answer.
    """
    model.backbone.memory = level
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.zero_grad(set_to_none=True)
    if pictures is None:
        pictures = tiny.pictures()
    x = pictures.to(next(model.parameters()).dtype).clone().requires_grad_()
    torch.manual_seed(seed)
    outputs = model(x, tasks)
    loss = tiny.one_loss(outputs)
    found: dict[str, Tensor | None] = {f"output of {name}": out.detach().clone() for name, out in outputs.items()}
    found["random state after forward"] = torch.get_rng_state()
    loss.backward()
    found["random state after backward"] = torch.get_rng_state()
    found["gradient of the pictures"] = x.grad
    for name, buffer in model.named_buffers():
        found[f"buffer {name}"] = buffer.clone()
        buffer.copy_(before[name])
    return found | gradients(model)


def differences(
    got: dict[str, Tensor | None], want: dict[str, Tensor | None], tolerance: float = 0.0
) -> dict[str, object]:
    """What is not the same: name → relative difference, or what is missing.

    Relative to the tensor's largest value, and to a thousandth of the largest of all where that is more: gradients that
    are nothing but rounding (of a bias before a batch norm) are not compared with themselves.
    """
    assert list(got) == list(want)
    floats = [t for t in want.values() if t is not None and t.is_floating_point()]
    least = max(float(t.abs().max()) for t in floats) / 1000
    found: dict[str, object] = {}
    for name, one in got.items():
        other = want[name]
        if one is None or other is None:
            if one is not other:
                found[name] = "no gradient" if one is None else "a gradient too many"
        elif one.dtype != other.dtype or one.shape != other.shape:
            found[name] = f"{one.dtype} {tuple(one.shape)}, not {other.dtype} {tuple(other.shape)}"
        elif not torch.equal(one, other):
            far = float((one.double() - other.double()).abs().max()) / max(float(other.double().abs().max()), least)
            if not far <= tolerance:
                found[name] = far
    return found


def tolerance_of(short: str, label: str) -> float:
    """How far a case may be from ``fast``: LoRA's one product, and rounding where frozen convolutions are.

    The gradient of a convolution's input is another sum where the weight is not trained.
    """
    if "LoRA" in label:
        return ONE_PRODUCT
    return 1e-12 if short in ("mit", "cnn", "convnext") else 0.0


def check_levels(model: Model, levels: Sequence[Any] | None = None, tolerance: float = 0.0, **options: Any) -> None:
    """Hold every level against ``fast``, which is left set."""
    want = training_pass(model, "fast", **options)
    assert any(value is not None and value.abs().max() > 0 for name, value in want.items() if "output" not in name)
    for level in levels or ("lean", "least", mixed(model), mixed(model, 1)):
        got = training_pass(model, level, **options)
        assert differences(got, want, tolerance) == {}, level
    model.backbone.memory = "fast"


class Storages(TorchDispatchMode):
    """Bytes of new storages that are still alive, counted through weak references; those made in backward too."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0
        self._watched: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage(), given)
        return out

    def _watch(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key = storage._cdata
        if key in self.alive or key in given:
            return
        self.alive[key] = storage.nbytes()
        self._watched.append(weakref.finalize(storage, self.alive.pop, key, None))
        self.peak = max(self.peak, self.total)

    @property
    def total(self) -> int:
        return sum(self.alive.values())


class Operations(TorchDispatchMode):
    """Names of the operations that run, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def kept_bytes(model: Model, level: str | Sequence[str], pictures: Tensor) -> int:
    """Bytes that are alive between forward and backward beside outputs and parameters."""
    model.backbone.memory = level
    model.zero_grad(set_to_none=True)
    with Storages() as counted:
        outputs = model(pictures)
        kept = counted.total
        del outputs
        assert counted.total < kept / 20, "what a pass kept goes with its outputs"
    return kept


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Assert that no mode and no hook of saved tensors outlives what runs inside, and that gradients are on."""

    def state() -> tuple[object, ...]:
        return (
            torch._C._len_torch_function_stack(),
            torch._C._len_torch_dispatch_stack(),
            torch._C._autograd._top_saved_tensors_default_hooks(True),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
        )

    before = state()
    yield
    assert state() == before
