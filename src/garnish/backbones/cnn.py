"""CNNs from timm, built with ``features_only=True``: ResNets, EfficientNets, RegNets and others.

Shape letters: I pictures, H W map, C channels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, Literal, final

import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from garnish.backbones.architecture import (
    Activation,
    Depths,
    Epsilon,
    Flag,
    Heads,
    MapNorm,
    Mean,
    Rate,
    Ratio,
    Scale,
    Std,
    Width,
    Widths,
    given,
    read_architecture,
)
from garnish.backbones.backbone import Small
from garnish.backbones.cnn_names import CNNNames, as_sequence
from garnish.backbones.convolution import replace_same_convolutions
from garnish.backbones.given_weights import Weights
from garnish.backbones.timm_models import COLOURS, TimmModule, TimmTrunk, create_timm, noise_picture
from garnish.backbones.timm_reading import activation_of, as_read, rates_of
from garnish.checking.plain_data import Json, Within, integers
from garnish.engine.blocks import FeatureInfo, Stage, Whole
from garnish.errors import OptionError

#: timm modules whose networks are a sequence of modules with maps read in between. Left out: those that are read
#: through hooks (NASNet, Xception) or run several resolutions in parallel (HRNet), and Inception, whose map sides are
#: not the picture's divided by a stride.
_MODULES = (
    "byobnet", "cspnet", "densenet", "dla", "dpn", "efficientnet", "fasternet", "ghostnet", "hgnet", "inception_next",
    "lcnetv2", "mobilenetv3", "nfnet", "rdnet", "regnet", "repghost", "repvit", "res2net", "resnest", "resnet",
    "resnetv2", "rexnet", "senet", "sknet", "starnet", "tresnet", "vgg", "vovnet",
)  # fmt: skip

#: Maps finer than this are left out unless ``out_indices`` asks for them: no head needs them, and they cost the most.
_FINEST_STRIDE = 4


_Levels = Annotated[
    tuple[int, ...],
    Within(
        "1 to 16 rising whole numbers from -16 to 15",
        lambda levels: (
            1 <= len(levels) <= 16
            and list(levels) == sorted(set(levels))
            and all(-16 <= level <= 15 for level in levels)
        ),
    ),
]


@final
@dataclass(frozen=True, kw_only=True)
class CNNOptions:
    """Options of the CNNs; each network takes some of them, what is None is as the name says.

    Attributes:
        out_indices: the levels to read maps at, of those of timm's ``features_only``, finest first; from the end if
            negative.
        output_stride: of the last map; less than 32 dilates kernels instead.
        act_layer: activation.
        norm_layer: norm.
        bn_eps: epsilon of EfficientNets' batch norms.
        drop_path_rate: stochastic depth in training.
        drop_block_rate: blocks of maps dropped in training (ResNets).
        layers: blocks a stage (ResNets).
        depths: likewise (networks in ConvNeXt's manner).
        channels: of a ResNet's stages.
        dims: likewise (networks in ConvNeXt's manner).
        cardinality, base_width: groups of a ResNeXt's convolutions, and their width.
        groups: likewise (SENets).
        stem_width, stem_chs, stem_size: channels of the stem.
        stem_type: the stem of a ResNet: one convolution or three.
        replace_stem_pool: whether a convolution stands in place of the stem's pooling.
        avg_down: whether shortcuts are pooled before their convolution.
        down_kernel_size, block_reduce_first: details of a ResNet's blocks.
        fix_stem: whether the stem's channels stay as they are when others are scaled (EfficientNets).
        width_factor, bottle_ratio: widths of ResNetV2's stages and blocks.
        growth_rate, bn_size, block_config: channels that a layer of a DenseNet adds, width of bottlenecks, layers.
        mlp_ratio, ls_init_value: as ConvNeXt's.
        width: factor of all channels (GhostNets).
        width_mult, depth_mult: factors of channels and blocks (ReXNets).
        zero_init_last: whether the last norm of a block starts at 0.
        drop_rate, global_pool, num_features, head_bias: of the classifier, which a trunk has not; taken since older
            bundles may have them.
        mean, std: what red, green and blue in [0, 1] are normalised by.
    """

    out_indices: _Levels | None = None
    output_stride: Literal[2, 4, 8, 16, 32] | None = None
    act_layer: Activation | None = None
    norm_layer: MapNorm | None = None
    bn_eps: Epsilon | None = None
    drop_path_rate: Rate | None = None
    drop_block_rate: Rate | None = None
    layers: Depths | None = None
    depths: Depths | None = None
    channels: Widths | None = None
    dims: Widths | None = None
    cardinality: Heads | None = None
    base_width: Width | None = None
    groups: Heads | None = None
    stem_width: Width | None = None
    stem_chs: Width | None = None
    stem_size: Width | None = None
    stem_type: Literal["", "deep", "deep_tiered", "fixed", "same", "deep_fixed", "deep_same", "tiered"] | None = None
    replace_stem_pool: Flag | None = None
    avg_down: Flag | None = None
    down_kernel_size: Literal[1, 3] | None = None
    block_reduce_first: Annotated[int, integers(1, 16)] | None = None
    fix_stem: Flag | None = None
    width_factor: Annotated[int, integers(1, 16)] | None = None
    bottle_ratio: Ratio | None = None
    growth_rate: Width | None = None
    bn_size: Annotated[int, integers(1, 64)] | None = None
    block_config: Depths | None = None
    mlp_ratio: Ratio | None = None
    ls_init_value: Scale | None = None
    width: Ratio | None = None
    width_mult: Ratio | None = None
    depth_mult: Ratio | None = None
    zero_init_last: Flag | None = None
    drop_rate: Rate | None = None
    global_pool: Literal["", "avg", "avgmax", "max", "fast"] | None = None
    num_features: Width | None = None
    head_bias: Flag | None = None
    mean: Mean | None = None
    std: Std | None = None


class CNN(TimmTrunk):
    """Stages of opaque blocks; maps are read where timm's ``features_only`` reads them, from stride 4 on.

    Blocks are run unchanged. The adapter sites are layers, norms and feature maps; methods that need a residual, a
    branch or a sublayer find none. Batch norms keep their statistics, even if a method trains the trunk.
    """

    chooses_levels = True
    small: ClassVar[Small] = {"cnn": ("test_efficientnet", {})}

    @classmethod
    def names(cls) -> list[str]:
        """Names that timm lists in the modules of this family."""
        return list(_names())

    @classmethod
    def create(cls, name: str, weights: Weights, options: Mapping[str, object]) -> CNN:
        """Build ``name``; ``options``: fields of :class:`CNNOptions`."""
        arch = read_architecture(name, options, CNNOptions)
        names = CNNNames(name, given(arch))
        net, licence, source = create_timm(name, weights, arch, as_sequence(name), names.as_in, names.of)
        replace_same_convolutions(net)
        for module in net.modules():
            # an in-place activation would overwrite tensors that an adapter keeps for its backward pass
            if getattr(module, "inplace", False):
                module.inplace = False
        strides, channels = net.feature_info.reduction(), net.feature_info.channels()
        read = [i for i, s in enumerate(strides) if s >= _FINEST_STRIDE or arch.out_indices is not None]
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

    @classmethod
    def options_of(cls, model: TimmModule) -> dict[str, Json]:
        """What networks of all these modules say alike; of a ResNet also its depths."""
        layers = [getattr(model, f"layer{number}", None) for number in (1, 2, 3, 4)]
        sequences = [len(layer) for layer in layers if isinstance(layer, nn.Sequential)]
        return as_read(
            act_layer=activation_of(model),
            output_stride=model.feature_info[-1]["reduction"],
            layers=sequences if len(sequences) == len(layers) else None,
            **rates_of(model),
        )

    def maps_of(self, model: TimmModule) -> tuple[Tensor, Sequence[Tensor]]:
        """Of the model's own modules, run one after the other as timm's ``features_only`` does."""
        shaped = {key: value for key, value in self.options.items() if value is not None and key not in COLOURS}
        with torch.device("meta"):
            net = timm.create_model(self.name, **shaped, **as_sequence(self.name))
        names, images = CNNNames(self.name, self.options), noise_picture(2 * self.multiple, 3 * self.multiple)
        x, maps = images, []
        for key in net:
            x = model.get_submodule(names.path(key))(x)
            if key in net.return_layers:
                maps.append(x.clone())  # what follows may work in place
        strides = net.feature_info.reduction()
        read = [s >= _FINEST_STRIDE or "out_indices" in self.options for s in strides]
        return images, [found for found, is_read in zip(maps, read, strict=True) if is_read]

    def read_merged(self) -> None:
        """Refuse, as no layer merges patches between the stages of a CNN; its blocks reduce the resolution inside.

        Raises:
            OptionError: always.
        """
        raise OptionError(f'{self.name}: a CNN has no layer between its stages that merges; use taps="stage"')

    def train(self, mode: bool = True) -> CNN:
        """Set training mode, except for the trunk's batch norms, whose statistics are always frozen."""
        super().train(mode)
        for _, module, _ in self.named_slots():
            if isinstance(module, _BatchNorm):
                module.training = False
        return self


@cache
def _names() -> tuple[str, ...]:
    return tuple(name for module in _MODULES for name in timm.list_models(module=module))


class _Stem(nn.Module):
    """The layers before the first stage."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Tensor | None]]:
        """(I, 3, H, W) → (I, H', W', C), its grid, no extras."""
        x = self.body(images).permute(0, 2, 3, 1)
        return x, (x.shape[1], x.shape[2]), {}


def _cut(modules: Sequence[tuple[str, nn.Module]], ends: Sequence[str]) -> tuple[nn.Module, list[Stage]]:
    """Stem and stages: each stage starts with simple modules, then has blocks, the last of them in ``ends``."""
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
        if lead == len(pending):  # a stage without blocks (VGG's) becomes one block
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
    """The blocks of a (nested) sequence of blocks; any other module as it is."""
    if type(module).forward is nn.Sequential.forward and not _is_simple(module):
        for child in module.children():
            yield from _unrolled(child)
    else:
        yield module


def _is_simple(module: nn.Module) -> bool:
    """Whether it is a layer, norm, activation or pooling, or a few in a row: no child has children with parameters."""
    inner = [part for child in module.children() for part in child.children()]
    return not any(True for part in inner for _ in part.parameters())
