"""Tiny adapted models that nothing hides in: norms, layer scales and adapters are random, no two tasks alike.

A new method, head, task or backbone is found by listing its folder. It needs an entry here only where a class cannot
be built without options (``EXAMPLES``), or to be run with other options beside its defaults (``VARIANTS``).
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

#: short name → (class, name, options); default options of every method must fit these widths
BACKBONES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("ViT", "vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}),
    "dinov2": (
        "ViT",
        "vit_small_patch14_dinov2",
        {"img_size": 56, "embed_dim": 48, "depth": 4, "num_heads": 3, "init_values": 1.0},
    ),
    "dinov3": (
        "Eva",
        "vit_small_patch16_dinov3",
        {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3, "init_values": 1.0},
    ),
    "swin": (
        "Swin",
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4]},
    ),
    "swinv2": (
        "SwinV2",
        "swinv2_tiny_window8_256",
        {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4]},
    ),
    "convnext": ("ConvNeXt", "convnextv2_tiny", {"dims": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}),
    "cnn": ("CNN", "test_efficientnet", {}),
    "mit": (
        "MiT",
        "mit_b0",
        {"embed_dims": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]},
    ),
}

#: kind → class → options without which it cannot be built
EXAMPLES: dict[str, dict[str, dict[str, Any]]] = {
    "adapters": {},
    "heads": {
        "SegFormerHead": {"channels": 16},
        "HRNetHead": {"widths": [4, 6, 8, 10]},
        "DPTHead": {"channels": 12, "widths": [4, 6, 8, 10]},
        "UPerHead": {"channels": 12},
        "DeMT": {"channels": 16},
        "SharedBaseHead": {"channels": 16},
    },
    "tasks": {"Semantic": {"classes": 5}, "Depth": {"max_metres": 10.0}},
    "balancing": {},
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

#: the method of docs/add-a-method.md, which a test adds from outside the package
EXAMPLE_OF_THE_PAGE = "Rescale"

#: Written by hand: family → methods and cases that it refuses, since nothing there is what they adapt. The suite holds
#: it to both sides: what stands here is refused in one line, everything else works.
REFUSED: dict[str, set[str]] = {
    "mit": {"VPT"},  # its attention shortens keys by a convolution, which prompts cannot enter
    "convnext": {"VPT", "LoRA-rank-rs-layers", "LoRA+LoRA"},  # no attention, no proj
    "cnn": {
        *("Houlsby", "Pfeiffer", "AdaptFormer", "Convpass", "Mona", "VMTAdapter", "VMTAdapterLite", "PolyhistorLite"),
        *("MTLoRA", "VPT"),
        *("LoRA-rank-rs-layers", "LoRA+LoRA", "NormTuning-places"),  # no fc1, no mlp
        EXAMPLE_OF_THE_PAGE,  # linear layers only
    },
}

#: three tasks, so that a mix can leave one out
TASKS = {"seg": ("Semantic", {"classes": 5}), "depth": ("Depth", {"max_metres": 10.0}), "normals": ("Normals", {})}

#: what each of three pictures wants
MIX = [["normals"], ["seg", "depth"], ["depth"]]


def example(kind: str, name: str) -> Any:
    """The class ``name`` of a kind with its defaults, or with the options it needs.

    Raises:
        AssertionError: it has required options that ``EXAMPLES`` does not give.
    """
    try:
        return registry.build(kind, name, EXAMPLES[kind].get(name, {}))
    except garnish.errors.OptionError as error:
        raise AssertionError(
            f"{name}: give its fields defaults, or add its options to EXAMPLES in tests/tiny.py ({error})"
        ) from None


def method_cases() -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Label → the methods (name, options) of one case: every class of the folder, its variants, and the lists."""
    cases = {name: [(name, EXAMPLES["adapters"].get(name, {}))] for name in registry.classes("adapters")}
    for name, variants in VARIANTS.items():
        cases |= {f"{name}-{'-'.join(options)}": [(name, options)] for options in variants}
    return cases | LISTS


def is_refused(case: str, short: str) -> bool:
    """Whether a family refuses a case, or one of the methods in it."""
    return not REFUSED.get(short, set()).isdisjoint({case, *(name for name, _ in method_cases()[case])})


def methods(case: str, *, per_task: bool) -> list[Method]:
    """The methods of a case of :func:`method_cases`."""
    return [registry.build("adapters", n, {**options, "per_task": per_task}) for n, options in method_cases()[case]]


def backbone(short: str, *, seed: int = 0) -> Backbone:
    """A tiny trunk with every parameter random."""
    _, name, options = BACKBONES[short]
    made = garnish.backbone(name, options=options)
    randomise_trunk(made, seed=seed)
    return made


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
