"""Convolutional networks of timm's, as ``features_only=True`` cuts them: ResNets, EfficientNets, RegNets and others.

Shape letters: I pictures, H W map, C channels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, ClassVar

import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from garnish.backbones.backbone import Small
from garnish.backbones.convolution import replace_same_convolutions
from garnish.backbones.timm_models import TimmTrunk, create_timm
from garnish.engine.blocks import FeatureInfo, Stage, Whole
from garnish.errors import OptionError

#: Modules of timm's whose networks are a sequence of modules read in between. Left out: those that are read through
#: hooks (NASNet, Xception) or run several resolutions beside each other (HRNet), and Inception, whose maps are not
#: the picture's sides over a stride.
_MODULES = (
    "byobnet", "cspnet", "densenet", "dla", "dpn", "efficientnet", "fasternet", "ghostnet", "hgnet", "inception_next",
    "lcnetv2", "mobilenetv3", "nfnet", "rdnet", "regnet", "repghost", "repvit", "res2net", "resnest", "resnet",
    "resnetv2", "rexnet", "senet", "sknet", "starnet", "tresnet", "vgg", "vovnet",
)  # fmt: skip

#: Those that come as a class of their own unless the list is asked for.
_BY_CLASS = ("efficientnet", "mobilenetv3")

#: Maps finer than this are left out unless ``out_indices`` asks for them: no head needs them, and they are the dearest.
_FINEST_STRIDE = 4


class CNN(TimmTrunk):
    """Stages of opaque blocks; maps are read where timm's ``features_only`` reads them, from stride 4 on.

    Blocks are run as they are. Adapters find layers, norms and feature maps; methods that need a residual, a branch or
    a sublayer have no place here. Batch norms keep their statistics, also where a method trains the trunk.
    """

    small: ClassVar[Small] = {"cnn": ("test_efficientnet", {})}

    @classmethod
    def names(cls) -> list[str]:
        """Names known to timm in the modules that this family reads."""
        return list(_names())

    @classmethod
    def create(cls, name: str, weights: str | bool | None, options: Mapping[str, Any]) -> CNN:
        """Build ``name``; ``options`` are timm's constructor arguments and ``out_indices`` (the levels to read)."""
        fixed: dict[str, Any] = {"features_only": True}
        if any(name.split(".", 1)[0] in timm.list_models(module=module) for module in _BY_CLASS):
            fixed |= {"feature_cls": "list", "feature_cfg": {"flatten_sequential": True}}
        names = _Names(name, options)
        net, licence, source = create_timm(name, weights, options, fixed, names.as_in, names.of)
        replace_same_convolutions(net)
        for module in net.modules():
            # an adapter may have kept what an activation would overwrite
            if getattr(module, "inplace", False):
                module.inplace = False
        strides, channels = net.feature_info.reduction(), net.feature_info.channels()
        read = [i for i, s in enumerate(strides) if s >= _FINEST_STRIDE or "out_indices" in options]
        ends = [key for key in net if key in net.return_layers]
        stem, stages = _cut(list(net.items()), [ends[i] for i in read])
        backbone = cls.assemble(
            net,
            name=name,
            options=options,
            stem=_Stem(stem),
            stages=stages,
            features=[FeatureInfo(channels[i], strides[i]) for i in read],
            multiple=max(strides),
            licence=licence,
            weights_source=source,
        )
        backbone.source_names = {ours: names.of(theirs) for ours, theirs in backbone.source_names.items()}
        return backbone

    def read_merged(self) -> None:
        """Refuse: a CNN's stage begins with a block that is finer inside, not with a layer that merges.

        Raises:
            OptionError: always.
        """
        raise OptionError(f'{self.name}: a CNN has no layer between its stages that merges; use taps="stage"')

    def train(self, mode: bool = True) -> CNN:
        """Training mode for all but the trunk's batch norms, whose statistics are frozen whatever is trained."""
        super().train(mode)
        for _, module, _ in self.named_slots():
            if isinstance(module, _BatchNorm):
                module.training = False
        return self


@cache
def _names() -> tuple[str, ...]:
    return tuple(name for module in _MODULES for name in timm.list_models(module=module))


class _Names:
    """From the names in timm's whole network, which checkpoints use, to those in the cut one, and back."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self.options = {key: value for key, value in options.items() if key != "out_indices"}

    @cached_property
    def whole(self) -> nn.Module:
        """The whole network with its classifier, without memory."""
        with torch.device("meta"):
            built: nn.Module = timm.create_model(self.name, **self.options)
        return built

    def of(self, theirs: str) -> str:
        """``stages_0.1.conv.weight`` → ``stages.0.1.conv.weight``: sequences are unrolled where the network is cut."""
        head, _, tail = theirs.partition(".")
        for name, module in self.whole.named_children():
            for key, _ in module.named_children() if isinstance(module, nn.Sequential) else ():
                if head == f"{name}_{key}":
                    return f"{name}.{key}.{tail}"
        return theirs

    def as_in(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        """A checkpoint in the cut network's names; what lies behind the last map is left out, counters may lack."""
        ours = {self.of(theirs): theirs for theirs in net.state_dict()}
        behind = self.whole.state_dict().keys() - ours.keys()
        read = {ours.get(name, name): tensor for name, tensor in state.items() if name not in behind}
        counters = {n: t for n, t in net.state_dict().items() if n.endswith("num_batches_tracked")}
        return {**counters, **read}


class _Stem(nn.Module):
    """What leads into the first stage."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Any]]:
        """(I, 3, H, W) → (I, H', W', C), its grid, no extras."""
        x = self.body(images).permute(0, 2, 3, 1)
        return x, (x.shape[1], x.shape[2]), {}


def _cut(modules: Sequence[tuple[str, nn.Module]], ends: Sequence[str]) -> tuple[nn.Module, list[Stage]]:
    """Stem and stages: a stage begins with simple modules, has blocks, and ends with a module in ``ends``."""
    stem: nn.Module = nn.Identity()
    stages: list[Stage] = []
    pending: list[tuple[str, nn.Module]] = []
    for key, module in modules:
        pending.append((key, module))
        if key not in ends:
            continue
        lead = 0
        while lead < len(pending) and (_is_simple(pending[lead][1]) or pending[lead][0].startswith("stem")):
            lead += 1
        if lead == len(pending):  # a stage without blocks (VGG's): all of it is one
            lead = 0
            pending = [(key, nn.Sequential(OrderedDict(pending)))]
        leading = nn.Sequential(OrderedDict(pending[:lead])) if lead else nn.Identity()
        blocks = [{"block": Whole(block)} for _, module in pending[lead:] for block in _unrolled(module)]
        if not stages:
            stem, leading = leading, nn.Identity()
        stages.append(Stage(Whole(leading) if lead and stages else nn.Identity(), blocks, nn.Identity()))
        pending = []
    return stem, stages


def _unrolled(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a sequence of blocks; any other module as it is."""
    if type(module).forward is nn.Sequential.forward and not _is_simple(module):
        for child in module.children():
            yield from _unrolled(child)
    else:
        yield module


def _is_simple(module: nn.Module) -> bool:
    """A layer, norm, activation or pooling, or a few of them in a row: nothing in it has parts with parameters."""
    inner = [part for child in module.children() for part in child.children()]
    return not any(True for part in inner for _ in part.parameters())
