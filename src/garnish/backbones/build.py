"""``garnish.backbone``: builds the frozen trunk of a given name, or of a model that somebody holds, of any family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import nn

from garnish.backbones.backbone import Backbone
from garnish.backbones.given_model import trunk_of
from garnish.backbones.hub_names import is_hub_name, on_hub
from garnish.backbones.named_trunk import named_trunk
from garnish.checking.arguments import checked, named_elsewhere
from garnish.checking.plain_data import Json
from garnish.engine.drop_path import set_drop_path


@checked
@named_elsewhere(
    in_chans="a trunk takes red, green and blue; say which bands pictures have in gn.adapt(…, bands=gn.Bands(…))",
    pretrained="the published weights are weights=True",
    features_only="every trunk gives feature maps; leave it out",
)
def backbone(
    name: str | nn.Module,
    weights: str | bool | None = None,
    *,
    options: Mapping[str, Json] | None = None,
    taps: Literal["stage", "merged"] = "stage",
    drop_path: float = 0.0,
) -> Backbone:
    """Build a backbone and freeze it.

    Args:
        name: a name of any family (``garnish methods`` lists them), e.g. ``vit_small_patch14_dinov2``,
            ``swin_tiny_patch4_window7_224``, ``mit_b0``; an id of the Hub (``hf-hub:owner/name``), whose
            ``config.json`` says architecture and options; or a model of timm or transformers (float32), of which a
            trunk is made that gives the same maps (docs/models.md). The model stays as it is.
        weights: None for random weights, True for the published ones from the Hub, else a ``.safetensors`` or
            ``.pth`` file (read with ``weights_only=True``) or a Hub id. With an id as the name, None and True are that
            repository's. With a model, where its tensors are found again, which is read and compared; None: nowhere.
        options: architecture overrides, for widths or depths other than those of the name: the fields of the family's
            own dataclass, such as :class:`garnish.backbones.vit.ViTOptions`. With a model, what cannot be read off it.
        taps: where feature maps are read: "stage": at the end of each stage; "merged": after the patch merging that
            follows it (for decoders such as MTLoRA's; see :meth:`Backbone.read_merged`).
        drop_path: rate of stochastic depth (Huang et al., ECCV 2016) in training, for every method: a residual
            branch is dropped with a probability that grows linearly from 0 in the first block to this in the last, and
            kept branches are divided by the probability of keeping them. 0: a frozen trunk drops nothing; full
            fine-tuning follows the architecture's own option, and then a model's own rate. Each row is drawn
            separately: per picture, after a fork per picture and owner, in streams per picture and task, as if the
            tasks were trained separately. Checkpointing repeats the draws; kept features are refused. Evaluation is
            not affected, so bundles do not store it: set it again to train on. It also acts on frozen tasks of a model
            in training mode.

    Returns:
        The trunk in evaluation mode; none of its parameters requires a gradient.

    Raises:
        OptionError: an unknown name or option, options that do not go together or ask for more memory than there is,
            a drop_path for a trunk without residual branches, or a model that no family builds or of other maps.
        WeightsError: weights that cannot be read, do not fit, are not finite or are not the model's.

    Example:
        >>> gn.backbone("vit_tiny_patch16_224", options={"depth": 4}).name  # random weights
        'vit_tiny_patch16_224'
    """
    if isinstance(name, nn.Module):
        built = trunk_of(name, weights, options or {}, drop_path)
    elif is_hub_name(name):
        found = on_hub(name)
        source = found.weights if weights is None or weights is True else weights
        built = named_trunk(found.name, source, {**found.options, **(options or {})})
    else:
        built = named_trunk(name, weights, options or {})
    if taps == "merged":
        built.read_merged()
    set_drop_path(built, drop_path)
    return built
