"""Swin transformers of the second version (Liu et al., CVPR 2022) from timm's modules, at any picture size.

Shape letters: I pictures, R rows, H W map, C channels, h heads, n windows of one map, w² tokens of one window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.architecture import Activation, check_lengths, per_stage, read_architecture
from garnish.backbones.backbone import Small
from garnish.backbones.given_weights import Weights
from garnish.backbones.timm_models import TimmModule, create_timm
from garnish.backbones.timm_reading import activation_of, as_read
from garnish.backbones.windows import (
    Apart,
    Back,
    ShiftedWindows,
    Windowed,
    WindowedOptions,
    unseen_by_prompts,
    without_classifier,
)
from garnish.checking.plain_data import Json
from garnish.engine.blocks import Beside, Residual
from garnish.engine.sites import OffStream
from garnish.errors import OptionError

#: Largest learned log-scale of cosine attention: its temperature is never below 0.01 (section 3.2).
_MOST_LOGIT = math.log(1 / 0.01)
#: Position biases are this times a sigmoid (timm and the papers' code).
_MOST_BIAS = 16.0


@final
@dataclass(frozen=True, kw_only=True)
class SwinV2Options(WindowedOptions):
    """The architecture of a SwinV2; what is None is as the name says.

    Attributes:
        pretrained_window_sizes: side of the windows of the weights, a stage, which position biases are scaled to; 0:
            ``window_size``.
        act_layer: activation.
    """

    pretrained_window_sizes: Annotated[tuple[int, ...], per_stage(32, least=0)] | None = None
    act_layer: Activation | None = None


class SwinV2(Windowed):
    """Four stages of shifted-window blocks with cosine attention; maps are read before the next stage's merging.

    Window sizes are those that timm builds for the picture size of the weights (or ``img_size``) and stay the same at
    every picture size: if the last map was smaller than a window in training, so is the window.
    """

    timm_module = "swin_transformer_v2"
    small: ClassVar[Small] = {
        "swinv2": (
            "swinv2_tiny_window8_256",
            {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4]},
        )
    }

    @classmethod
    def options_of(cls, model: TimmModule) -> dict[str, Json]:
        """What a ``SwinTransformerV2`` of timm's says of how it was built."""
        blocks = [stage.blocks[0] for stage in model.layers]
        return super().options_of(model) | as_read(
            qkv_bias=blocks[0].attn.q_bias is not None,
            pretrained_window_sizes=[block.attn.pretrained_window_size[0] for block in blocks],
            act_layer=activation_of(blocks[0].mlp),
        )

    @classmethod
    def create(cls, name: str, weights: Weights, options: Mapping[str, object]) -> SwinV2:
        """Build ``name``; ``options``: fields of :class:`SwinV2Options`."""
        arch = read_architecture(name, options, SwinV2Options)
        check_lengths(name, arch, "depths", "num_heads")
        fixed = {"strict_img_size": False}
        swin, licence, source = create_timm(name, weights, arch, fixed, without_classifier(checkpoint_filter_fn))
        if type(swin) is not SwinTransformerV2:
            raise OptionError(f"{name}: {type(swin).__name__} is not a Swin of the second version; use swinv2_*")
        return cls.with_windows(swin, _residuals, name=name, options=options, licence=licence, weights_source=source)

    @staticmethod
    def reduce(merging: TimmModule, x: Tensor) -> Tensor:
        """Reduction, then norm: (R, N, 4C) → (R, N, 2C)."""
        out: Tensor = merging.norm(merging.reduction(x))
        return out


class PostNormBranch(nn.Module):
    """A residual branch whose norm comes last: layer → norm → drop-path (res-post-norm, section 3.1).

    There is no norm in front, so an adapter beside the branch reads the stream itself, and the output of the sublayer
    is not yet normalised.
    """

    def __init__(self, layer: nn.Module, norm: nn.Module, drop_path: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.norm = norm
        self.drop_path = drop_path
        self.beside = Beside()

    def forward(self, x: Tensor, **extras: object) -> Tensor:
        """Stream → branch output, to be added to the stream."""
        out: Tensor = self.beside(x, self.drop_path(self.norm(self.layer(x, **extras))))
        return out

    def parts(self) -> tuple[tuple[str, nn.Module], ...]:
        """(name suffix, module) pairs, as :meth:`garnish.engine.blocks.Branch.parts`."""
        return ("", self.layer), (".norm", self.norm)


#: Added to masked logits; a soft mask, as logits here range from -100 to 116; published weights were trained with it.
_APART = -100.0


class CosineAttention(nn.Module):
    """Attention on the cosines of queries and keys, with a learned temperature and position bias (eq. 2 and 3).

    The bias is a small MLP of token distances. It reads constants instead of the stream, so its linear layers are not
    adapter sites, and "every linear layer in the blocks" does not include them; they can be tuned in place.
    """

    def __init__(self, attn: TimmModule) -> None:
        """Take over the parameters of a timm ``WindowAttention``."""
        super().__init__()
        self.num_heads: int = attn.num_heads
        self.qkv = attn.qkv
        # separate parameters, as keys have no bias
        self.q_bias: nn.Parameter | None = attn.q_bias
        self.v_bias: nn.Parameter | None = attn.v_bias
        self.logit_scale: nn.Parameter = attn.logit_scale
        self.cpb_mlp = OffStream(*attn.cpb_mlp)
        self.attn_drop = attn.attn_drop
        self.proj = attn.proj
        self.proj_drop = attn.proj_drop
        self.register_buffer("distances", attn.relative_coords_table, persistent=False)
        self.register_buffer("distance_index", attn.relative_position_index, persistent=False)

    def forward(self, x: Tensor, back: Back, apart: Apart | None = None, prompts: int = 0) -> Tensor:
        """Window tokens (R·n, p + w², C) and the mask of a rolled map → what ``back`` makes of (R·n, p + w², C)."""
        qkv = self.qkv(x)
        if self.q_bias is not None and self.v_bias is not None:
            qkv = qkv + torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        scale = self.logit_scale.clamp(max=_MOST_LOGIT).exp()
        # the middle of the range, sigmoid(0); a bias of 0, e⁸ times less, would all but hide the prompts
        bias = unseen_by_prompts(self.position_bias(), prompts, value=_MOST_BIAS / 2)
        # one mask per row; task streams may have begun at qkv, so q may have more rows than x
        bias = bias[None] if apart is None else apart.added_to(bias, q.shape[0], prompts)
        dropout = self.attn_drop.p if self.training else 0.0
        out = F.scaled_dot_product_attention(
            F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1), v, attn_mask=bias, dropout_p=dropout, scale=1.0
        )
        mixed: Tensor = self.proj_drop(self.proj(back(out.transpose(1, 2).flatten(2))))
        return mixed

    def position_bias(self) -> Tensor:
        """Relative position bias (h, w², w²): 16 times the sigmoid of the MLP of log-spaced distances."""
        index: Tensor = self.distance_index  # type: ignore[assignment]
        table: Tensor = self.cpb_mlp(self.distances).flatten(0, -2)  # (distances, h)
        return _MOST_BIAS * torch.sigmoid(table[index]).permute(2, 0, 1)


def _windows(block: TimmModule) -> ShiftedWindows:
    size: tuple[int, int] = block.window_size
    shifted = any(block.target_shift_size)
    return ShiftedWindows(
        CosineAttention(block.attn), size, (size[0] // 2, size[1] // 2) if shifted else (0, 0), _APART
    )


def _residuals(block: TimmModule) -> dict[str, nn.Module]:
    return {
        "attn": Residual(PostNormBranch(_windows(block), block.norm1, block.drop_path1), takes=("place",)),
        "mlp": Residual(PostNormBranch(block.mlp, block.norm2, block.drop_path2)),
    }
