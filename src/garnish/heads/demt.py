"""DeMT's decoder: deformable mixing for each task, then attention between tasks (Xu, Yang and Zhang, AAAI 2023).

Shape letters: B pictures, T tasks, C the decoder's width, c_i channels of map i, H W the finest grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.checking.bounds import Channels, Side
from garnish.checking.plain_data import integers
from garnish.engine.blocks import FeatureInfo
from garnish.errors import OptionError
from garnish.heads.head import JointHead, by_maps
from garnish.heads.layers.deformable import DeformableConv, without_autocast
from garnish.heads.layers.task_attention import TaskAttention, maps_of, tokens_of

Attention = Literal["pixel", "token"]
#: taps of the 3×3 grid from which offsets are computed
_TAPS = 9
#: an output's hidden width is the sum of the trunk's channels divided by this
_NARROWING = 8


@final
@dataclass(frozen=True, kw_only=True)
class DeMT(JointHead):
    """Deformable mixers for each task, attention between tasks, an output for each task.

    1. All maps resized to the finest grid and concatenated, linear to ``channels`` + LayerNorm: once for tasks that
       read the same maps.
    2. For each task ``depth`` mixers: 1×1 convolution, GELU, BatchNorm; then z + BN(GELU(DC(z))), DC a deformable 1×1
       convolution with a 2-D offset per channel. (The released code's mixer has the deformable half first.)
    3. *Task interaction*: multi-head attention between the tokens of all tasks, linear, LayerNorm.
    4. *Task query*: for each task attention from its own tokens to step 3's, linear, LayerNorm, added to its own map.
    5. For each task 3×3 convolution to an eighth of the trunk's channels + BN + ReLU, 1×1 convolution.

    On the two attentions: in the paper's text, they run over all tokens of all tasks. The released code passes
    (B, N, C) to torch's attention without ``batch_first``, so that step 3 attends over the pictures of a batch and
    step 4, with the torch of that time, at each pixel over pictures × tasks; recent torch refuses its shapes.
    ``"pixel"`` attends over the tasks at one pixel of one picture in both steps, close to what gave the printed
    figures, but without mixing pictures. ``"token"`` is the text on a coarser grid: each task's tokens are averaged
    over squares of ``reduction`` pixels for step 3 and for the keys of step 4; queries keep the full grid.

    Cost of the decoder for one 448×448 picture, Swin-T, four tasks of 21, 7, 1 and 3 outputs, in GMAC (matrix
    products; 18 more for the trunk): pixel 65.6, token 63.2; token with ``reduction=4`` 130.3, and 2,663 with 1, which
    is exactly the text; pixel with ``depth=2`` 76.3, with ``channels=64`` 9.1. Tasks with maps of their own (adapters
    per task) add 0.6 for each beyond the first. Steps 1 and 4 are rearranged to cost less, with the same result. In
    float32 a backward pass keeps 1.6 GB per picture, with token attention 0.9 GB.

    Parameters: 4.55 M for Swin-T and NYUD's tasks (40, 3, 1 and 1 outputs); with the trunk 32,066,099, or 32,067,635
    with the trunk's final norm: the printed 32.07 M. Key biases, 1,280 in all, are left out, as they have no effect.
    Two mixers give 32.93 M, not the printed 36.6 M; doubling everything after the trunk would (36.61).

    Offsets start at zero, so that DC starts as a plain 1×1 convolution. They are computed from positions in pixels, as
    published, so they grow quickly under Adam: in one trial with lr 1e-3 on a 56×56 grid a quarter of the samples were
    outside the map after 50 steps. The released code initialises the second of their two convolutions at random, which
    put two fifths outside from the first step on.

    Attributes:
        attention: "pixel": over the tasks at each pixel; "token": over the tasks' averaged tokens of the whole grid.
        depth: number of mixers of each task.
        channels: width C of the decoder; a multiple of ``heads``.
        heads: number of heads of each attention.
        reduction: side of the squares that token attention averages; 1: none. Not used by pixel attention.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.Frozen(), {"depth": gn.Depth()}, gn.DeMT(channels=16))
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())
        26243
    """

    pyramid: ClassVar[bool] = True
    interacts: ClassVar[bool] = True  # each task attends to all tasks' maps

    attention: Attention = "pixel"
    depth: Annotated[int, integers(1, 256)] = 1
    channels: Channels = 256
    heads: Channels = 4
    reduction: Side = 8

    def __post_init__(self) -> None:
        if self.channels % self.heads:
            near = max(round(self.channels / self.heads), 1) * self.heads
            raise OptionError(f"DeMT.channels: {self.channels} is not divisible by {self.heads} heads; nearest: {near}")

    def build_joint(self, features: Sequence[FeatureInfo], channels: Mapping[str, int]) -> DeMTDecoder:
        """The decoder of these tasks; raises :class:`OptionError` without features, tasks, or outputs of a task."""
        if not features or not channels or min(channels.values()) < 1:
            raise OptionError(f"DeMT: needs features and outputs, got {len(features)} maps and {dict(channels)}")
        return DeMTDecoder(features, channels, self)


@final
class DeMTDecoder(nn.Module):
    """The concatenated map, mixers for each task, one interaction between all, a query and an output for each task."""

    def __init__(self, features: Sequence[FeatureInfo], outputs: Mapping[str, int], spec: DeMT) -> None:
        super().__init__()
        self.reduction = spec.reduction if spec.attention == "token" else 0
        self.join = _Join([f.channels for f in features], spec.channels)
        self.interaction = TaskAttention(spec.channels, spec.heads)
        hidden = max(sum(f.channels for f in features) // _NARROWING, 1)
        # the prefix avoids clashes of task names with attributes of ModuleDict
        self.parts = nn.ModuleDict({f"task_{t}": _TaskPart(spec, hidden, n) for t, n in outputs.items()})

    def forward(self, features: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        """{task: maps (B, c_i, H_i, W_i), finest first} of all tasks → {task: (B, its outputs, H, W)}.

        ``torch.export`` fixes which tasks share the same map tensors to what they are in its example.
        """
        parts = {name.removeprefix("task_"): cast("_TaskPart", part) for name, part in self.parts.items()}
        joined = {task: z for maps, tasks in by_maps(features) for z in [self.join(maps)] for task in tasks}
        mixed = {task: part.mixer(joined[task]) for task, part in parts.items()}
        own = {task: tokens_of(z) for task, z in mixed.items()}
        if self.reduction:
            tokens = torch.cat([tokens_of(z, self.reduction) for z in mixed.values()], dim=1)
            met = self.interaction(tokens, tokens)
            return {task: part(mixed[task], part.query(own[task], met)) for task, part in parts.items()}
        tokens = torch.stack(list(own.values()), dim=2)
        met = self.interaction.at_each_pixel(tokens, tokens)
        return {
            task: part(mixed[task], part.query.at_each_pixel(own[task].unsqueeze(2), met).squeeze(2))
            for task, part in parts.items()
        }


class _Join(nn.Module):
    """All maps resized to the finest grid and concatenated, linear Σc_i→C, LayerNorm."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.widths = list(widths)
        self.linear = nn.Linear(sum(widths), channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, c_i, H_i, W_i) → (B, C, H, W), contiguous."""
        size = maps[0].shape[-2:]
        # as in SegFormer's decoder: each map is multiplied by its columns of the weight, then resized
        total: Tensor | None = None
        for x, columns in zip(maps, torch.split(self.linear.weight, self.widths, dim=1), strict=True):
            # contiguous, as for other layouts torch's order of summation depends on whether the weight is trained
            y = F.linear(x.permute(0, 2, 3, 1).contiguous(), columns).permute(0, 3, 1, 2)
            total = y if total is None else total + F.interpolate(y, size, mode="bilinear", align_corners=False)
        assert total is not None
        out: Tensor = self.norm(total.permute(0, 2, 3, 1) + self.linear.bias)
        return out.permute(0, 3, 1, 2).contiguous()


class _TaskPart(nn.Module):
    """The modules of one task: mixers, a query, and 3×3 C→hidden + norm + ReLU, 1×1 to its outputs."""

    def __init__(self, spec: DeMT, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.mixer = nn.Sequential(*(_Mixer(spec.channels) for _ in range(spec.depth)))
        self.query = TaskAttention(spec.channels, spec.heads)
        self.bottleneck = nn.Conv2d(spec.channels, hidden, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.classifier = nn.Conv2d(hidden, out_channels, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, mixed: Tensor, seen: Tensor) -> Tensor:
        """The task's mixed map (B, C, H, W) and the output of its query (B, H·W, C) → (B, out_channels, H, W)."""
        z = mixed + maps_of(seen, mixed.shape[-2:])
        out: Tensor = self.classifier(F.relu(self.norm(self.bottleneck(z))))
        return out


class _Mixer(nn.Module):
    """z = BN(GELU(1×1 x)), then z + BN(GELU(deformable 1×1 z)), with offsets per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.point = nn.Conv2d(channels, channels, 1)
        self.point_norm = nn.BatchNorm2d(channels)
        self.offsets = _Offsets(channels)
        self.deform = DeformableConv(channels, channels)
        self.deform_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Mix one task's map: (B, C, H, W) → the same shape."""
        z: Tensor = self.point_norm(F.gelu(self.point(x)))
        out: Tensor = z + self.deform_norm(F.gelu(self.deform(z, self.offsets(z))))
        return out


class _Offsets(nn.Module):
    """Offsets of each channel: 3×3 C→18 + positions of nine taps in the grid, then 3×3 in two groups 18→2C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.taps = nn.Conv2d(channels, 2 * _TAPS, 3, padding=1)
        self.spread = nn.Conv2d(2 * _TAPS, 2 * channels, 3, padding=1, groups=2)
        for layer in (self.taps, self.spread):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 2C, H, W) in pixels: down and right of channel 0, of channel 1, ….

        In this order, as in the released code, the group of the rows gives both offsets of the first C/2 channels.
        """
        with without_autocast(z.device):  # positions of 100 pixels have steps of half a pixel in bfloat16
            taps = self.taps(z.to(self.taps.weight.dtype))
            out: Tensor = self.spread(taps + _tap_places(z.shape[2], z.shape[3], taps))
        return out


def _tap_places(height: int, width: int, like: Tensor) -> Tensor:
    """(18, H, W): the rows of the nine taps around each pixel, then their columns; pixels are counted from 1."""
    step = torch.arange(-1, 2, device=like.device, dtype=like.dtype)
    rows = torch.arange(1, height + 1, device=like.device, dtype=like.dtype)
    columns = torch.arange(1, width + 1, device=like.device, dtype=like.dtype)
    down = step.repeat_interleave(3)[:, None, None] + rows[:, None]
    right = step.repeat(3)[:, None, None] + columns
    return torch.cat([down.expand(-1, -1, width), right.expand(-1, height, -1)])
