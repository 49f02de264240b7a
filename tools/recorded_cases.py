"""The models whose outputs ``tools/record_outputs.py`` records: every method on every family, and mixtures of them.

Only what users of the package call is used here, so that trees before and after a move build the same models. A new
method, head or family is found by its room.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import garnish as gn
from garnish import errors

try:
    from garnish import registry
except ImportError:  # in trees older than the rooms
    from garnish import lookup as registry  # type: ignore[attr-defined,no-redef]

#: family → name and options of a tiny trunk; newer families name theirs themselves
TRUNKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}),
    "dinov2": (
        "vit_small_patch14_dinov2",
        {"img_size": 56, "embed_dim": 48, "depth": 4, "num_heads": 3, "init_values": 1.0},
    ),
    "eva": (
        "vit_small_patch16_dinov3",
        {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3, "init_values": 1.0},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4]},
    ),
    "swinv2": (
        "swinv2_tiny_window8_256",
        {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4]},
    ),
    "convnext": ("convnextv2_tiny", {"dims": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}),
    "cnn": ("test_efficientnet", {}),
    "mit": ("mit_b0", {"embed_dims": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]}),
}

TRUNKS |= {
    label: (name, dict(options))
    for cls in registry.classes("backbones").values()
    if not {name for name, _ in TRUNKS.values()} & set(cls.names())
    for label, (name, options) in getattr(cls, "small", {}).items()
}

#: families on which options beside the defaults, mixtures and training are recorded too: each runs in another way
MAIN = ("vit", "swin", "convnext", "cnn", "mit")

Named = tuple[str, dict[str, Any]]

#: label → methods of one list, with options that take other ways than the defaults
VARIANTS: dict[str, list[Named]] = {
    "LoRA-dora": [("LoRA", {"rank": 3, "dora": True})],
    "LoRA-rs-dropout": [("LoRA", {"rank": 3, "rs": True, "dropout": 0.2})],
    "LoRA-layers": [("LoRA", {"rank": 2, "layers": ("attn.qkv", "fc2")})],
    "AdaptFormer-learnable": [("AdaptFormer", {"scale": "learnable", "bottleneck": 16, "dropout": 0.0})],
    "BitFit-tables": [("BitFit", {"tables": True})],
    "NormTuning-mlp": [("NormTuning", {"places": ("mlp",)})],
    "Partial-3": [("Partial", {"blocks": 3})],
    "Extras-norms": [("Extras", {"reductions": False})],
    "Convpass-xavier": [("Convpass", {"init": "xavier", "bottleneck": 5, "scale": 0.1})],
    "MTLoRA-plus": [("MTLoRA", {"plus": True})],
    "MTLoRA-add_shared": [("MTLoRA", {"add_shared": True, "extras": False})],
    "MTLoRA-folded": [("MTLoRA", {"folded": True})],
    "VPT-shallow": [("VPT", {"deep": False, "prompts": 5, "dropout": 0.1})],
    "SideTuning-narrow": [("SideTuning", {"reduction": 16.0})],
    "VMTAdapter-dropout": [("VMTAdapter", {"dropout": 0.2})],
    "LoRA+AdaptFormer": [("LoRA", {"rank": 2}), ("AdaptFormer", {"bottleneck": 16})],
    "Pfeiffer+NormTuning": [("Pfeiffer", {"reduction": 2}), ("NormTuning", {})],
    "LoRA+VPT": [("LoRA", {"rank": 2}), ("VPT", {"prompts": 3})],
    "LoRA+VMTAdapter": [("LoRA", {"rank": 2}), ("VMTAdapter", {})],
    "MTLoRA+VMTAdapter": [("MTLoRA", {}), ("VMTAdapter", {})],
    "Polyhistor+Polyhistor": [("PolyhistorLite", {}), ("PolyhistorLite", {"rank": 2})],
}

#: what a head cannot be built without, or that is too large here
HEADS: dict[str, dict[str, Any]] = {
    "SegFormerHead": {"channels": 16},
    "HRNetHead": {"widths": (4, 6, 8, 10)},
    "DPTHead": {"channels": 12, "widths": (4, 6, 8, 10)},
    "UPerHead": {"channels": 12},
    "DeMT": {"channels": 16},
    "SharedBaseHead": {"channels": 16},
}

#: owners of one model: methods, names of their tasks; those that a family refuses are left out
OWNERS: list[tuple[Named, tuple[str, ...]]] = [
    (("LoRA", {"rank": 2, "dropout": 0.1}), ("a", "b")),
    (("BitFit", {}), ("c",)),
    (("VPT", {"prompts": 4}), ("d",)),
    (("SideTuning", {}), ("e",)),
    (("MTLoRA", {"rank": 3}), ("f", "g")),
    (("AdaptFormer", {"bottleneck": 8, "per_task": True}), ("h", "i")),
    (("VMTAdapter", {}), ("j", "k")),
    (("PolyhistorLite", {}), ("l", "m")),
    (("SideTuning", {"reduction": 4.0}), ("n",)),
    (("Frozen", {}), ("o",)),
]


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        build: makes it, or raises what the package says to it.
        checkpointing: whether training computes the blocks again in the backward pass.
        merges: whether it is merged too.
    """

    build: Callable[[], gn.Model]
    checkpointing: bool = False
    merges: bool = False


def trunk(family: str, **options: Any) -> Any:
    """A tiny trunk, every parameter of it drawn by its name; ``options`` as for :func:`garnish.backbone`."""
    name, architecture = TRUNKS[family]
    made = gn.backbone(name, options=architecture, **options)
    with torch.no_grad():
        for at, tensor in made.frozen_tensors().items():
            if not isinstance(tensor, torch.nn.Parameter):
                continue
            noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(at.encode())))
            if tensor.ndim > 1:
                tensor.copy_(noise * (2**0.5 if tensor.ndim == 4 else 1.0) / tensor[0].numel() ** 0.5)
            else:
                tensor.copy_(0.2 * noise + (0.0 if at.endswith("bias") else 1.0))
    return made


def methods(named: Sequence[Named], *, per_task: bool = False) -> list[Any]:
    """The methods of those names and options."""
    return [registry.build("adapters", name, {"per_task": per_task, **options}) for name, options in named]


def tasks(names: Sequence[str]) -> dict[str, Any]:
    """Tasks of four kinds in turn."""
    kinds = (gn.Semantic(classes=5), gn.Depth(max_metres=10.0), gn.Normals(), gn.Saliency())
    return {name: kinds[(ord(name) - ord("a")) % len(kinds)] for name in names}


def adapted(
    family: str, named: Sequence[Named], *, per_task: bool = False, head: Any = None, names: str = "ab", **options: Any
) -> gn.Model:
    """A model of two tasks, or of others; ``options`` as for :func:`garnish.backbone`."""
    made = trunk(family, **options)
    torch.manual_seed(0)  # some methods draw from the global generator
    return gn.adapt(made, methods(named, per_task=per_task), tasks(tuple(names)), head)


def cases() -> dict[str, Case]:
    """Name, ``family/what/how``, → case."""
    found: dict[str, Case] = {}
    for family in TRUNKS:
        plain = {name: [(name, {})] for name in registry.classes("adapters")}
        for label, named in (plain | (VARIANTS if family in MAIN else {})).items():
            for how in ("shared", "per_task"):
                found[f"{family}/{label}/{how}"] = Case(
                    lambda family=family, named=named, how=how: adapted(family, named, per_task=how == "per_task"),
                    merges=how == "shared" and family in MAIN,
                )
        found |= {f"{family}/{label}": case for label, case in _mixtures(family).items()}
        if family in MAIN:
            found |= {f"{family}/{label}": case for label, case in _other_ways(family).items()}
    return found


def _mixtures(family: str) -> dict[str, Case]:
    """Owners of many kinds in one model, and owners that begin late in the trunk."""
    return {
        "mixed/all": Case(lambda: mixed(family)),
        "mixed/frozen": Case(lambda: mixed(family, freeze_others=True)),
        "mixed/backwards": Case(lambda: mixed(family, backwards=True)),
        "mixed/checkpointing": Case(lambda: mixed(family), checkpointing=True),
        "mixed/late": Case(lambda: late(family, 0.4)),
        "mixed/second_block": Case(lambda: late(family, None)),
        "mixed/bundles": Case(lambda: joined(family)),
    }


def _other_ways(family: str) -> dict[str, Case]:
    """Other heads, places of the maps, checkpointing, drop-path, and a few steps of ``fit``."""
    found: dict[str, Case] = {}
    ways: dict[str, list[Named]] = {
        "LoRA": [("LoRA", {"rank": 2, "dropout": 0.1})],
        "MTLoRA": [("MTLoRA", {"rank": 3})],
        "VMTAdapter": [("VMTAdapter", {})],
        "FullFineTuning": [("FullFineTuning", {})],
    }
    for label, named in ways.items():

        def made(named: list[Named] = named, per_task: bool = False, **options: Any) -> gn.Model:
            return adapted(family, named, per_task=per_task, names="abc", **options)

        found[f"{label}/checkpointing"] = Case(made, checkpointing=True)
        found[f"{label}/checkpointing_per_task"] = Case(lambda made=made: made(per_task=True), checkpointing=True)
        found[f"{label}/drop_path"] = Case(lambda made=made: made(drop_path=0.3))
        found[f"{label}/drop_path_per_task"] = Case(lambda made=made: made(drop_path=0.3, per_task=True))
        found[f"{label}/merged_maps"] = Case(lambda made=made: made(taps="merged"), merges=True)
        for head in (name for name, cls in registry.classes("heads").items() if getattr(cls, "decodes", True)):
            found[f"{label}/{head}"] = Case(
                lambda made=made, head=head: made(head=registry.build("heads", head, HEADS.get(head, {})))
            )
        found[f"{label}/fit"] = Case(lambda named=named: fitted(family, named))
    found["Partial/fit_from_kept_features"] = Case(lambda: fitted(family, [("Partial", {})], kept=True))
    found["SideTuning/fit_from_kept_features"] = Case(lambda: fitted(family, [("SideTuning", {})], kept=True))
    return found


def mixed(family: str, *, freeze_others: bool = False, backwards: bool = False) -> gn.Model:
    """One model of all owners that the family takes; ``freeze_others`` keeps the first ones as they are."""
    model = gn.Model(trunk(family))
    torch.manual_seed(0)
    for number, (named, names) in enumerate(OWNERS[::-1] if backwards else OWNERS):
        try:
            gn.adapt(trunk(family), methods([named]), tasks(names))
        except errors.SiteError:
            continue
        torch.manual_seed(number)
        model.add(methods([named]), tasks(names), freeze_others=freeze_others and number == 3)
    return model


def late(family: str, share: float | None) -> gn.Model:
    """Owners that begin behind that share of adapted layers (None: behind the first block), and one at the start."""
    everywhere = [("LoRA", {"rank": 1})]
    own = (name.split(".") for name in adapted(family, everywhere).own_tensors())
    # adapters.TASKS.stages.S.blocks.B.….LEVEL.LEAF, where there are blocks (an opaque stage may be one)
    sites = {".".join(parts[2:-2]) for parts in own if parts[0] == "adapters"}
    inside = sorted(sites, key=lambda site: [int(part) if part.isdigit() else 0 for part in site.split(".")] + [site])
    blocks = [site.split(".")[:4] for site in inside]
    begin = int(share * len(inside)) if share is not None else sum(block == blocks[0] for block in blocks)
    behind = [("LoRA", {"rank": 1, "layers": tuple(inside[begin:])})]
    model = adapted(family, everywhere, names="a")
    for number, names in enumerate(("bc", "d", "e")):
        torch.manual_seed(number)
        model.add(methods(behind), tasks(names))
    model.add(methods([("SideTuning", {})]), tasks("f"))
    return model


def joined(family: str) -> gn.Model:
    """Three bundles, written and loaded into one model."""
    with tempfile.TemporaryDirectory() as place:
        bundles = []
        for names, method in (("ab", "LoRA"), ("c", "SSF"), ("de", "LoRA")):
            model = adapted(family, [(method, {})], names=names)
            bundles.append(str(model.save(f"{place}/{names}", dtype="float32")))
        return gn.load(bundles, backbone=trunk(family))


def fitted(family: str, named: Sequence[Named], *, kept: bool = False) -> gn.Model:
    """A model after three steps of ``gn.fit``, in float32 and without pictures to choose the best step by."""
    made = trunk(family)
    scenes = gn.Scenes(4, size=64, seed=1, tasks=("seg", "depth"))
    torch.manual_seed(0)
    model = gn.adapt(made, methods(named), scenes.tasks)
    with tempfile.TemporaryDirectory() as cache:
        options: Mapping[str, Any] = {"variants": 1, "cache": cache} if kept else {}
        gn.fit(model, scenes, steps=3, batch_size=2, accumulate=1 if kept else 2, progress=False, **options)
    return model
