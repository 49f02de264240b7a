"""ConvNeXt (Liu et al., CVPR 2022) and ConvNeXt V2 (Woo et al., CVPR 2023) from timm's modules, DINOv3's included.

Shape letters: I pictures, R rows, H W map, C channels. The stream is channels-last maps (R, H, W, C), also where timm
runs a model channels-first (``conv_mlp``), so that an adapter finds channels last at every site but a convolution's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from timm.layers import GlobalResponseNormMlp, LayerNorm, LayerNorm2d, RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from timm.models.convnext import ConvNeXt as TimmConvNeXt
from timm.models.convnext import checkpoint_filter_fn
from torch import Tensor, nn

from garnish.backbones.architecture import (
    Activation,
    Depths,
    Epsilon,
    Flag,
    Kernel,
    MapNorm,
    Mean,
    Rate,
    Scale,
    StageKernels,
    Std,
    Stride,
    Width,
    Widths,
    check_lengths,
    read_architecture,
)
from garnish.backbones.backbone import Small
from garnish.backbones.convolution import replace_same_convolutions
from garnish.backbones.given_weights import Weights
from garnish.backbones.timm_models import TimmModule, TimmTrunk, create_timm
from garnish.backbones.timm_reading import activation_of, as_read, norm_of, rates_of
from garnish.backbones.transformers_names import translating
from garnish.checking.plain_data import Json
from garnish.engine.blocks import Beside, FeatureInfo, LayerScale, Residual, Stage
from garnish.errors import OptionError

#: timm's channels-first norms → the same norms over the last axis
_LAST = {LayerNorm2d: LayerNorm, RmsNorm2d: RmsNorm, SimpleNorm2d: SimpleNorm}


@final
@dataclass(frozen=True, kw_only=True)
class ConvNeXtOptions:
    """The architecture of a ConvNeXt, one entry a stage where there are several; what is None is as the name says.

    Attributes:
        dims: channels.
        depths: number of blocks.
        kernel_sizes: sides of the depthwise kernels, or one for all, pixels of the stage's map.
        output_stride: of the last map; less than 32 dilates kernels instead.
        patch_size: side of a patch of the stem, pixels.
        stem_type: one convolution on patches, or two that overlap.
        ls_init_value: start of the layer scale.
        conv_mlp: whether MLPs are 1×1 convolutions.
        conv_bias: whether convolutions have a bias.
        use_grn: whether MLPs have a global response norm, as V2's.
        act_layer: activation.
        norm_layer: norm.
        norm_eps: epsilon of the norms.
        drop_path_rate: stochastic depth of the last block in training, growing linearly from 0 at the first.
        drop_rate, global_pool, head_norm_first, head_hidden_size: of the classifier, which a trunk has not; taken
            since older bundles may have them.
        mean, std: what red, green and blue in [0, 1] are normalised by.
    """

    dims: Widths | None = None
    depths: Depths | None = None
    kernel_sizes: Kernel | StageKernels | None = None
    output_stride: Literal[8, 16, 32] | None = None
    patch_size: Stride | None = None
    stem_type: Literal["patch", "overlap", "overlap_tiered", "overlap_act"] | None = None
    ls_init_value: Scale | None = None
    conv_mlp: Flag | None = None
    conv_bias: Flag | None = None
    use_grn: Flag | None = None
    act_layer: Activation | None = None
    norm_layer: MapNorm | None = None
    norm_eps: Epsilon | None = None
    drop_path_rate: Rate | None = None
    drop_rate: Rate | None = None
    global_pool: Literal["", "avg", "avgmax", "max"] | None = None
    head_norm_first: Flag | None = None
    head_hidden_size: Width | None = None
    mean: Mean | None = None
    std: Std | None = None


_DIALECTS = translating("ConvNeXt", checkpoint_filter_fn)


class ConvNeXt(TimmTrunk):
    """Four stages of one-branch blocks; maps are read before the next stage's downsampling, without a final norm.

    A block has one residual, called "mlp": methods with one adapter per branch have one per block here.
    """

    timm_module = "convnext"
    small: ClassVar[Small] = {"convnext": ("convnextv2_tiny", {"dims": [16, 32, 48, 64], "depths": [1, 1, 2, 1]})}

    @classmethod
    def options_of(cls, model: TimmModule) -> dict[str, Json]:
        """What a ``ConvNeXt`` of timm's says of how it was built."""
        blocks = [stage.blocks[0] for stage in model.stages]
        mlp, whole = blocks[0].mlp, len(model.stem) == 2
        return as_read(
            dims=[info["num_chs"] for info in model.feature_info],
            depths=[len(stage.blocks) for stage in model.stages],
            kernel_sizes=[block.conv_dw.kernel_size[0] for block in blocks],
            output_stride=model.feature_info[-1]["reduction"] if whole else None,
            patch_size=model.stem[0].stride[0] if whole else None,
            stem_type="patch" if whole else None,
            ls_init_value=None if blocks[0].gamma is None else 1.0,  # where it started no longer matters
            conv_mlp=isinstance(mlp.fc1, nn.Conv2d),
            conv_bias=blocks[0].conv_dw.bias is not None,
            use_grn=isinstance(mlp, GlobalResponseNormMlp),
            act_layer=activation_of(mlp),
            norm_layer=norm_of(model.stem[-1]),
            norm_eps=model.stem[-1].eps,
            **rates_of(model),
        )

    @classmethod
    def create(cls, name: str, weights: Weights, options: Mapping[str, object]) -> ConvNeXt:
        """Build ``name``; ``options``: fields of :class:`ConvNeXtOptions`."""
        arch = read_architecture(name, options, ConvNeXtOptions)
        check_lengths(name, arch, "dims", "depths")
        net, licence, source = create_timm(name, weights, arch, {}, _DIALECTS)
        if type(net) is not TimmConvNeXt:
            raise OptionError(f"{name}: {type(net).__name__} is not a ConvNeXt; use convnext_* or convnextv2_*")
        replace_same_convolutions(net)  # of dilated stages
        stages = []
        for stage in net.stages:
            plain = isinstance(stage.downsample, nn.Identity)
            enter = nn.Identity() if plain else _Downsample(_last(stage.downsample[0], name), stage.downsample[1])
            blocks = [{"mlp": Residual(_branch(block, name))} for block in stage.blocks]
            stages.append(Stage(enter, blocks, nn.Identity()))
        features = [FeatureInfo(info["num_chs"], info["reduction"]) for info in net.feature_info]
        return cls.assemble(
            net,
            name=name,
            options=options,
            stem=_Stem(net.stem[:-1], _last(net.stem[-1], name)),
            stages=stages,
            features=features,
            multiple=int(features[-1].stride),
            licence=licence,
            weights_source=source,
        )


class ConvBranch(nn.Module):
    """A residual branch that mixes space before its norm: depthwise convolution → norm → MLP → scale → drop-path.

    The MLP is the sublayer; an adapter beside the branch reads the norm's output, so after the depthwise convolution.
    """

    def __init__(
        self, conv_dw: nn.Module, norm: nn.Module, layer: nn.Module, scale: nn.Module, drop_path: nn.Module
    ) -> None:
        super().__init__()
        self.conv_dw = conv_dw
        self.norm = norm
        self.layer = layer
        self.scale = scale
        self.drop_path = drop_path
        self.beside = Beside()

    def forward(self, x: Tensor) -> Tensor:
        """Stream (R, H, W, C) → branch output of the same shape, to be added to it."""
        normed = self.norm(_first_to_last(self.conv_dw(_last_to_first(x))))
        out: Tensor = self.beside(normed, self.drop_path(self.scale(self.layer(normed))))
        return out

    def parts(self) -> tuple[tuple[str, nn.Module], ...]:
        """(name suffix, module) pairs, as :meth:`garnish.engine.blocks.Branch.parts`."""
        return (".conv_dw", self.conv_dw), (".norm", self.norm), ("", self.layer), (".scale", self.scale)


class _Mlp(nn.Module):
    """fc1 → activation → global response norm (V2) → fc2, with linear layers or 1×1 convolutions."""

    def __init__(self, mlp: TimmModule) -> None:
        super().__init__()
        self.fc1 = mlp.fc1
        self.act = mlp.act
        self.grn = mlp.grn if isinstance(mlp, GlobalResponseNormMlp) else nn.Identity()
        self.fc2 = mlp.fc2
        self.convolves = isinstance(mlp.fc1, nn.Conv2d)

    def forward(self, x: Tensor) -> Tensor:
        """(R, H, W, C) → (R, H, W, C)."""
        if self.convolves:
            x = _last_to_first(x)
        x = self.fc2(self.grn(self.act(self.fc1(x))))
        return _first_to_last(x) if self.convolves else x


class _Downsample(nn.Module):
    """Norm, then a convolution of stride 2."""

    def __init__(self, norm: nn.Module, conv: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """(R, H, W, C) → (R, H/2, W/2, C')."""
        return _first_to_last(self.conv(_last_to_first(self.norm(x))))


class _Stem(nn.Module):
    """One convolution of stride 4 or two of stride 2, then a norm."""

    def __init__(self, convs: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.convs = convs
        self.norm = norm

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Tensor | None]]:
        """(I, 3, H, W) → (I, H/4, W/4, C), its grid, no extras."""
        x = self.norm(_first_to_last(self.convs(images)))
        return x, (x.shape[1], x.shape[2]), {}


def _branch(block: TimmModule, name: str) -> ConvBranch:
    if not isinstance(block.shortcut, nn.Identity):
        raise OptionError(f"{name}: blocks that change the map's size are not supported; use output_stride 32")
    scale = nn.Identity() if block.gamma is None else LayerScale(block.gamma)
    return ConvBranch(block.conv_dw, _last(block.norm, name), _Mlp(block.mlp), scale, block.drop_path)


def _last(norm: nn.Module, name: str) -> nn.Module:
    """The norm, with the same parameters, as one over the last axis."""
    if type(norm) in _LAST.values():
        return norm
    if type(norm) not in _LAST:
        raise OptionError(
            f"{name}: norms of type {type(norm).__name__} are not supported; use layernorm2d, rmsnorm2d or simplenorm2d"
        )
    assert isinstance(norm.weight, nn.Parameter)
    last: nn.Module = _LAST[type(norm)](norm.weight.shape[0], eps=norm.eps)
    for leaf, parameter in norm._parameters.items():
        setattr(last, leaf, parameter)
    return last


def _last_to_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _first_to_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)
