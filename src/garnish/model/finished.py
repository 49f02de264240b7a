"""Finished models: a published SegFormer, encoder and trained decoder, as a :class:`garnish.model.model.Model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from garnish.adapters.reference import Frozen
from garnish.backbones.build import backbone
from garnish.backbones.segformer.config import stated_classes
from garnish.backbones.segformer.finished_names import FINISHED
from garnish.backbones.weights import weights_file
from garnish.checking.arguments import checked
from garnish.checking.plain_data import Json
from garnish.engine.adapter import Method
from garnish.errors import OptionError, shown, suggest
from garnish.heads.segformer import SegFormerHead
from garnish.heads.segformer_names import read_decoder
from garnish.model.model import Model, adapt
from garnish.tasks.semantic import Semantic


@checked
def finished(
    name: str,
    weights: str | bool = True,
    *,
    method: Method | Sequence[Method] | None = None,
    classes: int | Sequence[str] | None = None,
    task: str = "seg",
    options: Mapping[str, Json] | None = None,
) -> Model:
    """A published SegFormer, ready to predict; it can take more tasks (:meth:`Model.add`) or learn another label set.

    Args:
        name: ``segformer_b0`` … ``segformer_b5``.
        weights: True for NVIDIA's ADE20K models from the Hub (non-commercial licence), else a file, a folder or a Hub
            id of a whole SegFormer in the names of NVlabs, transformers 4 or 5.
        method: adapters to put into the encoder for its task; None: none.
        classes: the label set; None: that of the weights, with class names if a ``config.json`` next to them or the
            metadata of NVlabs' training gives them.
            The decoder's projections and fusing layer are always kept, its classifier only if the number of classes
            is that of the weights (ids keep their meaning there).
        task: the task's name.
        options: architecture overrides, as for :func:`garnish.backbone`.

    Returns:
        The model in evaluation mode; ``model.decoders.started`` says what was kept and what is new. For pictures with
        sides that are multiples of 32 its logits are those of transformers or NVlabs, upsampled to the picture's size.

    Raises:
        OptionError: an unknown name or option. WeightsError: weights that cannot be read or hold no whole SegFormer.

    Example:
        >>> model = gn.finished("segformer_b0")  # doctest: +SKIP
        >>> gn.finished("segformer_b9")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        garnish.errors.OptionError: unknown finished model 'segformer_b9'; did you mean ...
    """
    if name not in FINISHED:
        raise OptionError(f"unknown finished model {shown(name)}{suggest(name, FINISHED)}")
    if not weights:
        raise OptionError(f"{name}: a finished model has weights; give a file, a folder or a Hub id, or True")
    trunk = backbone(name, weights, options=options)
    decoder = read_decoder(trunk.weights_source)
    channels, outputs = decoder["fuse.weight"].shape[0], decoder["classifier.weight"].shape[0]
    if classes is None:
        named = stated_classes(weights_file(trunk.weights_source)) or ()
        classes = named if len(named) == outputs else outputs
    labels = classes if isinstance(classes, int) else tuple(classes)
    head = SegFormerHead(channels=channels, init="published")
    return adapt(trunk, method or Frozen(), {task: Semantic(classes=labels)}, head).eval()
