"""The arms that are measured beside each other: garnish at its levels of memory, PEFT on timm's model, all of timm's.

Every arm takes the same normalised pictures and gives feature maps; there are no heads and no optimizer. Weights are
random: neither time nor bytes depend on them.

Shape letters: B pictures, C channels, H W pixels, h w grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import garnish as gn
from garnish import registry
from garnish.engine import shared_passes
from garnish.engine.shared_passes import Wanted, plan_passes
from garnish.model.model import Model

#: of one level for the whole trunk, or of one for each block in forward order
Levels = str | tuple[str, ...]
#: the arms that are garnish in this tree, and their levels; ``bound`` has one a block, and is given them
LEVELS = {"fast": "fast", "lean": "lean", "least": "least"}
#: what LoRA of ours adapts when it is not told otherwise, by timm's names
SITES = r".*blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))"


class LeftOutError(Exception):
    """An arm that cannot be measured, and why: said in the output and kept with the results."""


@dataclass(frozen=True)
class Case:
    """What is trained, and on what.

    Attributes:
        trunk: name as for :func:`garnish.backbone`, which is timm's too but for a MiT.
        size: (H, W) of the pictures.
        batch: B.
        options: architecture overrides, as for :func:`garnish.backbone`.
        tasks: tasks that share the method, as many as its streams, where it has some.
    """

    trunk: str
    size: tuple[int, int] = (224, 224)
    batch: int = 4
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: int = 4

    def pictures(self, device: str) -> Tensor:
        """(B, 3, H, W) float32, as if normalised; the same each time."""
        drawn = torch.randn(self.batch, 3, *self.size, generator=torch.Generator().manual_seed(1))
        return drawn.to(device)


#: label → case of the tables
CASES = {
    "ViT-S": Case("vit_small_patch14_dinov2", (224, 280)),
    "Swin-T": Case("swin_tiny_patch4_window7_224"),
    "ConvNeXt-T": Case("convnext_tiny"),
    "MiT-B2": Case("mit_b2"),
    "MiT-B0": Case("mit_b0"),
}
#: the same families so small that a step takes milliseconds: to try the tool, never to quote
TINY = {
    "ViT-S": Case(
        CASES["ViT-S"].trunk,
        (56, 70),
        2,
        {"img_size": 56, "embed_dim": 48, "depth": 4, "num_heads": 3, "init_values": 1.0},
    ),
    "Swin-T": Case(
        CASES["Swin-T"].trunk, (224, 224), 1, {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4]}
    ),
    "ConvNeXt-T": Case(CASES["ConvNeXt-T"].trunk, (64, 64), 2, {"dims": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}),
    "MiT-B2": Case(
        CASES["MiT-B2"].trunk,
        (64, 64),
        2,
        {"embed_dims": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]},
    ),
}
TINY["MiT-B0"] = Case("mit_b0", TINY["MiT-B2"].size, 2, TINY["MiT-B2"].options)


@dataclass(frozen=True)
class Arm:
    """One way to train a trunk.

    Attributes:
        maps: pictures (B, 3, H, W) → feature maps, each (B, C, h, w); those of a task's own streams one after another,
            as heads would read them.
        trained: what gets gradients.
        present: all parameters and buffers.
        trunk: of garnish; None for others.
    """

    maps: Callable[[Tensor], Iterator[Tensor]]
    trained: list[nn.Parameter]
    present: list[Tensor]
    trunk: nn.Module | None = None

    def loss(self, images: Tensor) -> Tensor:
        """The sum over all maps of the mean square, in float32."""
        total = images.new_zeros((), dtype=torch.float32)
        for x in self.maps(images):
            total = total + x.float().square().mean()
        return total


def build(
    arm: str,
    case: Case,
    method: str,
    options: Mapping[str, Any],
    levels: Levels,
    device: str,
    compiled: Mapping[str, Any] | None = None,
) -> Arm:
    """An arm by its name, in training mode; what trains and starts at zero is moved off it.

    Args:
        arm: ``peft``, ``full`` (all of timm's model trained), ``old`` (as the tree at hand trains by itself), or
            another: garnish at ``levels``.
        case: what is trained, and on what.
        method: class of ``garnish.adapters``.
        options: its options.
        levels: of the trunk's memory; nothing to ``peft``, ``full`` and ``old``.
        device: ``cpu`` or ``cuda``.
        compiled: keyword arguments of ``torch.compile``; None: not compiled.

    Raises:
        LeftOutError: it cannot be built, and why.
    """
    torch.manual_seed(0)
    if arm in ("peft", "full"):
        plain = _timm_model(case)
        made = _peft(plain, registry.build("adapters", method, options), case) if arm == "peft" else plain
        found = _plain_arm(made.to(device).train(), plain, case, compiled)
    else:
        model = garnish_model(case, method, options)
        if arm != "old":
            set_levels(model.backbone, levels)
        model.to(device).train()
        if compiled is not None:
            model.compile(**compiled)
        found = garnish_arm(model)
        if not found.trained:
            raise LeftOutError(f"{method} trains nothing in the trunk")
    move_off_zero(found.trained)
    return found


def set_levels(trunk: nn.Module, levels: Levels) -> None:
    """Set what a trunk keeps for the backward pass.

    Raises:
        LeftOutError: a tree without ``trunk.memory`` that is asked for more than it can do.
    """
    if hasattr(trunk, "memory"):
        trunk.memory = levels
    elif levels == "least":
        trunk.checkpointing = True
    elif levels != "fast":
        raise LeftOutError(f"this tree's trunks have no memory to set to {levels}")


def garnish_model(case: Case, method: str, options: Mapping[str, Any]) -> Model:
    """A model of ours; its heads are never run.

    Raises:
        LeftOutError: the method does not fit the trunk.
    """
    tasks = {f"task{number}": gn.Semantic(classes=2) for number in range(case.tasks)}
    trunk = gn.backbone(case.trunk, options=dict(case.options) or None)
    try:
        return gn.adapt(trunk, registry.build("adapters", method, options), tasks)
    except gn.errors.SiteError as error:
        raise LeftOutError(str(error)) from None


def garnish_arm(model: Model) -> Arm:
    """Its trunk, run as the model runs it for all tasks."""

    def maps(images: Tensor) -> Iterator[Tensor]:
        wanted = Wanted.of(None, images.shape[0], model.tasks)
        owner_of = model.served.owner_of
        how: dict[str, Any] = {"whole": model.is_compiled}
        if hasattr(shared_passes, "stream_bytes"):  # not in older trees
            how["picture_bytes"] = shared_passes.stream_bytes(model.backbone, *images.shape[-2:])
        for step in plan_passes(wanted, owner_of, model.backbone.body, images.device, **how):
            found = model._run(step, images, None)
            own = {id(rows): task for task, rows in step.tasks.items()}  # tasks that read the same rows count once
            for task in own.values():
                yield from found.of([task])[task]

    trained = [p for owner in model.owners for p in owner.tensors().values() if isinstance(p, nn.Parameter)]
    inside = model.backbone
    present = [*inside.parameters(), *inside.buffers(), *inside.frozen_tensors().values()]
    return Arm(maps, trained, present, inside)


def _timm_model(case: Case) -> nn.Module:
    """The model of timm itself, with random weights and nothing frozen."""
    import timm

    if case.trunk.startswith(("mit_", "segformer_", "garnish_")):
        raise LeftOutError(f"{case.trunk} is not timm's")
    options = {"drop_path_rate": 0.0, **case.options}  # a Swin of timm's drops paths in training; ours does not
    if case.trunk.startswith("vit_"):
        options["dynamic_img_size"] = True
    elif case.trunk.startswith("swin"):
        options["img_size"] = case.size
    return timm.create_model(case.trunk, num_classes=0, **options)


def _peft(plain: nn.Module, method: object, case: Case) -> nn.Module:
    """PEFT's LoRA of the same rank on the same layers."""
    if not isinstance(method, gn.LoRA) or method.layers or method.per_task:
        raise LeftOutError(f"{method!r} is not compared with PEFT here, LoRA on the blocks' linear layers is")
    try:
        import peft
    except ImportError:
        raise LeftOutError("peft is not installed") from None
    config = peft.LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        use_rslora=method.rs,
        use_dora=method.dora,
        target_modules=SITES,
    )
    made = peft.get_peft_model(plain, config)
    ours = sum(p.numel() for p in garnish_arm(garnish_model(case, "LoRA", registry.options_of(method))).trained)
    theirs = sum(p.numel() for p in made.parameters() if p.requires_grad)
    if ours != theirs:
        raise LeftOutError(f"PEFT would train {theirs:,} numbers and garnish {ours:,}: not the same layers")
    return made


def _plain_arm(made: nn.Module, plain: nn.Module, case: Case, compiled: Mapping[str, Any] | None) -> Arm:
    """The model of timm, wrapped by PEFT (which changes it in place) or not, read at the depths where ours is."""
    given: dict[str, Any] = {}
    if case.trunk.startswith("vit_"):
        given = {"indices": [len(plain.blocks) * (part + 1) // 4 - 1 for part in range(4)], "norm": False}

    def run(images: Tensor) -> list[Tensor]:
        return plain.forward_intermediates(images, intermediates_only=True, output_fmt="NCHW", **given)

    run = run if compiled is None else torch.compile(run, **compiled)

    def maps(images: Tensor) -> Iterator[Tensor]:
        yield from run(images)

    trained = [p for p in made.parameters() if p.requires_grad]
    return Arm(maps, trained, [*made.parameters(), *made.buffers()])


@torch.no_grad()
def move_off_zero(trained: list[nn.Parameter]) -> None:
    """Give matrices that start at zero small values, so that no gradient is zero because of them."""
    generator = torch.Generator().manual_seed(2)
    for parameter in trained:
        if parameter.ndim > 1 and not parameter.any():
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
