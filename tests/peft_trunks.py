"""Tiny trunks and the models of timm and transformers that compute the same: names by hand, run by their own code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import garnish
import tiny
from garnish import registry
from garnish.backbones.backbone import Backbone
from garnish.backbones.segformer import dialects
from garnish.engine.adapter import Method
from garnish.heads.head import Head
from garnish.model.model import Model

#: The dialect of the transformers that is installed: the tests hold on either side of the renaming.
INSTALLED = "transformers5" if int(transformers.__version__.split(".")[0]) >= 5 else "transformers4"
#: Families that transformers has too, with the size of their pictures.
SIZES = {"vit": (64, 64), "dinov2": (56, 56), "dinov2_gated": (56, 56), "swin": (64, 64), "mit": (64, 96)}
#: Windows of 2 on 16×16 patches: shifted in three of four stages.
SWIN = {**tiny.BACKBONES["swin"][2], "img_size": 64, "window_size": 2}
GATED = {"img_size": 56, "embed_dim": 48, "depth": 4, "num_heads": 3, "init_values": 1.0}

Run = Callable[[Tensor], list[Tensor]]


def adapted(
    short: str, methods: Method | Sequence[Method], *, tasks: Sequence[str] = ("seg",), head: Head | None = None
) -> Model:
    """A tiny model whose adapters and heads are away from their start."""
    torch.manual_seed(0)
    specs = {name: registry.build("tasks", *tiny.TASKS[name]) for name in tasks}
    model = garnish.adapt(trunk_of(short), methods, specs, head)
    tiny.randomise_own(model)
    return model.eval()


def trunk_of(short: str) -> Backbone:
    """A tiny trunk with random weights whose norms have transformers' epsilon."""
    if short == "mit":
        _, name, options = tiny.BACKBONES[short]
        made = garnish.backbone(name, options={**options, "norm_eps": 1e-5})
    elif short == "swin":
        made = garnish.backbone(tiny.BACKBONES[short][1], options=SWIN)
    elif short == "dinov2_gated":
        made = garnish.backbone("vit_giant_patch14_dinov2", options=GATED)
    else:
        return tiny.backbone(short)
    tiny.randomise_trunk(made)
    return made


def pictures(short: str) -> Tensor:
    """Two normalised pictures."""
    return torch.randn(2, 3, *SIZES.get(short, (64, 64)), generator=torch.Generator().manual_seed(4))


def timm_model(short: str, trunk: Backbone) -> tuple[nn.Module, Callable[[nn.Module], Run]]:
    """Timm's model with the trunk's weights."""
    made = timm.create_model(
        trunk.name, num_classes=0, **{**trunk.options, **({} if short == "swin" else {"dynamic_img_size": True})}
    )
    made.load_state_dict({trunk.source_names[n]: t for n, t in trunk.frozen_tensors().items()}, strict=False)

    def runner(model: nn.Module) -> Run:
        return lambda x: model.forward_intermediates(x, intermediates_only=True, output_fmt="NCHW")

    return made.eval(), runner


def transformers_model(
    short: str, trunk: Backbone, folder: Path, *, changed: dict[str, Tensor] | None = None
) -> tuple[nn.Module, Callable[[nn.Module], Run]]:
    """The model of transformers with the trunk's weights, read from a checkpoint in the names of 4.57 by transformers.

    ``changed`` are weights of the checkpoint to take instead, by name; each must be there.
    """
    model = fresh(short, trunk)
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    held = load_file(file)
    known = checkpoint(short, trunk)
    assert set(known) <= set(held), sorted(set(known) - set(held))[:4]
    untouched = {n for n in held if n not in known}
    assert all(n.startswith(("layernorm", "pooler")) or n.endswith(("mask_token", "_index")) for n in untouched), (
        untouched
    )
    assert set(changed or {}) <= set(known)
    save_file({**held, **known, **(changed or {})}, file, metadata={"format": "pt"})
    return type(model).from_pretrained(folder).eval(), runner_of(short)


def fresh(short: str, trunk: Backbone) -> nn.Module:
    """The tiny model of transformers, its weights as they come."""
    options = trunk.options
    if short == "mit":
        config = transformers.SegformerConfig(
            hidden_sizes=list(options["embed_dims"]),
            depths=list(options["depths"]),
            num_attention_heads=list(options["num_heads"]),
        )
        return transformers.SegformerModel(config)
    if short == "swin":
        config = transformers.SwinConfig(
            embed_dim=options["embed_dim"],
            depths=options["depths"],
            num_heads=options["num_heads"],
            image_size=options["img_size"],
            window_size=options["window_size"],
            layer_norm_eps=1e-5,
        )
        return transformers.SwinModel(config)
    wide = {
        "hidden_size": options["embed_dim"],
        "num_hidden_layers": options["depth"],
        "num_attention_heads": options["num_heads"],
        "image_size": options["img_size"],
        "layer_norm_eps": 1e-6,
    }
    if short == "vit":
        return transformers.ViTModel(transformers.ViTConfig(patch_size=16, intermediate_size=192, **wide))
    return transformers.Dinov2Model(
        transformers.Dinov2Config(patch_size=14, use_swiglu_ffn=short == "dinov2_gated", **wide)
    )


def checkpoint(short: str, trunk: Backbone) -> dict[str, Tensor]:
    """The trunk's weights by the names of a checkpoint of transformers 4.57."""
    own = {n: t.detach().clone() for n, t in trunk.frozen_tensors().items()}
    if short == "mit":
        return dialects.write(own, "transformers4", prefix="")
    theirs = {trunk.source_names[n]: t for n, t in own.items()}
    return swin_checkpoint(theirs) if short == "swin" else plain_checkpoint(short, theirs)


def plain_checkpoint(short: str, timm_names: dict[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    norms = ("layernorm_before", "layernorm_after") if short == "vit" else ("norm1", "norm2")
    mlp = {
        "vit": ("intermediate.dense", "output.dense"),
        "dinov2": ("mlp.fc1", "mlp.fc2"),
        "dinov2_gated": ("mlp.weights_in", "mlp.weights_out"),
    }[short]
    for name, tensor in timm_names.items():
        parts = name.split(".")
        at, leaf = f"encoder.layer.{parts[1]}" if parts[0] == "blocks" else "", parts[-1]
        rest = ".".join(parts[2:-1])
        if name == "pos_embed":
            out["embeddings.position_embeddings"] = tensor
        elif name == "cls_token":
            out["embeddings.cls_token"] = tensor
        elif parts[0] == "patch_embed":
            out[f"embeddings.patch_embeddings.projection.{leaf}"] = tensor
        elif rest == "attn.qkv":
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                out[f"{at}.attention.attention.{part}.{leaf}"] = rows.contiguous()
        elif rest.startswith("ls"):
            out[f"{at}.layer_scale{rest[-1]}.lambda1"] = tensor
        else:
            theirs = {
                "norm1": norms[0],
                "norm2": norms[1],
                "attn.proj": "attention.output.dense",
                "mlp.fc1": mlp[0],
                "mlp.fc2": mlp[1],
            }[rest]
            out[f"{at}.{theirs}.{leaf}"] = tensor
    return out


def swin_checkpoint(timm_names: dict[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name, tensor in timm_names.items():
        parts = name.split(".")
        leaf = parts[-1]
        if parts[0] == "patch_embed":
            out[f"embeddings.{'norm' if parts[1] == 'norm' else 'patch_embeddings.projection'}.{leaf}"] = tensor
            continue
        stage = int(parts[1])
        if parts[2] == "downsample":  # timm merges where a stage begins, transformers where it ends
            out[f"encoder.layers.{stage - 1}.downsample.{parts[3]}.{leaf}"] = tensor
            continue
        at, rest = f"encoder.layers.{stage}.blocks.{parts[3]}", ".".join(parts[4:-1])
        if rest == "attn.qkv":
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                out[f"{at}.attention.self.{part}.{leaf}"] = rows.contiguous()
        elif leaf == "relative_position_bias_table":
            out[f"{at}.attention.self.{leaf}"] = tensor
        else:
            theirs = {
                "norm1": "layernorm_before",
                "norm2": "layernorm_after",
                "attn.proj": "attention.output.dense",
                "mlp.fc1": "intermediate.dense",
                "mlp.fc2": "output.dense",
            }[rest]
            out[f"{at}.{theirs}.{leaf}"] = tensor
    return out


def runner_of(short: str) -> Callable[[nn.Module], Run]:
    """How a model of transformers, wrapped by PEFT or not, gives the maps that our trunk gives."""
    if short == "mit":
        return lambda model: lambda x: list(model(x, output_hidden_states=True).hidden_states)
    if short == "swin":
        return _swin_runner

    def plain(model: nn.Module) -> Run:
        def run(x: Tensor) -> list[Tensor]:
            side = 16 if short == "vit" else 14
            grid = (x.shape[-2] // side, x.shape[-1] // side)
            hidden = model(x, output_hidden_states=True).hidden_states[1:]
            return [h[:, 1:].transpose(1, 2).unflatten(2, grid) for h in hidden]

        return run

    return plain


def _swin_runner(model: nn.Module) -> Run:
    def run(x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []

        def keep(module: nn.Module, args: object, out: object) -> None:
            tokens = out[0] if isinstance(out, tuple) else out
            side = int(tokens.shape[1] ** 0.5)
            maps.append(tokens.transpose(1, 2).unflatten(2, (side, side)))

        stages = next(module for name, module in model.named_modules() if name.endswith("encoder.layers"))
        handles = [stage.blocks[-1].register_forward_hook(keep) for stage in stages]
        try:
            model(x)
        finally:
            for handle in handles:
                handle.remove()
        return maps

    return run
