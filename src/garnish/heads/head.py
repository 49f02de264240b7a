"""What a head is: it turns the backbone's feature maps into one task's output maps.

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
    """The options of a decoder. Subclasses are frozen dataclasses; :meth:`build` makes the module."""

    #: Whether the decoder wants maps of strides s, 2s, 4s, 8s; a plain ViT's maps of one stride are resampled then.
    pyramid: ClassVar[bool] = False

    @abstractmethod
    def build(self, features: Sequence[FeatureInfo], out_channels: int) -> nn.Module:
        """A module from a list of raw feature maps, each (B, C_i, H_i, W_i), to (B, out_channels, k·H_0, k·W_0).

        k is a whole number: 1 for most; a decoder that ends finer than its finest map has its own.

        Features arrive as the backbone's stages leave them: the module owns its norms.
        Batch norms may be given one value a channel: see :mod:`garnish.heads.layers.batch_norm`.
        Their memory layout varies; give linear layers contiguous inputs, or outputs change when a head is frozen.

        Raises:
            OptionError: where the options do not fit the features.
        """

    def begin(self, module: nn.Module, source: str) -> tuple[Head, str]:
        """Put into a new module what it is to start from, where that is not random.

        Args:
            module: what :meth:`build` gave; filled in place.
            source: where the trunk's weights are from: a file, a folder or a Hub id; "random", "bundled".

        Returns:
            The options that a bundle keeps, which build the same module without that start, and one line that says
            what was taken from where; empty where nothing was.

        Raises:
            WeightsError: what it starts from cannot be read. OptionError: or does not fit the options.
        """
        return self, ""


@dataclass(frozen=True, kw_only=True)
class JointHead(Head):
    """A decoder that several tasks share: the tasks of one ``adapt`` call that name equal options are built as one."""

    #: Whether a task's output depends on other tasks' maps: then all are run where one is asked for.
    interacts: ClassVar[bool] = False

    def build(self, features: Sequence[FeatureInfo], out_channels: int) -> nn.Module:
        """Never called: see :meth:`build_joint`."""
        raise AssertionError("a joint head is built for all its tasks at once")

    @abstractmethod
    def build_joint(self, features: Sequence[FeatureInfo], channels: Mapping[str, int]) -> nn.Module:
        """The module of all tasks of a group.

        A submodule ``task_NAME`` holds what a task has for itself: other tasks' losses are not expected to reach it.

        Args:
            features: of the raw maps, finest first; the same for all tasks.
            channels: task → number of its output maps, in the order of the tasks; at least one task.

        Returns:
            From {task: its maps, finest first, each (B_t, C_i, H_i, W_i)} to {task: (B_t, channels, H_0, W_0)}.
            Tasks that read the trunk alike pass the very same tensors. Where the decoder interacts, every task of the
            group is there, with the same pictures in the same order; otherwise any of them, each with its own number
            of pictures. No row's output may depend on another row's picture in evaluation mode.

        Raises:
            OptionError: where the options do not fit the features.
        """


def by_maps(features: Mapping[str, Sequence[Tensor]]) -> list[tuple[Sequence[Tensor], list[str]]]:
    """Tasks grouped by the maps they read: those that are given the very same tensors stand together."""
    found: list[tuple[Sequence[Tensor], list[str]]] = []
    for task, maps in features.items():
        same = [tasks for given, tasks in found if all(a is b for a, b in zip(given, maps, strict=True))]
        if same:
            same[0].append(task)
        else:
            found.append((maps, [task]))
    return found


#: Scale of each of four equal maps in a pyramid made from a plain ViT (as DPT: stride/4, stride/2, stride, 2·stride).
PYRAMID_SCALES = (4.0, 2.0, 1.0, 0.5)


def is_plain(features: Sequence[FeatureInfo]) -> bool:
    """Whether all maps have one stride, as those of a plain ViT do."""
    return len(features) == len(PYRAMID_SCALES) and len({f.stride for f in features}) == 1


def pyramid_info(features: Sequence[FeatureInfo]) -> tuple[FeatureInfo, ...]:
    """What :func:`resample_pyramid` gives for these features."""
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
