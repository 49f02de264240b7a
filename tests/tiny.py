"""Tiny adapted models that nothing hides in: norms, layer scales and adapters are random, no two tasks alike.

A new method, head, task or backbone is found by the registry and needs no entry here: it is built with its defaults, a
family from what it names in ``small``. The tables hold what ours are run with beside that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import garnish
from garnish import registry
from garnish.backbones.backbone import Backbone
from garnish.engine.adapter import Method
from garnish.model.model import Model, adapt

#: label → (class, name, options) of every family's small trunks; default options of every method must fit these widths
BACKBONES: dict[str, tuple[str, str, dict[str, Any]]] = {
    label: (family, name, dict(options))
    for family, cls in registry.classes("backbones").items()
    for label, (name, options) in getattr(cls, "small", {}).items()  # one without is told by the suite
}

#: kind → class of ours → options that it cannot be built without, or with which it is small
EXAMPLES: dict[str, dict[str, dict[str, Any]]] = {
    "heads": {
        "SegFormerHead": {"channels": 16},
        "HRNetHead": {"widths": [4, 6, 8, 10]},
        "DPTHead": {"channels": 12, "widths": [4, 6, 8, 10]},
        "UPerHead": {"channels": 12},
        "DeMT": {"channels": 16},
        "SharedBaseHead": {"channels": 16},
    },
    "tasks": {"Semantic": {"classes": 5}, "Depth": {"max_metres": 10.0}, "RelativeDepth": {"larger": "nearer"}},
}

#: method → further options to run it with
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "LoRA": [{"rank": 3, "rs": True, "layers": ["fc1", "proj"]}, {"rank": 3, "dora": True}],
    "AdaptFormer": [{"scale": "learnable", "bottleneck": 16, "dropout": 0.0}],
    "BitFit": [{"tables": True}],
    "NormTuning": [{"places": ["mlp"]}],
    "Partial": [{"blocks": 3}],
    "Extras": [{"reductions": False}],
    "Convpass": [{"init": "xavier", "bottleneck": 5, "scale": 0.1}],
}

#: method whose published start is only near the identity → how near on these random trunks, over the largest value
NEAR = {"Houlsby": 0.01, "SSF": 0.35, "Mona": 0.15, "VPT": float("inf")}

#: methods some of whose tensors learn later than at the second step, as published
STEPS_TO_LEARN = {"MTLoRA": 3}

#: method → shared layers of the last block whose update nothing reads, kept since the published method has it
UNREAD = {"MTLoRA": (".mlp.fc2",)}

#: combinations of methods, by name
LISTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "LoRA+AdaptFormer": [("LoRA", {"rank": 2}), ("AdaptFormer", {"bottleneck": 16})],
    "Pfeiffer+NormTuning": [("Pfeiffer", {"reduction": 2}), ("NormTuning", {"places": ["mlp"]})],
    "LoRA+LoRA": [("LoRA", {"rank": 2, "layers": ["fc1", "proj"]}), ("LoRA", {"rank": 3, "layers": ["proj", "fc2"]})],
}

#: three tasks, so that a mix can leave one out
TASKS = {"seg": ("Semantic", {"classes": 5}), "depth": ("Depth", {"max_metres": 10.0}), "normals": ("Normals", {})}

#: what each of three pictures wants
MIX = [["normals"], ["seg", "depth"], ["depth"]]


#: heads that decode
HEADS = sorted(name for name, cls in registry.classes("heads").items() if cls.decodes)


def example(kind: str, name: str) -> Any:
    """The class ``name`` of a kind with its defaults, or with the options it needs.

    Raises:
        AssertionError: it has required options, and is not one of ours in ``EXAMPLES``.
    """
    try:
        return registry.build(kind, name, EXAMPLES.get(kind, {}).get(name, {}))
    except garnish.errors.OptionError as error:
        raise AssertionError(f"{name}: give its fields defaults, with which it can be tried ({error})") from None


def method_cases() -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Label → the methods (name, options) of one case: every class of the folder, its variants, and the lists."""
    cases = {name: [(name, {})] for name in registry.classes("adapters")}
    for name, variants in VARIANTS.items():
        cases |= {f"{name}-{'-'.join(options)}": [(name, options)] for options in variants}
    return cases | LISTS


@cache
def refusals(case: str, short: str) -> tuple[str, ...]:
    """What the methods of a case say to a family, one line of each that does not fit it; empty: the case must work."""
    lines = (method.fits(bare_trunk(short)) for method in methods(case, per_task=False))
    return tuple(line for line in lines if line is not None)


def methods(case: str, *, per_task: bool) -> list[Method]:
    """The methods of a case of :func:`method_cases`."""
    return [registry.build("adapters", n, {**options, "per_task": per_task}) for n, options in method_cases()[case]]


def backbone(short: str, *, seed: int = 0) -> Backbone:
    """A tiny trunk with every parameter random."""
    _, name, options = BACKBONES[short]
    made = garnish.backbone(name, options=options)
    randomise_trunk(made, seed=seed)
    return made


@cache
def bare_trunk(short: str) -> Backbone:
    """A tiny trunk that serves many questions: it is not to be adapted or changed."""
    return backbone(short)


@torch.no_grad()
def randomise_trunk(trunk: Backbone, *, seed: int = 0) -> None:
    """Weights N(0, 1/fan_in), of convolutions N(0, 2/fan_in), factors (norms, layer scale) around 1, biases around 0.

    Without the two a convolutional trunk's SiLU layers wear the picture down until all that is left is the biases.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in trunk.frozen_tensors().items():
        if not isinstance(tensor, nn.Parameter):
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            tensor.copy_(noise * (2**0.5 if tensor.ndim == 4 else 1.0) / tensor[0].numel() ** 0.5)
        else:
            tensor.copy_(0.2 * noise + (0.0 if name.endswith("bias") else 1.0))


@torch.no_grad()
def randomise_own(model: Model, *, seed: int = 1) -> None:
    """Move adapters, tuned parameters and heads away from their start, each owner another way."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.trained_parameters().values():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
        noise = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
        parameter.add_(0.5 * noise)


def model(
    short: str, added: Method | Sequence[Method], *, tasks: Sequence[str] = tuple(TASKS), own: bool = True
) -> Model:
    """A tiny adapted model in evaluation mode; ``own=False`` leaves adapters as they start."""
    torch.manual_seed(0)
    specs = {name: registry.build("tasks", *TASKS[name]) for name in tasks}
    made = adapt(backbone(short), added, specs, registry.build("heads", "LinearHead"))
    if own:
        randomise_own(made)
    return made.eval()


@cache
def pictures(count: int = 3, height: int = 64, width: int = 64) -> Tensor:
    """(count, 3, height, width) float32 in [0, 1]."""
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(2))


def far(one: Tensor, other: Tensor) -> float:
    """Largest difference over the largest value of ``other``."""
    one, other = one.detach(), other.detach()
    return float((one - other).abs().max() / other.abs().max())


def one_loss(outputs: dict[str, Tensor]) -> Tensor:
    """A number that depends on every output value, on each in another way."""
    total = torch.zeros(())
    for number, out in enumerate(outputs.values(), start=1):
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
        total = total + number * ((out + weights) ** 2).mean()
    return total


def dead_tensors(trained: Model, *, steps: int = 2) -> list[str]:
    """Trained tensors that got no gradient, or only zeros, in so many optimizer steps."""
    trained.train()
    parameters = trained.trained_parameters()
    optimizer = torch.optim.SGD(parameters.values(), lr=0.05)
    alive: set[str] = set()
    for _ in range(steps):
        optimizer.zero_grad()
        one_loss(trained(pictures())).backward()
        alive |= {n for n, p in parameters.items() if p.grad is not None and bool(p.grad.any())}
        optimizer.step()
    trained.eval()
    return [n for n in parameters if n not in alive]
