"""Tiny models of transformers, one of each kind that becomes a trunk, and their own hidden states as maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from garnish.backbones.transformers_names import transformers_model
from garnish.checking.plain_data import Json

_PLAIN = {"hidden_size": 24, "num_hidden_layers": 5, "num_attention_heads": 3, "image_size": 40, "patch_size": 8}
_CONV = {"hidden_sizes": [8, 16, 8, 24], "depths": [1, 1, 2, 1]}
_SWIN = {"embed_dim": 8, "depths": [2, 2, 2], "num_heads": [1, 2, 4], "window_size": 3, "image_size": 64}
_MIT = {"hidden_sizes": [8, 16, 8, 16], "depths": [1, 2, 1, 1], "num_attention_heads": [1, 2, 1, 4]}

#: short → the model, and an odd size of pictures
CASES: dict[str, tuple[Callable[[], Any], tuple[int, int]]] = {
    "vit": (
        lambda: hf.ViTForImageClassification(
            hf.ViTConfig(**_PLAIN, intermediate_size=50, hidden_act="quick_gelu", layer_norm_eps=1e-3)
        ),
        (24, 56),
    ),
    "vit_no_bias": (lambda: hf.ViTModel(hf.ViTConfig(**_PLAIN, intermediate_size=48, qkv_bias=False)), (64, 16)),
    "dinov2": (lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**_PLAIN, mlp_ratio=2)), (56, 24)),
    "dinov2_gated": (lambda: hf.Dinov2Model(hf.Dinov2Config(**_PLAIN, use_swiglu_ffn=True)), (24, 88)),
    "dinov2_backbone": (lambda: hf.Dinov2Backbone(hf.Dinov2Config(**_PLAIN)), (24, 88)),
    "registers": (
        lambda: hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**_PLAIN, num_register_tokens=3)),
        (56, 24),
    ),
    "dinov3": (
        lambda: hf.DINOv3ViTModel(
            hf.DINOv3ViTConfig(**_PLAIN, intermediate_size=48, num_register_tokens=2, layer_norm_eps=1e-3)
        ),
        (24, 56),
    ),
    "dinov3_gated": (
        lambda: hf.DINOv3ViTBackbone(
            hf.DINOv3ViTConfig(
                **_PLAIN,
                intermediate_size=36,
                use_gated_mlp=True,
                hidden_act="silu",
                rope_theta=50.0,
                query_bias=False,
                value_bias=False,
            )
        ),
        (56, 40),
    ),
    "swin": (lambda: hf.SwinForImageClassification(hf.SwinConfig(**_SWIN)), (5 * 16, 7 * 16)),
    "swin_backbone": (lambda: hf.SwinBackbone(hf.SwinConfig(**_SWIN, qkv_bias=False)), (4 * 16, 5 * 16)),
    "segformer": (
        lambda: hf.SegformerForSemanticSegmentation(hf.SegformerConfig(**_MIT, mlp_ratios=[2, 2, 2, 2])),
        (96, 160),
    ),
    "convnext": (lambda: hf.ConvNextForImageClassification(hf.ConvNextConfig(**_CONV)), (64, 96)),
    "convnextv2": (lambda: hf.ConvNextV2Model(hf.ConvNextV2Config(**_CONV, hidden_act="relu")), (96, 32)),
    "dinov3_convnext": (
        lambda: hf.DINOv3ConvNextModel(hf.DINOv3ConvNextConfig(**_CONV, layer_norm_eps=1e-3)),
        (64, 96),
    ),
}


@torch.no_grad()
def model(short: str) -> Any:
    """Random in each tensor, so that no norm, bias, token or table is what nothing needs."""
    torch.manual_seed(0)
    made = CASES[short][0]().eval()
    for tensor in made.parameters():
        tensor.copy_(0.2 * torch.randn_like(tensor))
    return made


def saved(made: Any, folder: Path) -> dict[str, Json]:
    """The model as transformers writes it, in the names of its fourth version; returns the configuration."""
    made.save_pretrained(folder)
    config: dict[str, Json] = json.loads((folder / "config.json").read_text())
    return config


def named(config: Mapping[str, Json]) -> tuple[str, dict[str, Json]]:
    """Name and options of the trunk of a configuration."""
    name, options = transformers_model(config, "config.json").architecture(config, "config.json")
    return name, options


@torch.no_grad()
def maps(short: str, made: Any, images: Tensor) -> list[Tensor]:
    """The model's own hidden states where a trunk reads its maps, before any norm behind the blocks."""
    if short.startswith(("vit", "dinov2", "registers", "dinov3")) and "convnext" not in short:
        more = {"interpolate_pos_encoding": True} if short.startswith("vit") else {}
        states = made(images, output_hidden_states=True, **more).hidden_states[1:]
        grid = [side // 8 for side in images.shape[2:]]
        tokens = grid[0] * grid[1]
        # a quarter of five blocks each: behind the first, second (2.5 is rounded to even), fourth and fifth
        return [states[at][:, -tokens:].transpose(1, 2).unflatten(2, grid) for at in (0, 1, 3, 4)]
    if short.startswith("swin"):
        return _swin(made, images)
    states = made(images, output_hidden_states=True).hidden_states
    return list(states[-4:])


def _swin(made: nn.Module, images: Tensor) -> list[Tensor]:
    """Before merging, which transformers gives from its encoder alone."""
    swin = next(module for module in made.modules() if hasattr(module, "embeddings"))
    embedded, grid = swin.embeddings(images)
    out = swin.encoder(embedded, grid, output_hidden_states=True, output_hidden_states_before_downsampling=True)
    return list(out.reshaped_hidden_states[1:])
