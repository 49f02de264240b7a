"""Models to export: small trunks of every family whose float32 is near their float64, with heads of every kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

import garnish
from garnish.backbones.backbone import Backbone
from garnish.engine.adapter import Method
from garnish.heads.head import Head
from garnish.model.model import Model

#: family → name and options of a smaller trunk than tiny's: what is exported takes time by its operations. They are
#: wide enough for their norms, which divide by next to nothing where few channels are nearly equal.
TRUNKS = {
    "mit": ("mit_b0", {"embed_dims": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}),
    "vit": ("vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}),
    "dinov2": ("vit_small_patch14_dinov2", {"img_size": 56, "embed_dim": 48, "depth": 4, "num_heads": 3}),
    "dinov3": ("vit_small_patch16_dinov3", {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}),
    "eva": ("eva02_tiny_patch14_224", {"img_size": 56, "embed_dim": 48, "depth": 4, "num_heads": 3}),
    "swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": [2, 1], "num_heads": [1, 2]}),
    "swinv2": ("swinv2_tiny_window8_256", {"embed_dim": 24, "depths": [2, 1], "num_heads": [1, 2]}),
    "convnext": ("convnextv2_tiny", {"dims": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}),
    "cnn": ("test_efficientnet", {}),
}
#: task → its head, of every kind that differs in what it asks of a graph
HEADS: Mapping[str, Head] = {
    "seg": garnish.LinearHead(),
    "depth": garnish.SegFormerHead(channels=16),
    "normals": garnish.SharedBaseHead(channels=16),
    "parts": garnish.DeMT(channels=16),
}
TASKS = {
    "seg": garnish.Semantic(classes=5),
    "depth": garnish.Depth(max_metres=10.0),
    "normals": garnish.Normals(),
    "parts": garnish.Semantic(classes=("wall", "floor", "door")),
}


@torch.no_grad()
def trunk(short: str) -> Backbone:
    """A small trunk at its family's start, moved by a tenth, so that no norm, bias or table is what nothing needs.

    Those of :mod:`tiny`, and their adapters, are too wild here: their float32 may be 1e-3 from their float64.
    """
    name, options = TRUNKS[short]
    torch.manual_seed(0)
    made = garnish.backbone(name, options=options)
    for tensor in made.frozen_tensors().values():
        if isinstance(tensor, nn.Parameter):
            tensor.mul_(1 + 0.1 * torch.randn_like(tensor)).add_(0.05 * torch.randn_like(tensor))
    return made


def model(short: str, method: Method | Sequence[Method], heads: Mapping[str, Head] = HEADS) -> Model:
    """An adapted model of the tasks of these heads."""
    torch.manual_seed(0)
    made = garnish.adapt(trunk(short), method, {task: TASKS[task] for task in heads}, heads)
    moved(made)
    return made.eval()


@torch.no_grad()
def moved(model: Model) -> None:
    """Move adapters and heads away from their start, a little."""
    for parameter in model.trained_parameters().values():
        parameter.add_(0.02 * torch.randn_like(parameter))
