"""Export to a PEFT folder: ``adapter_config.json``, ``adapter_model.safetensors``, ``README.md``."""

from __future__ import annotations

import math
import os
from pathlib import Path

from safetensors.torch import save as to_bytes
from torch import Tensor

from garnish.adapters.layers.low_rank import LoRAAdapter
from garnish.adapters.lora import LoRA
from garnish.bundles.bundle import load
from garnish.bundles.peft.adapter_config import CONFIG, config_text
from garnish.bundles.peft.decoder_names import decode_head_tensors
from garnish.bundles.peft.layer_names import module_names, names_of_held, table_of
from garnish.bundles.peft.low_rank_updates import LowRank, add, over_all_channels, plain_scale, shares_of
from garnish.bundles.peft.own_files import README, TASK, base_model_of, readme, sidecar_files
from garnish.checking.arguments import checked
from garnish.checking.finite import not_finite
from garnish.engine.owner import Owner
from garnish.engine.trunk import Trunk
from garnish.errors import BundleError, OptionError, shown, suggest
from garnish.files.atomic import present, write_folder, writing
from garnish.files.path_text import given_path
from garnish.heads.segformer_names import DECODE_HEAD
from garnish.model.model import Model

TENSORS = "adapter_model.safetensors"
#: PEFT's prefix of module names.
WRAPPED = "base_model.model."


@checked
def export_peft(
    model: Model | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    dialect: str | None = None,
    task: str | None = None,
    prefix: str = "",
    decode_head: str | None = None,
    base_model: str | None = None,
) -> Path:
    """Write LoRA, rsLoRA or DoRA adapters as PEFT stores them, so that PEFT can load them onto another library's model.

    A layer that the dialect splits (query, key and value) gets an adapter per part, with equal A and the rows of B; of
    a part whose rows are zero, none is written. Two LoRAs at one layer become one. Heads go to separate files, which
    PEFT ignores.

    Args:
        model: a model, or a bundle's folder.
        folder: a new or empty folder, or one that was written by this function.
        dialect: the module names to use: ``timm``, ``transformers4`` (4.57, up to 5.8) or ``transformers5``. None:
            those of the model in memory that the trunk was made of, with its ``prefix``; ``timm`` if it was of a name.
        task: any task of the owner whose adapters are written; required if a model has several owners.
        prefix: name of the trunk in the model that PEFT will wrap: "" for ``ViTModel``, ``vit`` for
            ``ViTForImageClassification``, ``backbone`` for a detector.
        decode_head: a task whose ``SegFormerHead`` is written as that of ``SegformerForSemanticSegmentation``
            (``modules_to_save``); ``prefix`` is then ``segformer``.
        base_model: Hub id of the backbone; None: as known from its weights.

    Returns:
        The folder.

    Raises:
        OptionError: an unknown dialect or task. BundleError: adapters that PEFT's format cannot express or that are
        not finite, pictures of other bands than RGB, a folder with other contents, or no space.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"depth": gn.Depth()})
        >>> folder = gn.export_peft(model, "adapter", dialect="transformers5")
        >>> (folder / "adapter_config.json").is_file()
        True
    """
    if not isinstance(model, Model):
        model = load(model)
    owner = _owner(model, task)
    tasks = owner.tasks
    if not owner.bands.is_rgb:
        raise BundleError(
            f"export_peft: the pictures of {owner.name} have bands of their own, for which PEFT's format has no place;"
            " keep the bundle, or gn.export it"
        )
    model.decoders.check_whole(tasks, f"export_peft: the adapters of {owner.name} alone")
    written = owner.tensors() | {n: t for task in tasks for n, t in model.head_tensors(task).items()}
    if odd := not_finite(written):
        raise BundleError(f"{odd}; nothing was written: train the model again")
    prefix = prefix.strip(".")
    if dialect is None:
        held = names_of_held(model.backbone)
        dialect, prefix = ("timm", prefix) if held is None else (held[0], prefix or held[1])
    saved: dict[str, Tensor] = {}
    if decode_head is not None:
        prefix = prefix or "segformer"
        saved = _decode_head(model, decode_head, dialect, tasks, prefix)
    path = given_path(folder, "export_peft", BundleError)
    _check_place(path)
    methods = _methods(owner)
    modules = _modules(model.backbone, owner, dialect, f"{prefix}." if prefix else "")
    rs = all(update.rs for update in modules.values())
    if not rs:
        modules = {name: plain_scale(update) for name, update in modules.items()}
    dropouts = {method.dropout for method in methods}
    base_model = base_model or base_model_of(model, dialect)
    text = config_text(
        {name: (update.rank, update.alpha) for name, update in modules.items()},
        rs=rs,
        dora=methods[0].dora,
        dropout=dropouts.pop() if len(dropouts) == 1 else 0.0,
        modules_to_save=[DECODE_HEAD] if saved else [],
        base_model=base_model,
    )
    files = {
        TENSORS: to_bytes(_tensors(modules) | saved, metadata={"format": "pt"}),
        CONFIG: text.encode(),
        README: readme(model, tasks, dialect, base_model),
        **sidecar_files(model, tasks, dialect, prefix, decode_head),
    }
    with writing(f"{folder}:", " or choose another folder; an earlier one there is untouched"):
        write_folder(path, files)
    return Path(folder)


def _owner(model: Model, task: str | None) -> Owner:
    if task is not None:
        for owner in model.owners:
            if task in owner.tasks:
                return owner
        raise OptionError(f"unknown task {shown(task)}{suggest(task, model.tasks)}")
    if len(model.owners) != 1:
        names = ", ".join(owner.name for owner in model.owners) or "none"
        raise BundleError(
            f"the adapters of {len(model.owners)} owners ({names}) do not go into one folder of PEFT's; "
            "name a task, and write one folder per owner"
        )
    return model.owners[0]


def _check_place(path: Path) -> None:
    folder = present(path)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / TASK).is_file() or not (folder / CONFIG).is_file():
        raise BundleError(
            f"{path}: exists and was not written by garnish peft export, so it is not replaced; choose another folder"
        )


def _methods(owner: Owner) -> list[LoRA]:
    for method in owner.methods:
        if not isinstance(method, LoRA):
            raise BundleError(
                f"{owner.name}: {type(method).__name__} is not a LoRA, and PEFT's format cannot express it; "
                "keep the bundle, or merge it into a plain checkpoint"
            )
    found = [method for method in owner.methods if isinstance(method, LoRA)]
    if len({method.dora for method in found}) > 1:
        raise BundleError(
            f"{owner.name}: LoRA beside DoRA; use_dora covers every layer of a folder of PEFT's, so the two cannot mix"
        )
    return found


def _modules(trunk: Trunk, owner: Owner, dialect: str, prefix: str) -> dict[str, LowRank]:
    """Full module name → its low-rank update, in forward order."""
    names = module_names(trunk, dialect)
    terms: dict[str, list[LowRank]] = {}
    for place, adapter in owner.placed():
        site = place.site.name
        assert isinstance(adapter, LoRAAdapter)
        terms.setdefault(site, []).append(_update(owner, adapter))
        _check_convolution(site, adapter, alone=len(terms[site]) == 1)
    if not terms:
        raise BundleError(f"{owner.name}: has no adapters; there is nothing to write")
    modules: dict[str, LowRank] = {}
    for site, updates in terms.items():
        if site not in names:
            raise BundleError(f"{site}: the dialect {dialect!r} has no such layer; write another, or adapt others")
        for name, part in zip(names[site], shares_of(add(updates), len(names[site])), strict=True):
            if part is not None:
                modules[prefix + name] = part
    return modules


def _check_convolution(site: str, adapter: LoRAAdapter, *, alone: bool) -> None:
    """Raise for convolutions that PEFT computes differently: it ignores dilation, and with DoRA also groups."""
    if adapter.conv is None:
        return
    if set(adapter.conv.dilation) != {1}:
        raise BundleError(f"{site}: PEFT does not dilate the update of a dilated convolution; leave the layer out")
    if adapter.groups > 1 and (adapter.magnitude is not None or not alone):
        what = "DoRA" if adapter.magnitude is not None else "more than one LoRA"
        raise BundleError(f"{site}: {what} at a convolution of {adapter.groups} groups does not fit PEFT's format")


def _update(owner: Owner, adapter: LoRAAdapter) -> LowRank:
    """The low-rank update of an adapter; α is taken from its method, which avoids rounding it twice."""
    rank = adapter.lora_a.shape[0]
    for method in owner.methods:
        assert isinstance(method, LoRA)
        scale = method.alpha / (math.sqrt(rank) if method.rs else rank)
        if method.rank == rank and scale == adapter.scale:
            magnitude = adapter.magnitude
            return LowRank(
                a=over_all_channels(adapter.lora_a.detach(), adapter.groups),
                b=adapter.lora_b.detach(),
                alpha=method.alpha,
                rs=method.rs,
                magnitude=None if magnitude is None else magnitude.detach(),
                shares=adapter.shares,
            )
    raise AssertionError("an adapter must be of one of its owner's methods")


def _tensors(modules: dict[str, LowRank]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, update in modules.items():
        b = update.b
        if update.a.ndim == 4:
            b = b[:, :, None, None]
        found[f"{WRAPPED}{name}.lora_A.weight"] = update.a
        found[f"{WRAPPED}{name}.lora_B.weight"] = b
        if update.magnitude is not None:
            m = update.magnitude
            found[f"{WRAPPED}{name}.lora_magnitude_vector"] = m.view(1, -1, 1, 1) if update.a.ndim == 4 else m
    # safetensors refuses tensors that share memory, and the parts of a split layer share A
    return {name: tensor.cpu().clone().contiguous() for name, tensor in found.items()}


def _decode_head(model: Model, task: str, dialect: str, tasks: tuple[str, ...], prefix: str) -> dict[str, Tensor]:
    if task not in tasks:
        raise OptionError(f"decode_head: the adapters are not those of task {shown(task)}{suggest(task, tasks)}")
    table = table_of(model.backbone)
    if table is None or table.trunk != "segformer" or dialect == "timm":
        raise OptionError(
            f"decode_head: {model.backbone.name} in the dialect {dialect!r} has no SegFormer of transformers; "
            "leave it out (heads are written beside PEFT's files)"
        )
    if prefix != table.trunk:
        raise OptionError(
            f"decode_head: in the model that has a decode_head, SegformerForSemanticSegmentation, the trunk is called "
            f"{table.trunk!r}, not prefix={shown(prefix)}; leave prefix out"
        )
    found: dict[str, Tensor] = decode_head_tensors(model.head(task), dialect, f"decode_head: {task}")
    return {WRAPPED + name: tensor.detach().cpu().clone().contiguous() for name, tensor in found.items()}
