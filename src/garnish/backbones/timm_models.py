"""Base of the families built from timm's modules: creating a timm model, loading its weights, naming its tensors."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import timm
import torch
from torch import Tensor, nn

from garnish.backbones.architecture import OWN, UNBUILDABLE, given
from garnish.backbones.backbone import Backbone
from garnish.backbones.given_weights import Weights, source_of
from garnish.backbones.name_prefixes import without_prefix
from garnish.backbones.weights import check_floats, open_weights
from garnish.checking.plain_data import Json
from garnish.errors import OptionError, WeightsError, one_line, showable, shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: Parts of timm's models that a dense trunk does not use; checkpoints may hold them or not.
_UNUSED = ("head.", "head_dist.", "fc_norm.", "norm.", "mask_token", "attn_pool.")

#: Options of families that say how pictures are normalised, which timm keeps beside a model.
COLOURS = ("mean", "std")
#: Options that the whole model does not take.
_NOT_WHOLE = ("out_indices", *COLOURS)

#: A model of timm's or a part of one: what its modules hold has no types.
TimmModule = Any
StateFilter = Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]


def create_timm(
    name: str,
    weights: Weights,
    arch: DataclassInstance,
    fixed: Mapping[str, object],
    dialects: StateFilter,
    known: Callable[[str], str] = str,
) -> tuple[TimmModule, str, str]:
    """Build timm's ``name`` without a classifier and load weights.

    Args:
        name: timm's model name, a pretrained tag allowed after a dot.
        weights: None: random; True: timm's published ones; else a file, a Hub id, or the tensors of a model.
        arch: the options, as :func:`garnish.backbones.architecture.read_architecture` gives them: timm's constructors
            take paths and addresses as well, which no recipe or bundle is to name.
        fixed: arguments that the family needs.
        dialects: the family's conversion of published checkpoints to timm's names.
        known: tensor name in the model built here → its name in a checkpoint, if they differ.

    Returns:
        The timm model, the licence of its weights, and their source.

    Raises:
        OptionError: options that do not go together. WeightsError: weights that cannot be read or do not fit; names and
            shapes are compared before the model is built or a value is read.
    """
    told = given(arch)
    colours = {key: told[key] for key in COLOURS if key in told}
    overlay = {"pretrained_cfg_overlay": colours} if colours else {}
    shaped = {key: value for key, value in told.items() if key not in COLOURS}
    build = partial(_build, name, {**shaped, **fixed, **overlay}, told)
    if weights is True:
        model = _published(name, build)
        licence = model.pretrained_cfg.get("license") or "not stated (see the model's page on the Hub)"
        return model, licence, str(model.pretrained_cfg.get("hf_hub_id") or name)
    if weights is None or weights is False:
        return build(), "none (random weights)", "random"
    held, where = open_weights(weights), f"{name}: weights {weights}"
    with contextlib.suppress(NotImplementedError):  # a part or a conversion that needs values: it is done below
        with torch.device("meta"):
            shapes = build()
        _state(shapes, held.shapes, dialects, known, where, warn=True)
    model = build()
    model.load_state_dict(_state(model, held.read(), dialects, known, where), strict=False)
    return model, held.licence or "not stated", source_of(weights)


def whole_timm(name: str, options: Mapping[str, object]) -> nn.Module:
    """Timm's whole model with its classifier on the device "meta", by the options of a trunk that was built."""
    left = {*_NOT_WHOLE, *OWN}
    options = {key: value for key, value in options.items() if key not in left and value is not None}
    with torch.device("meta"):
        built: nn.Module = timm.create_model(name, **options)
    return built


def _build(
    name: str, arguments: Mapping[str, object], told: Mapping[str, object], *, pretrained: bool = False
) -> TimmModule:
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)
    except UNBUILDABLE as error:
        if pretrained or isinstance(error, NotImplementedError):  # an operator that cannot tell shapes
            raise
        why = one_line(error, 200) if str(error) else type(error).__name__
        raise OptionError(f"{name}: timm cannot build it with {shown(dict(told), 300)}: {why}") from None


def _published(name: str, build: Callable[..., TimmModule]) -> TimmModule:
    with torch.device("meta"), contextlib.suppress(NotImplementedError):
        build()  # what is raised from here on is not about the options
    try:
        return build(pretrained=True)
    except Exception as error:  # the network client, and so its exceptions, differ by version
        raise WeightsError(
            f"{name}: its published weights cannot be fetched ({one_line(error, 120)}); give weights: FILE.safetensors"
        ) from None


def _state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    dialects: StateFilter,
    known: Callable[[str], str],
    where: str,
    *,
    warn: bool = False,
) -> dict[str, Tensor]:
    """What a file holds by the model's names, checked against it; ``warn``: tell of a prefix that is removed.

    Raises:
        WeightsError: it does not fit.
    """
    names = [known(n) for n, _ in model.named_parameters()]
    found, said = without_prefix(_as_whole(state, names), names, where)
    if said is not None and warn:
        warnings.warn(showable(said), stacklevel=3)
    first = next(iter(found), "nothing")
    try:
        found = dialects(found, model)
    except NotImplementedError:
        raise
    except UNBUILDABLE as error:  # the conversion misses tensors that it expects
        raise WeightsError(
            f"{where} hold {one_line(first, 80)} and others, which cannot be converted "
            f"({one_line(error, 80)}); is it the right architecture?"
        ) from None
    wanted = model.state_dict()
    missing = [k for k in wanted if k not in found and not k.startswith(_UNUSED)]
    unexpected = [k for k in found if k not in wanted and not k.startswith(_UNUSED)]
    if missing or unexpected:
        kind, names = ("lack", missing) if missing else ("hold the unknown", unexpected)
        raise WeightsError(
            f"{where} {kind} {one_line(names[0], 80)} ({len(names)} such tensors; the file begins with "
            f"{one_line(first, 80)}); is it the right architecture, and are its tensors named as timm's?"
        )
    used = {k: v for k, v in found.items() if k in wanted and not k.startswith(_UNUSED)}
    for key, tensor in used.items():
        if wanted[key].shape != tensor.shape:
            raise WeightsError(
                f"{where}: {key} has shape {tuple(tensor.shape)}, the architecture {tuple(wanted[key].shape)}; "
                "choose the matching architecture"
            )
        check_floats(key, tensor, wanted[key], where)
    return used


def _as_whole(state: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """``stages_0.blocks…`` of timm's ``features_only`` as ``stages.0.blocks…``, where the whole model says so."""
    heads = {name.split(".", 1)[0] for name in names}
    paths = {name.replace(".", "_", 1).split(".", 1)[0]: ".".join(name.split(".", 2)[:2]) for name in names}
    split = [(name, *name.partition(".")) for name in state]
    return {paths[h] + dot + rest if h in paths and h not in heads else n: state[n] for n, h, dot, rest in split}


def noise_picture(height: int, width: int) -> Tensor:
    """(1, 3, height, width) of normal noise, always the same."""
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


class TimmTrunk(Backbone):
    """A family whose trunks are built from timm's modules."""

    #: Name of the timm module whose models it builds.
    timm_module: ClassVar[str]
    #: Whether its option ``out_indices`` chooses the levels that maps are read at; False: all stages are read.
    chooses_levels: ClassVar[bool] = False
    #: The fewest blocks that its maps can be read of.
    least_blocks: ClassVar[int] = 1

    @classmethod
    def names(cls) -> list[str]:
        """Names known to timm (``timm.list_models(module=…)``)."""
        return list(timm.list_models(module=cls.timm_module))

    @classmethod
    def options_of(cls, model: TimmModule) -> dict[str, Json]:
        """The options that show in a whole model of timm's; what does not is found by comparing maps."""
        return {}

    def maps_of(self, model: TimmModule) -> tuple[Tensor, Sequence[Tensor]]:
        """A small picture (1, 3, H, W) and a whole model's own maps of it, as the trunk would give them.

        Args:
            model: of the trunk's architecture, in evaluation mode; a copy, which may be changed.
        """
        images = noise_picture(2 * self.multiple, 3 * self.multiple)
        return images, model.forward_intermediates(images, norm=False, intermediates_only=True)

    @classmethod
    def assemble(cls, model: TimmModule, **facts: Any) -> Self:
        """A trunk from parts of ``model``, keeping its tensor names as sources; ``facts``: for the constructor."""
        backbone = cls(mean=model.pretrained_cfg["mean"], std=model.pretrained_cfg["std"], **facts)
        theirs = {id(p): n for n, p in [*model.named_parameters(), *model.named_buffers()]}
        for name, module, leaf in backbone.named_slots():
            tensor = module._parameters.get(leaf)
            backbone.source_names[name] = theirs[id(tensor if tensor is not None else module._buffers[leaf])]
        return backbone
