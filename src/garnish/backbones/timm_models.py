"""Base of the families built from timm's modules: creating a timm model, loading its weights, naming its tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import timm
from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.backbones.name_prefixes import without_prefix
from garnish.backbones.weights import check_floats, read_weights
from garnish.errors import OptionError, WeightsError, one_line, showable

#: Parts of timm's models that a dense trunk does not use; checkpoints may hold them or not.
_UNUSED = ("head.", "head_dist.", "fc_norm.", "norm.", "mask_token", "attn_pool.")

#: A model of timm's or a part of one: what its modules hold has no types.
TimmModule = Any
StateFilter = Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]


def create_timm(
    name: str,
    weights: str | bool | None,
    options: Mapping[str, object],
    fixed: Mapping[str, object],
    dialects: StateFilter,
    known: Callable[[str], str] = str,
) -> tuple[TimmModule, str, str]:
    """Build timm's ``name`` without a classifier and load weights.

    Args:
        name: timm's model name, a pretrained tag allowed after a dot.
        weights: None: random; True: timm's published ones; else a file or Hub id.
        options: architecture overrides for timm's constructor.
        fixed: overrides that the family needs; ``options`` may not contain them.
        dialects: the family's conversion of published checkpoints to timm's names.
        known: tensor name in the model built here → its name in a checkpoint, if they differ.

    Returns:
        The timm model, the licence of its weights, and their source.
    """
    clash = sorted(set(options) & set(fixed))
    if clash:
        raise OptionError(f"{name}: option {clash[0]!r} is set by garnish and cannot be changed")
    try:
        model = timm.create_model(name, pretrained=weights is True, num_classes=0, **{**fixed, **options})
    except TypeError as error:
        raise OptionError(f"{name}: timm refuses the options {dict(options)}: {one_line(error)}") from None
    except (OSError, RuntimeError, ValueError, AssertionError) as error:  # timm asserts that widths divide
        if weights is not True:
            raise OptionError(f"{name}: timm cannot build it with {dict(options)}: {one_line(error)}") from None
        raise WeightsError(
            f"{name}: its published weights cannot be fetched ({one_line(error, 120)}); give weights: FILE.safetensors"
        ) from None
    if weights is True:
        licence = model.pretrained_cfg.get("license") or "not stated (see the model's page on the Hub)"
        return model, licence, str(model.pretrained_cfg.get("hf_hub_id") or name)
    if not weights:
        return model, "none (random weights)", "random"
    state, stated = read_weights(str(weights))
    where = f"{name}: weights {weights}"
    state, said = without_prefix(state, [known(n) for n, _ in model.named_parameters()], where)
    if said is not None:
        warnings.warn(showable(said), stacklevel=2)
    first = next(iter(state), "nothing")
    try:
        state = dialects(state, model)
    except (KeyError, IndexError, RuntimeError) as error:  # the conversion misses tensors that it expects
        raise WeightsError(
            f"{where} hold {first} and others, which cannot be converted "
            f"({one_line(error, 80)}); is it the right architecture?"
        ) from None
    _load(model, state, where, first)
    return model, stated or "not stated", str(weights)


def _load(model: nn.Module, state: Mapping[str, Tensor], where: str, first: str) -> None:
    wanted = model.state_dict()
    missing = [k for k in wanted if k not in state and not k.startswith(_UNUSED)]
    unexpected = [k for k in state if k not in wanted and not k.startswith(_UNUSED)]
    if missing or unexpected:
        kind, names = ("lack", missing) if missing else ("hold the unknown", unexpected)
        raise WeightsError(
            f"{where} {kind} {names[0]} ({len(names)} such tensors; the file begins with {first}); "
            "is it the right architecture, and are its tensors named as timm's?"
        )
    for key, tensor in state.items():
        if key in wanted and wanted[key].shape != tensor.shape and not key.startswith(_UNUSED):
            raise WeightsError(
                f"{where}: {key} has shape {tuple(tensor.shape)}, the architecture {tuple(wanted[key].shape)}; "
                "choose the matching architecture"
            )
        if key in wanted and not key.startswith(_UNUSED):
            check_floats(key, tensor, wanted[key], where)
    model.load_state_dict({k: v for k, v in state.items() if k in wanted and not k.startswith(_UNUSED)}, strict=False)


class TimmTrunk(Backbone):
    """A family whose trunks are built from timm's modules."""

    #: Name of the timm module whose models it builds.
    timm_module: ClassVar[str]

    @classmethod
    def names(cls) -> list[str]:
        """Names known to timm (``timm.list_models(module=…)``)."""
        return list(timm.list_models(module=cls.timm_module))

    @classmethod
    def assemble(cls, model: TimmModule, **facts: Any) -> Self:
        """A trunk from parts of ``model``, keeping its tensor names as sources; ``facts``: for the constructor."""
        backbone = cls(mean=model.pretrained_cfg["mean"], std=model.pretrained_cfg["std"], **facts)
        theirs = {id(p): n for n, p in [*model.named_parameters(), *model.named_buffers()]}
        for name, module, leaf in backbone.named_slots():
            tensor = module._parameters.get(leaf)
            backbone.source_names[name] = theirs[id(tensor if tensor is not None else module._buffers[leaf])]
        return backbone
