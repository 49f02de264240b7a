"""Swin transformers (Liu et al., ICCV 2021) from timm's modules, at any picture size.

Shape letters: R rows, H W map, C channels, n windows of one map, w² tokens of one window, p prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.architecture import check_lengths, read_architecture
from garnish.backbones.backbone import Small
from garnish.backbones.given_weights import Weights
from garnish.backbones.timm_models import TimmModule, create_timm
from garnish.backbones.timm_reading import as_read
from garnish.backbones.transformers_names import translating
from garnish.backbones.windows import (
    Apart,
    Back,
    ShiftedWindows,
    Windowed,
    WindowedOptions,
    unseen_by_prompts,
    without_classifier,
)
from garnish.checking.plain_data import Json, integers
from garnish.engine.blocks import Branch, Residual
from garnish.errors import OptionError


@final
@dataclass(frozen=True, kw_only=True)
class SwinOptions(WindowedOptions):
    """The architecture of a Swin; what is None is as the name says.

    Attributes:
        head_dim: channels of a head; None: the stage's channels divided by its heads.
    """

    head_dim: Annotated[int, integers(1, 1024)] | None = None


class Swin(Windowed):
    """Four stages of shifted-window blocks; maps are read before the next stage's merging."""

    timm_module = "swin_transformer"
    small: ClassVar[Small] = {
        "swin": (
            "swin_tiny_patch4_window7_224",
            {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4]},
        )
    }

    @classmethod
    def options_of(cls, model: TimmModule) -> dict[str, Json]:
        """What a ``SwinTransformer`` of timm's says of how it was built."""
        layers = [stage.blocks[0].attn for stage in model.layers]
        sizes = {attn.qkv.out_features // 3 // attn.num_heads for attn in layers}
        divided = all(attn.qkv.out_features == 3 * attn.qkv.in_features for attn in layers)
        return super().options_of(model) | as_read(
            qkv_bias=layers[0].qkv.bias is not None, head_dim=None if divided or len(sizes) > 1 else min(sizes)
        )

    @classmethod
    def create(cls, name: str, weights: Weights, options: Mapping[str, object]) -> Swin:
        """Build ``name``; ``options``: fields of :class:`SwinOptions`."""
        arch = read_architecture(name, options, SwinOptions)
        check_lengths(name, arch, "depths", "num_heads")
        # always full windows: timm shrinks windows at build time, which is wrong at any other picture size
        fixed = {"strict_img_size": False, "always_partition": True}
        swin, licence, source = create_timm(
            name, weights, arch, fixed, translating("Swin", without_classifier(checkpoint_filter_fn))
        )
        if type(swin) is not SwinTransformer:
            raise OptionError(f"{name}: {type(swin).__name__} is not a Swin of the first version; use swin_*")
        return cls.with_windows(swin, _residuals, name=name, options=options, licence=licence, weights_source=source)

    @staticmethod
    def reduce(merging: TimmModule, x: Tensor) -> Tensor:
        """Norm, then reduction: (R, N, 4C) → (R, N, 2C)."""
        out: Tensor = merging.reduction(merging.norm(x))
        return out


#: Added to masked logits. The paper's code adds -100, which leaves weights of about e^-100: denormal numbers, with
#: which products take up to a hundred times as long on a CPU. With this value they are 0.
_APART = -1000.0


class BiasedAttention(nn.Module):
    """Attention within windows, with a learned relative position bias (eq. 4)."""

    def __init__(self, attn: TimmModule) -> None:
        """Take over the parameters of a timm ``WindowAttention``."""
        super().__init__()
        self.num_heads: int = attn.num_heads
        self.scale: float = attn.scale
        self.relative_position_bias_table: nn.Parameter = attn.relative_position_bias_table
        self.register_buffer("index", attn.relative_position_index, persistent=False)
        self.qkv = attn.qkv
        self.attn_drop = attn.attn_drop
        self.proj = attn.proj
        self.proj_drop = attn.proj_drop

    def forward(self, x: Tensor, back: Back, apart: Apart | None = None, prompts: int = 0) -> Tensor:
        """Window tokens (R·n, p + w², C) and the mask of a rolled map → what ``back`` makes of (R·n, p + w², C)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        index: Tensor = self.index  # type: ignore[assignment]
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)
        bias = unseen_by_prompts(bias, prompts)
        # one mask per row; task streams may have begun at qkv, so q may have more rows than x
        bias = bias[None] if apart is None else apart.added_to(bias, q.shape[0], prompts)
        dropout = self.attn_drop.p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=self.scale)
        mixed: Tensor = self.proj_drop(self.proj(back(out.transpose(1, 2).flatten(2))))
        return mixed


def _windows(block: TimmModule) -> ShiftedWindows:
    return ShiftedWindows(BiasedAttention(block.attn), block.window_size, block.shift_size, _APART)


def _residuals(block: TimmModule) -> dict[str, nn.Module]:
    return {
        "attn": Residual(Branch(block.norm1, _windows(block), nn.Identity(), block.drop_path1), takes=("place",)),
        "mlp": Residual(Branch(block.norm2, block.mlp, nn.Identity(), block.drop_path2)),
    }
