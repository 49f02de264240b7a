"""``garnish.backbone``: a name → a frozen trunk, whatever family it is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from garnish import registry
from garnish.backbones.backbone import Backbone
from garnish.checking.arguments import checked
from garnish.checking.finite import not_finite
from garnish.engine.drop_path import set_drop_path
from garnish.errors import OptionError, WeightsError, suggest


@checked
def backbone(
    name: str,
    weights: str | bool | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    taps: Literal["stage", "merged"] = "stage",
    drop_path: float = 0.0,
) -> Backbone:
    """Build a backbone and freeze it.

    Args:
        name: a name of any family (``garnish methods`` lists them), e.g. ``vit_small_patch14_dinov2``,
            ``swin_tiny_patch4_window7_224``, ``mit_b0``.
        weights: None for random weights, True for the published ones from the Hub, else a ``.safetensors`` or
            ``.pth`` file (read with ``weights_only=True``) or a Hub id.
        options: architecture overrides, for other widths or depths than the name says.
        taps: where feature maps are read: at the end of each stage, or after the patch merging that follows it
            (decoders of the MTLoRA line; see :meth:`Backbone.read_merged`).
        drop_path: rate of stochastic depth (Huang et al., ECCV 2016) in training, whichever method trains: a residual
            branch is left out with a probability that grows linearly from 0 in the first block to this in the last, and
            what stays is divided by the rest. 0: a frozen trunk drops nothing, and full fine-tuning what the
            architecture's own option says. Each row draws for itself: a picture, from where rows fork a picture and
            owner, in streams a picture and task, as tasks trained apart would. Checkpointing repeats the draws. Kept
            features are refused. Evaluation is untouched, so bundles do not hold it: whoever trains on says it again.
            Frozen tasks that a model in training mode is asked for are under it too.

    Returns:
        The trunk in evaluation mode, no parameter of which requires a gradient.

    Raises:
        OptionError: an unknown name or option, or a drop_path that the trunk has no place for.
        WeightsError: weights that cannot be read, do not fit or are not finite.
    """
    built = family(name).create(name, weights, dict(options or {}))
    if taps == "merged":
        built.read_merged()
    set_drop_path(built, drop_path)
    named = {built.source_names.get(name, name): tensor for name, tensor in built.frozen_tensors().items()}
    if odd := not_finite(named):
        raise WeightsError(f"{name}: weights {built.weights_source}: {odd}; fetch or train them anew")
    built.requires_grad_(False)
    built.eval()
    return built


def family(name: str) -> type[Backbone]:
    """The family that builds ``name``.

    Raises:
        OptionError: no family knows it; the message gives the nearest names.
    """
    plain = name.split(".", 1)[0]
    known: list[str] = []
    for cls in registry.classes("backbones").values():
        names = cls.names()  # type: ignore[attr-defined]
        if name in names or plain in names:
            return cls
        known.extend(names)
    raise OptionError(f"unknown backbone {name!r}{suggest(name, known, limit=6)}")
