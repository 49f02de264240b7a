"""One narrow decoder that several tasks share, with a small part for each.

Shape letters: B pictures, C the decoder's width, c_i channels of map i, H W the finest grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.checking.bounds import Channels
from garnish.engine.blocks import FeatureInfo
from garnish.engine.open_sizes import ordered
from garnish.errors import OptionError
from garnish.heads.head import JointHead, by_maps


@final
@dataclass(frozen=True, kw_only=True)
class SharedBaseHead(JointHead):
    """One all-MLP base for all tasks; for each task a depthwise and a direct linear part.

    1. Base, shared: LayerNorm and linear c_i→C at every map's own size, bilinear to the finest grid, summed; LayerNorm,
       ReLU, linear C→C. Its norms are per pixel, so that tasks with maps of their own share no statistics.
    2. For each task: depthwise 3×3 + BatchNorm + ReLU, 1×1 convolution to its n outputs.
    3. For each task, with ``direct``: also a linear c_i→n of step 1's normalised maps, resized and summed like them.

    Our own design, after SegFormer's decoder (Xie et al., NeurIPS 2021): adapters are small, so separate decoders
    would be most of what a task adds. Tasks with the same maps (one adapter for all of them) share one run of the base;
    for tasks with maps of their own (VMT-Adapter, adapters per task) it runs once each.

    Why the direct part: all tasks' losses train the base, and the largest dominate. In short runs a task with many
    rare classes learns slowly through it (docs/benchmarks.md, "Do decoders learn"). Its size grows with the outputs.

    Attributes:
        channels: width C of the decoder.
        direct: add a linear layer per task and map, from the map to the outputs.

    Example:
        >>> trunk, tasks = gn.backbone("garnish_b0"), {"depth": gn.Depth()}
        >>> model = gn.adapt(trunk, gn.Frozen(), tasks, gn.SharedBaseHead(channels=16))
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())
        10225
    """

    pyramid: ClassVar[bool] = True

    channels: Channels = 64
    direct: bool = True

    def build_joint(self, features: Sequence[FeatureInfo], channels: Mapping[str, int]) -> SharedBaseDecoder:
        """The decoder of these tasks; raises :class:`OptionError` without features, tasks, or outputs of a task."""
        if not features or not channels or min(channels.values()) < 1:
            raise OptionError(
                f"SharedBaseHead: needs features and outputs, got {len(features)} maps and {dict(channels)}"
            )
        return SharedBaseDecoder([f.channels for f in features], channels, self)


@final
class SharedBaseDecoder(nn.Module):
    """The shared base, and a part for each task."""

    def __init__(self, widths: Sequence[int], outputs: Mapping[str, int], spec: SharedBaseHead) -> None:
        super().__init__()
        self.base = _Base(widths, spec.channels)
        # the prefix avoids clashes of task names with attributes of ModuleDict
        self.parts = nn.ModuleDict({f"task_{t}": _TaskPart(widths, spec, n) for t, n in outputs.items()})

    def forward(self, features: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        """{task: maps (B, c_i, H_i, W_i), finest first}, all or some → {task: (B, its outputs, H, W)}.

        ``torch.export`` fixes which tasks share the same map tensors to what they are in its example.
        """
        out: dict[str, Tensor] = {}
        for maps, tasks in by_maps(features):  # one run of the base at a time, to save memory
            parts = [cast("_TaskPart", self.parts[f"task_{task}"]) for task in tasks]
            h, direct = self.base(maps, [part.direct for part in parts])
            out |= {task: part(h, own) for task, part, own in zip(tasks, parts, direct, strict=True)}
        return {task: out[task] for task in features}


class _Base(nn.Module):
    """LayerNorm, linear c_i→C per map, bilinear to the finest, summed; LayerNorm, ReLU, linear C→C."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for width in widths)
        # no bias: the biases of the norms take its place
        self.projections = nn.ModuleList(nn.Linear(width, channels, bias=False) for width in widths)
        self.norm = nn.LayerNorm(channels)
        self.fuse = nn.Linear(channels, channels)

    def forward(
        self, maps: Sequence[Tensor], direct: Sequence[nn.ModuleList | None]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The base's map, and the tasks' direct outputs.

        Args:
            maps: (B, c_i, H_i, W_i), finest first.
            direct: for each task a linear layer c_i→n per map, or None.

        Returns:
            (B, C, H, W), and for each task (B, n, H, W) or None.
        """
        size = maps[0].shape[-2:]
        total: Tensor | None = None
        for i, (x, norm, project) in enumerate(zip(maps, self.norms, self.projections, strict=True)):
            # the base's weight and those of all tasks together: each map is read once, and resized once
            at_once = [project, *(layers[i] for layers in direct if layers is not None)]
            weight = torch.cat([cast("nn.Linear", layer).weight for layer in at_once])
            # contiguous, as for other layouts torch's order of summation depends on whether the weight is trained
            y = F.linear(norm(x.permute(0, 2, 3, 1).contiguous()), weight).permute(0, 3, 1, 2)
            # in place here and below: allocating costs as much as the sum when the base runs for each of many tasks
            total = y if total is None else total.add_(F.interpolate(y, size, mode="bilinear", align_corners=False))
        assert total is not None
        channels = self.fuse.in_features
        h = self.norm(total[:, :channels].permute(0, 2, 3, 1))
        h = self.fuse(F.relu(h, inplace=True)).permute(0, 3, 1, 2)
        own: list[Tensor | None] = []
        for layers in direct:
            outputs = 0 if layers is None else cast("nn.Linear", layers[0]).out_features
            own.append(total[:, channels : channels + outputs] if outputs else None)
            channels += outputs
        return h, own


class _TaskPart(nn.Module):
    """Depthwise 3×3 + BatchNorm + ReLU, 1×1 to the task's outputs; its direct linear layers, one per map."""

    def __init__(self, widths: Sequence[int], spec: SharedBaseHead, outputs: int) -> None:
        super().__init__()
        channels = spec.channels
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Conv2d(channels, outputs, 1)
        self.direct = nn.ModuleList(nn.Linear(w, outputs, bias=False) for w in widths) if spec.direct else None
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)
        for layer in (self.classifier, *(self.direct or ())):
            nn.init.normal_(cast("nn.Linear", layer).weight, std=0.01)

    def forward(self, h: Tensor, direct: Tensor | None) -> Tensor:
        """The base's map (B, C, H, W) and the direct output (B, outputs, H, W) or None → (B, outputs, H, W)."""
        out: Tensor = self.classifier(F.relu(self.norm(self.depthwise(h)), inplace=True))
        return out if direct is None else out + ordered(direct)
