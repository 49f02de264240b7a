"""A CNN of timm's as a sequence of modules: how it is built so, and its tensors' names there and in the whole."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import final

import timm
from torch import Tensor, nn

from garnish.backbones.timm_models import whole_timm

#: Those that timm builds as a class of its own unless ``feature_cls="list"`` is given.
_BY_CLASS = ("efficientnet", "mobilenetv3")


def as_sequence(name: str) -> dict[str, object]:
    """What timm is told to build a network as a sequence of modules."""
    told: dict[str, object] = {"features_only": True}
    if any(name.split(".", 1)[0] in timm.list_models(module=module) for module in _BY_CLASS):
        told |= {"feature_cls": "list", "feature_cfg": {"flatten_sequential": True}}
    return told


@final
class CNNNames:
    """Conversion between tensor names in timm's whole network, used by checkpoints, and in the features-only one."""

    def __init__(self, name: str, options: Mapping[str, object]) -> None:
        self.name = name
        self.options = options

    @cached_property
    def whole(self) -> nn.Module:
        """The whole network with its classifier, on the meta device."""
        return whole_timm(self.name, self.options)

    def of(self, theirs: str) -> str:
        """``stages_0.1.conv.weight`` → ``stages.0.1.conv.weight``: timm flattens sequences in features-only mode."""
        head, _, tail = theirs.partition(".")
        for name, module in self.whole.named_children():
            for key, _ in module.named_children() if isinstance(module, nn.Sequential) else ():
                if head == f"{name}_{key}":
                    return f"{name}.{key}.{tail}"
        return theirs

    def path(self, key: str) -> str:
        """``stages_0`` → ``stages.0``."""
        return self.of(f"{key}.").removesuffix(".")

    def as_in(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        """A checkpoint in the features-only names, without layers after the last map; counters may be missing."""
        ours = {self.of(theirs): theirs for theirs in net.state_dict()}
        behind = self.whole.state_dict().keys() - ours.keys()
        read = {ours.get(name, name): tensor for name, tensor in state.items() if name not in behind}
        counters = {n: t for n, t in net.state_dict().items() if n.endswith("num_batches_tracked")}
        return {**counters, **read}
