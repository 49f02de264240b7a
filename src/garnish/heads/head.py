"""Base classes of heads (decoders), of one task or joint for several, and the feature pyramid made from plain ViTs.

Shape letters: B pictures, C channels, H W feature grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from garnish.checking.arguments import Options
from garnish.engine.blocks import FeatureInfo
from garnish.engine.open_sizes import averaged


@dataclass(frozen=True, kw_only=True)
class Head(Options, ABC):
    """The options of a decoder. Subclasses are frozen dataclasses; :meth:`build` makes the module (docs/add-a-head.md).

    Example:
        >>> import torch; from dataclasses import dataclass
        >>> @dataclass(frozen=True, kw_only=True)  # of dataclasses
        ... class Coarsest(gn.Head):
        ...     def build(self, features, out_channels):
        ...         return OfLast(torch.nn.Conv2d(features[-1].channels, out_channels, 1))
        >>> class OfLast(torch.nn.Sequential):
        ...     def forward(self, maps):
        ...         return super().forward(maps[-1])
    """

    #: Whether the decoder needs maps of strides s, 2s, 4s, 8s; a plain ViT's maps of one stride are then resampled.
    pyramid: ClassVar[bool] = False
    #: Whether there is a decoder at all; without one the task's maps are for a decoder of somebody else.
    decodes: ClassVar[bool] = True

    @abstractmethod
    def build(self, features: Sequence[FeatureInfo], out_channels: int) -> nn.Module:
        """A module from a list of raw feature maps, each (B, C_i, H_i, W_i), to (B, out_channels, k·H_0, k·W_0).

        k is an integer: 1 for most, more for a decoder whose output is finer than its finest map.

        Features are the raw outputs of the backbone's stages; norms for them belong to the module.
        Batch norms may get one value per channel: see :mod:`garnish.heads.layers.batch_norm`.
        Memory layouts of maps vary; give linear layers contiguous inputs, or outputs change when a head is frozen.

        Raises:
            OptionError: the options do not fit the features.
        """

    def begin(self, module: nn.Module, source: str) -> tuple[Head, str]:
        """Initialise a new module with published weights, if the options ask for it.

        Args:
            module: made by :meth:`build`; filled in place.
            source: where the trunk's weights are from: a file, a folder or a Hub id; "random", "bundled".

        Returns:
            The options that a bundle stores, which build the same module with random weights, and one line that says
            which weights were loaded; empty if none were.

        Raises:
            WeightsError: the weights cannot be read. OptionError: they do not fit the options.
        """
        return self, ""


@dataclass(frozen=True, kw_only=True)
class JointHead(Head):
    """A decoder that several tasks share: the tasks of one ``adapt`` call with equal options get one module."""

    #: Whether a task's output depends on other tasks' maps; then all tasks run if one is asked for.
    interacts: ClassVar[bool] = False

    def build(self, features: Sequence[FeatureInfo], out_channels: int) -> nn.Module:
        """Not used by joint heads, which are built by :meth:`build_joint`."""
        raise AssertionError("a joint head is built for all its tasks at once")

    @abstractmethod
    def build_joint(self, features: Sequence[FeatureInfo], channels: Mapping[str, int]) -> nn.Module:
        """The module of all tasks of a group.

        A submodule ``task_NAME`` holds the part of one task; other tasks' losses should not reach it.

        Args:
            features: facts of the raw maps, finest first; the same for all tasks.
            channels: task → number of its output maps, in the order of the tasks; at least one task.

        Returns:
            A module from {task: its maps, finest first, each (B_t, C_i, H_i, W_i)} to {task: (B_t, channels, H_0,
            W_0)}. Tasks with the same adapters pass the same tensors. If the decoder ``interacts``, all tasks of the
            group are passed, with the same pictures in the same order; otherwise any of them, each with its own number
            of pictures. In evaluation mode the output for one picture must not depend on other pictures.

        Raises:
            OptionError: the options do not fit the features.
        """


def by_maps(features: Mapping[str, Sequence[Tensor]]) -> list[tuple[Sequence[Tensor], list[str]]]:
    """(maps, tasks) pairs: groups of tasks that read the same tensors."""
    found: list[tuple[Sequence[Tensor], list[str]]] = []
    for task, maps in features.items():
        same = [tasks for given, tasks in found if all(a is b for a, b in zip(given, maps, strict=True))]
        if same:
            same[0].append(task)
        else:
            found.append((maps, [task]))
    return found


#: Scales of a plain ViT's four maps in the pyramid made from them (as in DPT: stride/4, stride/2, stride, 2·stride).
PYRAMID_SCALES = (4.0, 2.0, 1.0, 0.5)


def is_plain(features: Sequence[FeatureInfo]) -> bool:
    """Whether there are four maps of one stride, as from a plain ViT."""
    return len(features) == len(PYRAMID_SCALES) and len({f.stride for f in features}) == 1


def pyramid_info(features: Sequence[FeatureInfo]) -> tuple[FeatureInfo, ...]:
    """Channels and strides of the maps that :func:`resample_pyramid` returns for these features."""
    return tuple(FeatureInfo(f.channels, f.stride / s) for f, s in zip(features, PYRAMID_SCALES, strict=True))


def resample_pyramid(maps: Sequence[Tensor]) -> list[Tensor]:
    """Four maps (B, C, H, W) of one stride → a pyramid: 4H, 2H, H and ⌈H/2⌉ (bilinear up, average pooling down)."""
    out = []
    for x, scale in zip(maps, PYRAMID_SCALES, strict=True):
        if scale > 1:
            x = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
        elif scale < 1:
            x = averaged(x, round(1 / scale))
        out.append(x)
    return out
