"""``garnish.backbone``: builds the frozen trunk of a given name, of any family."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Mapping
from typing import Literal

import torch

from garnish import registry
from garnish.backbones.architecture import UNBUILDABLE
from garnish.backbones.backbone import Backbone
from garnish.backbones.stored_weights import MOST_BYTES
from garnish.checking.arguments import checked
from garnish.checking.finite import not_finite
from garnish.checking.machine_memory import machine_bytes
from garnish.checking.plain_data import Json
from garnish.engine.drop_path import set_drop_path
from garnish.errors import GarnishError, OptionError, WeightsError, one_line, shown, suggest

#: The widest padding of picture sides, pixels: what is padded to a multiple of more would be mostly padding.
_MOST_MULTIPLE = 1024
#: A tag of timm's behind a name, such as ``lvd142m``: never a path or an address.
_TAG = re.compile(r"[\w-]+(\.[\w-]+)*")
#: Families, names and options that were tried, and how many are remembered; text of options that is remembered.
_TRIED: dict[tuple[type[Backbone], str, str], None] = {}
_MOST_TRIED, _MOST_TEXT = 1000, 4000


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
        options: architecture overrides, for widths or depths other than those of the name: the fields of the family's
            own dataclass, such as :class:`garnish.backbones.vit.ViTOptions`.
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
        OptionError: an unknown name or option, options that do not go together or ask for more memory than there is,
            or a drop_path for a trunk without residual branches.
        WeightsError: weights that cannot be read, do not fit or are not finite.
    """
    if isinstance(weights, str) and not weights.strip():
        raise OptionError(f"{name}: weights {weights!r} name no file; leave them out for random ones")
    cls = family(name)
    if options:
        _try(cls, name, options)
    built = cls.create(name, weights, dict(options or {}))
    if taps == "merged":
        built.read_merged()
    set_drop_path(built, drop_path)
    named = {built.source_names.get(name, name): tensor for name, tensor in built.frozen_tensors().items()}
    if odd := not_finite(named):
        raise WeightsError(f"{name}: weights {built.weights_source}: {odd}; fetch or train them again")
    built.requires_grad_(False)
    built.eval()
    return built


def _try(cls: type[Backbone], name: str, options: Mapping[str, Json]) -> None:
    """Build a trunk on the device "meta" and run a picture through it, before memory is taken or weights are read.

    Raises:
        OptionError: it cannot be built or run, or its tensors have more bytes than there are.
    """
    on_meta = torch.empty(0).is_meta  # a plan counts trunks that the machine need not hold
    told = f"{name}: with {shown(dict(options), 300)}"
    text = _text(options)
    key = cls, name, f"{on_meta} {text}"
    if text is not None and key in _TRIED:
        return
    try:
        # not implemented: an operator that cannot tell shapes
        with torch.device("meta"), torch.no_grad(), contextlib.suppress(NotImplementedError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is worth telling is told when it is built
            made = cls.create(name, False, dict(options)).eval()
            size = sum(t.numel() * t.element_size() for t in {*made.parameters(), *made.buffers()})
            most = MOST_BYTES if on_meta else min(MOST_BYTES, machine_bytes())
            if size > most:
                holder = "this machine's memory" if most < MOST_BYTES else "any trunk"
                raise OptionError(
                    f"{told} its tensors have {size / 1e9:,.1f} GB, more than the {most / 1e9:,.1f} GB of {holder}; "
                    "make it smaller"
                )
            if made.multiple > _MOST_MULTIPLE:
                raise OptionError(
                    f"{told} sides of pictures would be padded to multiples of {made.multiple:,} pixels, more than "
                    f"{_MOST_MULTIPLE:,}; use smaller patches and reductions"
                )
            made(torch.empty(1, 3, 2 * made.multiple, 2 * made.multiple))
    except GarnishError:
        raise
    except UNBUILDABLE as error:
        why = one_line(error, 200) if str(error) else type(error).__name__
        raise OptionError(f"{told} it cannot be run: {why}; change what does not go together") from None
    if text is not None:
        if len(_TRIED) >= _MOST_TRIED:
            _TRIED.clear()
        _TRIED[key] = None


def _text(options: Mapping[str, Json]) -> str | None:
    """Options as text; None if they are long, or no plain values."""
    text = ""
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        for part in json.JSONEncoder(sort_keys=True).iterencode(dict(options)):  # part by part: text may be endless
            text += part
            if len(text) > _MOST_TEXT:
                return None
        return text
    return None


def family(name: str) -> type[Backbone]:
    """The family that builds ``name``.

    Raises:
        OptionError: no family knows the name; the message gives the nearest ones.
    """
    plain = name.split(".", 1)[0]
    known: list[str] = []
    for cls in registry.classes("backbones").values():
        names = cls.names()  # type: ignore[attr-defined]
        if name in names or (plain in names and _TAG.fullmatch(name)):
            return cls
        known.extend(names)
    raise OptionError(f"unknown backbone {shown(name)}{suggest(name, known, limit=6)}")
