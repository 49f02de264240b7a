"""One low-width decoder that several tasks share, with a small part for each.

Shape letters: B pictures, C the decoder's width, c_i channels of map i, H W the finest grid, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast, final

from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.blocks import FeatureInfo
from garnish.errors import OptionError
from garnish.heads.head import JointHead


@final
@dataclass(frozen=True, kw_only=True)
class SharedBaseHead(JointHead):
    """One all-MLP base for all tasks; for each task a low-rank and a depthwise layer and its classifier.

    1. Base, shared: LayerNorm and linear c_i→C at every map's own size, bilinear to the finest grid, summed; LayerNorm,
       ReLU, linear C→C. Its norms are those of a pixel, so that tasks with maps of their own share no statistics.
    2. For each task: h + U V h (V: C→r, U: r→C), depthwise 3×3 + BatchNorm + ReLU, 1×1 convolution to its outputs.

    A design of ours, after SegFormer's decoder (Xie et al., NeurIPS 2021): adapters cost little, so that separate
    decoders would be most of what a task adds. Tasks that read the trunk alike (one adapter for all of them) pass the
    same maps, and the base runs once; with maps of their own (VMT-Adapter's, adapters for each task) it runs for each.

    Attributes:
        channels: width C.
        rank: r of a task's own mix of the base's channels; 0: none.
    """

    channels: int = 64
    rank: int = 8

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise OptionError(f"SharedBaseHead.channels: {self.channels} is out of range; give at least 1")
        if not 0 <= self.rank <= self.channels:
            raise OptionError(
                f"SharedBaseHead.rank: {self.rank} is out of range; give 0 to channels, which is {self.channels}"
            )

    @property
    def pyramid(self) -> bool:
        """True: the decoder joins maps of growing stride."""
        return True

    def build_joint(self, features: Sequence[FeatureInfo], channels: Mapping[str, int]) -> SharedBaseDecoder:
        """The module; raises :class:`OptionError` where there are no features, no tasks, or a task has no outputs."""
        if not features or not channels or min(channels.values()) < 1:
            raise OptionError(
                f"SharedBaseHead: needs features and outputs, got {len(features)} maps and {dict(channels)}"
            )
        return SharedBaseDecoder(features, channels, self.channels, self.rank)


@final
class SharedBaseDecoder(nn.Module):
    """One base, and a part for each task."""

    def __init__(self, features: Sequence[FeatureInfo], outputs: Mapping[str, int], channels: int, rank: int) -> None:
        super().__init__()
        self.base = _Base([f.channels for f in features], channels)
        # the prefix keeps a task's name from being one of ModuleDict's own
        self.parts = nn.ModuleDict({f"task_{t}": _TaskPart(channels, rank, n) for t, n in outputs.items()})

    def forward(self, features: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        """{task: maps (B, c_i, H_i, W_i), finest first}, all or some → {task: (B, its outputs, H, W)}.

        ``torch.export`` takes tensors that are the same in its example to be so for ever, here as everywhere.
        """
        turns: list[tuple[Sequence[Tensor], list[str]]] = []
        for task, maps in features.items():
            same = [tasks for given, tasks in turns if all(a is b for a, b in zip(given, maps, strict=True))]
            if same:
                same[0].append(task)
            else:
                turns.append((maps, [task]))
        out: dict[str, Tensor] = {}
        for maps, tasks in turns:  # one base at a time: those of many tasks are never in memory together
            h = self.base(maps)
            out |= {task: cast("_TaskPart", self.parts[f"task_{task}"])(h) for task in tasks}
        return {task: out[task] for task in features}


class _Base(nn.Module):
    """LayerNorm, linear c_i→C a map, bilinear to the finest, summed; LayerNorm, ReLU, linear C→C."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for width in widths)
        # upsampling keeps constants, so one bias does for all
        self.projections = nn.ModuleList(nn.Linear(width, channels, bias=i == 0) for i, width in enumerate(widths))
        self.norm = nn.LayerNorm(channels)
        self.fuse = nn.Linear(channels, channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, c_i, H_i, W_i), finest first → (B, C, H, W)."""
        size = maps[0].shape[-2:]
        total: Tensor | None = None
        for x, norm, project in zip(maps, self.norms, self.projections, strict=True):
            # contiguous, for torch sums other layouts in an order that depends on whether the weight is trained
            y = project(norm(x.permute(0, 2, 3, 1).contiguous())).permute(0, 3, 1, 2)
            total = y if total is None else total + F.interpolate(y, size, mode="bilinear", align_corners=False)
        assert total is not None
        out: Tensor = self.fuse(F.relu(self.norm(total.permute(0, 2, 3, 1))))
        return out.permute(0, 3, 1, 2)


class _TaskPart(nn.Module):
    """h + U V h, depthwise 3×3 + BatchNorm + ReLU, 1×1 to the task's outputs."""

    def __init__(self, channels: int, rank: int, out_channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, rank, 1, bias=False) if rank else None
        self.up = nn.Conv2d(rank, channels, 1, bias=False) if rank else None
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Conv2d(channels, out_channels, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, H, W) → (B, out_channels, H, W)."""
        if self.down is not None and self.up is not None:
            h = h + self.up(self.down(h))
        out: Tensor = self.classifier(F.relu(self.norm(self.depthwise(h))))
        return out
