"""Models of transformers that somebody has built, as trunks are built from them; nothing here imports transformers."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.backbones.given_weights import GIVEN, GivenWeights
from garnish.backbones.held_model import HeldModel
from garnish.backbones.transformers.transformers_model import TransformersModel
from garnish.backbones.transformers_names import transformers_model
from garnish.checking.plain_data import Json
from garnish.errors import OptionError, one_line

#: where the base class of all models of transformers is
_BASE = "transformers.modeling_utils"
#: The most that maps may differ by, in parts of their largest value; what libraries round otherwise is a hundredth.
_MOST_APART = 1e-4


def read_transformers(model: nn.Module, options: Mapping[str, Json]) -> HeldModel | None:
    """What a trunk is built of that computes what ``model`` does; None: it is none of transformers'.

    Args:
        model: a bare model, a backbone, or one with a head, of an architecture in
            :mod:`garnish.backbones.transformers`.
        options: of the trunk, where they differ from the model's configuration.

    Raises:
        OptionError: an architecture that is not known, or a configuration that no trunk computes.
    """
    if not any(kind.__module__ == _BASE for kind in type(model).__mro__):
        return None
    kind = type(model).__name__
    config: dict[str, Json] = model.config.to_dict()  # type: ignore[union-attr, operator]
    cls = transformers_model(config, kind)
    name, own = cls.architecture(config, kind)
    tensors = {key: tensor.detach() for key, tensor in model.state_dict().items()}
    return HeldModel(
        name=name,
        options={**own, **options},
        weights=GivenWeights(tensors=tensors, source=GIVEN, licence=None),
        check=partial(_check, model, cls, config),
    )


def _check(model: nn.Module, cls: type[TransformersModel], config: Mapping[str, Json], built: Backbone) -> None:
    """Compare maps of a small odd picture; the model, of which a copy is run, stays as it is."""
    kind = type(model).__name__
    device = next(iter(built.frozen_tensors().values())).device
    unit = built.multiple
    height = unit * max(3, math.ceil(cls.side_of_check(config) / unit))
    images = torch.randn(1, 3, height, height + 2 * unit, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        try:
            theirs = _maps(cls.as_described(_copied(model, device), config), cls, images)
        except Exception as error:  # whatever a model of somebody else's raises
            told = one_line(f"{type(error).__name__}: {error}", 160)
            raise OptionError(
                f"{kind}: it cannot be run on a picture of {height} x {height + 2 * unit} pixels ({told}), so its maps "
                "cannot be compared with the trunk's; give its name and options, and a file of its weights"
            ) from None
        ours = [one for one in built(images) if isinstance(one, Tensor)]
    if len(ours) != len(theirs):
        raise OptionError(f"{kind}: {len(theirs)} of its modules give maps, the trunk {built.name} has {len(ours)}")
    for number, (own, other) in enumerate(zip(ours, theirs, strict=True), 1):
        far = _apart(own, other)
        if not far <= _MOST_APART:
            raise OptionError(
                f"{kind}: map {number} of the trunk {built.name} differs from the model's own by {far:.2g} of its "
                "largest value; something in the model is not as its configuration says (an activation, an epsilon, "
                "a hook); use a model as transformers builds it"
            )


def _copied(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy in float32 and evaluation mode; it shares the tensors that are so already, which take most memory."""
    tensors = [*model.parameters(), *model.buffers()]
    shared: dict[int, object] = {id(t): t for t in tensors if t.dtype == torch.float32 and t.device == device}
    return copy.deepcopy(model, shared).to(device).float().eval()


def _maps(model: nn.Module, cls: type[TransformersModel], images: Tensor) -> list[Tensor]:
    """Outputs of the modules that give maps: tokens (1, p + N, C) or maps (1, C, H, W)."""
    found: dict[str, Tensor] = {}
    names = cls.taps([name for name, _ in model.named_modules()])

    def keep(name: str, _: nn.Module, __: object, output: Tensor | Sequence[Tensor]) -> None:
        found[name] = output if isinstance(output, Tensor) else output[0]

    for name in names:
        model.get_submodule(name).register_forward_hook(partial(keep, name))
    resampled = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    model(images, **({"interpolate_pos_encoding": True} if resampled else {}))
    return [found[name] for name in names]


def _apart(own: Tensor, other: Tensor) -> float:
    """The largest difference of a trunk's map (1, C, H, W) from a model's, in parts of its largest value."""
    if other.ndim == 3:
        tokens = other[:, -own.shape[2] * own.shape[3] :]
        other = tokens.transpose(1, 2).reshape(own.shape) if tokens.numel() == own.numel() else tokens
    if own.shape != other.shape:
        return math.inf
    return float((own - other).abs().max() / other.abs().max().clamp_min(torch.finfo(torch.float32).tiny))
