"""DINOv3 and its relatives: timm's ``Eva`` (rotary positions, ``gamma_1`` as a bare parameter, separate qkv bias).

Siméoni et al., DINOv3, 2025. Shape letters: I pictures, N tokens, H W grid, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, final

import torch
from timm.layers import GluMlp, SwiGLU
from timm.models.eva import EvaAttention, EvaBlock, checkpoint_filter_fn
from torch import Tensor, nn

from garnish.backbones.architecture import MOST_BLOCKS, Flag, Heads, Size, Tokens, read_architecture
from garnish.backbones.backbone import Small
from garnish.backbones.given_weights import Weights
from garnish.backbones.plain_blocks import Plain, PlainOptions
from garnish.backbones.timm_models import TimmModule, create_timm
from garnish.backbones.timm_reading import as_read, is_there, ratio_of
from garnish.backbones.transformers_names import translating
from garnish.checking.plain_data import Json, Within, integers, reals
from garnish.engine.blocks import Branch, LayerScale, Residual
from garnish.errors import OptionError

_Coordinate = Annotated[float, reals(0, 100)]
_BlockHeads = Annotated[
    tuple[int, ...],
    Within(
        "one whole number from 1 to 1,024 a block",
        lambda heads: 1 <= len(heads) <= MOST_BLOCKS and all(1 <= one <= 1024 for one in heads),
    ),
]


@final
@dataclass(frozen=True, kw_only=True)
class EvaOptions(PlainOptions):
    """The architecture of a DINOv3 or EVA-02; what is None is as the name says.

    Attributes:
        num_reg_tokens: number of register tokens.
        num_kv_heads: heads of keys and values, one number or one a block; a divisor of ``num_heads``.
        qkv_fused: whether queries, keys and values come from one layer.
        attn_type: timm's two ways to write attention.
        swiglu_mlp: whether MLPs are gated.
        swiglu_align_to: what the hidden width of a gated MLP is rounded up to; 0: nothing.
        scale_mlp: whether a norm stands inside the MLP.
        scale_attn_inner: whether one stands before attention's last layer.
        attn_only_layer_scale: whether MLPs have no layer scale.
        use_abs_pos_emb: whether there are learnt positions.
        use_rot_pos_emb: whether queries and keys are rotated by their positions.
        rope_type: how: concatenated, as DINOv3.
        rope_grid_offset: of the positions, patches.
        rope_grid_indexing: order of rows and columns.
        rope_temperature: of the frequencies.
        rope_rotate_half: whether halves are rotated instead of pairs.
        rope_shift_coords, rope_jitter_coords, rope_rescale_coords: changes of positions in training, as DINOv3's.
        ref_feat_shape: (height, width) of the map that rotary positions are scaled to, patches.
        use_post_norm: whether norms stand behind attention and MLP.
        use_pre_transformer_norm: whether one stands before the blocks.
        use_post_transformer_norm, use_fc_norm, global_pool: what is behind the blocks, which a trunk has not.
    """

    num_reg_tokens: Tokens | None = None
    num_kv_heads: Heads | _BlockHeads | None = None
    qkv_fused: Flag | None = None
    attn_type: Literal["eva", "rope"] | None = None
    swiglu_mlp: Flag | None = None
    swiglu_align_to: Annotated[int, integers(0, 1024)] | None = None
    scale_mlp: Flag | None = None
    scale_attn_inner: Flag | None = None
    attn_only_layer_scale: Flag | None = None
    use_abs_pos_emb: Flag | None = None
    use_rot_pos_emb: Flag | None = None
    rope_type: Literal["cat", "dinov3", "mixed", ""] | None = None
    rope_grid_offset: Annotated[float, reals(-1, 1)] | None = None
    rope_grid_indexing: Literal["ij", "xy"] | None = None
    rope_temperature: Annotated[float, reals(1, 1e9)] | None = None
    rope_rotate_half: Flag | None = None
    rope_shift_coords: _Coordinate | None = None
    rope_jitter_coords: _Coordinate | None = None
    rope_rescale_coords: _Coordinate | None = None
    ref_feat_shape: Size | None = None
    use_post_norm: Flag | None = None
    use_pre_transformer_norm: Flag | None = None
    use_post_transformer_norm: Flag | None = None
    use_fc_norm: Flag | None = None
    global_pool: Literal["", "avg", "avgmax", "max", "token", "map"] | None = None


_DIALECTS = translating("Eva", checkpoint_filter_fn)


class Eva(Plain):
    """A plain transformer with rotary position embedding, split into four stages of equal depth."""

    timm_module = "eva"
    small: ClassVar[Small] = {
        "dinov3": (
            "vit_small_patch16_dinov3",
            {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3, "init_values": 1.0},
        )
    }

    @classmethod
    def options_of(cls, model: TimmModule) -> dict[str, Json]:
        """What an ``Eva`` of timm's says of how it was built."""
        block, rope = model.blocks[0], model.rope
        attn, mlp = block.attn, block.mlp
        hidden = (mlp.fc1_g if isinstance(mlp, SwiGLU) else mlp.fc1).out_features
        bias = attn.q_proj.bias if attn.qkv is None else attn.q_bias if _is_eva(attn) else attn.qkv.bias
        positions = {
            f"rope_{fact}": getattr(rope, fact, None)
            for fact in ("grid_offset", "grid_indexing", "temperature", "rotate_half")
        }
        return super().options_of(model) | as_read(
            mlp_ratio=ratio_of(hidden // 2 if isinstance(mlp, GluMlp) else hidden, model.embed_dim),
            qkv_bias=bias is not None,
            qkv_fused=attn.qkv is not None,
            attn_type="eva" if _is_eva(attn) else "rope",
            num_kv_heads=None if _is_eva(attn) or attn.num_kv_heads == attn.num_heads else attn.num_kv_heads,
            swiglu_mlp=isinstance(mlp, GluMlp | SwiGLU),
            scale_mlp=is_there(mlp.norm),
            scale_attn_inner=is_there(attn.norm),
            init_values=None if block.gamma_1 is None else 1.0,  # where it started no longer matters
            attn_only_layer_scale=block.gamma_1 is not None and block.gamma_2 is None,
            num_reg_tokens=model.num_prefix_tokens - (model.cls_token is not None),
            use_abs_pos_emb=model.pos_embed is not None,
            use_rot_pos_emb=rope is not None,
            ref_feat_shape=getattr(rope, "ref_feat_shape", None),
            use_pre_transformer_norm=is_there(model.norm_pre),
            **positions,
        )

    @classmethod
    def create(cls, name: str, weights: Weights, options: Mapping[str, object]) -> Eva:
        """Build ``name``; ``options``: fields of :class:`EvaOptions`."""
        arch = read_architecture(name, options, EvaOptions)
        eva, licence, source = create_timm(name, weights, arch, {"dynamic_img_size": True}, _DIALECTS)
        if eva.rope_mixed:
            raise OptionError(
                f"{name}: rotary positions that differ by depth are not supported; use a DINOv3 or EVA-02 ViT"
            )
        for block in eva.blocks:
            if type(block) is not EvaBlock:
                raise OptionError(f"{name}: blocks of type {type(block).__name__} are not supported; use a DINOv3 ViT")
            if _is_eva(block.attn):
                # otherwise the module reads qkv.weight directly, past an adapter, which would train nothing
                block.attn.qkv_bias_separate = True
        blocks = [
            {
                "attn": Residual(Branch(b.norm1, b.attn, _scale(b.gamma_1), b.drop_path1), takes=("rope",)),
                "mlp": Residual(Branch(b.norm2, b.mlp, _scale(b.gamma_2), b.drop_path2)),
            }
            for b in eva.blocks
        ]
        return cls.of_blocks(
            eva, blocks, eva.rope, arch, name=name, options=options, licence=licence, weights_source=source
        )

    def prompted(self, extras: Mapping[str, Tensor | None], count: int) -> Mapping[str, Tensor | None]:
        """Extras with rotary entries for prompts, which have no position and are not rotated (sine 0, cosine 1)."""
        rope = extras["rope"]
        if rope is None:
            return extras
        sine, cosine = rope.new_zeros(count, rope.shape[1] // 2), rope.new_ones(count, rope.shape[1] // 2)
        return {**extras, "rope": torch.cat([torch.cat([sine, cosine], 1), rope])}


def _is_eva(attn: nn.Module) -> bool:
    return isinstance(attn, EvaAttention)


def _scale(gamma: nn.Parameter | None) -> nn.Module:
    return nn.Identity() if gamma is None else LayerScale(gamma)
