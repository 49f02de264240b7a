"""``garnish.backbone``: builds the frozen trunk of a given name, of any family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from garnish import registry
from garnish.backbones.backbone import Backbone
from garnish.checking.arguments import checked
from garnish.checking.finite import not_finite
from garnish.checking.plain_data import Json
from garnish.engine.drop_path import set_drop_path
from garnish.errors import OptionError, WeightsError, suggest


@checked
def backbone(
    name: str,
    weights: str | bool | None = None,
    *,
    options: Mapping[str, Json] | None = None,
    taps: Literal["stage", "merged"] = "stage",
    drop_path: float = 0.0,
) -> Backbone:
    """Build a backbone and freeze it.

    Args:
        name: a name of any family (``garnish methods`` lists them), e.g. ``vit_small_patch14_dinov2``,
            ``swin_tiny_patch4_window7_224``, ``mit_b0``.
        weights: None for random weights, True for the published ones from the Hub, else a ``.safetensors`` or
            ``.pth`` file (read with ``weights_only=True``) or a Hub id.
        options: architecture overrides, for widths or depths other than those of the name.
        taps: where feature maps are read: "stage": at the end of each stage; "merged": after the patch merging that
            follows it (for decoders such as MTLoRA's; see :meth:`Backbone.read_merged`).
        drop_path: rate of stochastic depth (Huang et al., ECCV 2016) in training, for every method: a residual
            branch is dropped with a probability that grows linearly from 0 in the first block to this in the last, and
            kept branches are divided by the probability of keeping them. 0: a frozen trunk drops nothing; full
            fine-tuning follows the architecture's own option. Each row is drawn separately: per picture, after a fork
            per picture and owner, in streams per picture and task, as if the tasks were trained separately.
            Checkpointing repeats the draws; kept features are refused. Evaluation is not affected, so bundles do not
            store it: set it again to train on. It also acts on frozen tasks of a model in training mode.

    Returns:
        The trunk in evaluation mode; none of its parameters requires a gradient.

    Raises:
        OptionError: an unknown name or option, or a drop_path for a trunk without residual branches.
        WeightsError: weights that cannot be read, do not fit or are not finite.
    """
    built = family(name).create(name, weights, dict(options or {}))
    if taps == "merged":
        built.read_merged()
    set_drop_path(built, drop_path)
    named = {built.source_names.get(name, name): tensor for name, tensor in built.frozen_tensors().items()}
    if odd := not_finite(named):
        raise WeightsError(f"{name}: weights {built.weights_source}: {odd}; fetch or train them again")
    built.requires_grad_(False)
    built.eval()
    return built


def family(name: str) -> type[Backbone]:
    """The family that builds ``name``.

    Raises:
        OptionError: no family knows the name; the message gives the nearest ones.
    """
    plain = name.split(".", 1)[0]
    known: list[str] = []
    for cls in registry.classes("backbones").values():
        names = cls.names()  # type: ignore[attr-defined]
        if name in names or plain in names:
            return cls
        known.extend(names)
    raise OptionError(f"unknown backbone {name!r}{suggest(name, known, limit=6)}")
