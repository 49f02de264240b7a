"""Whether a trunk can be built with given options, found on the device "meta" before memory is taken."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Mapping

import torch

from garnish.backbones.architecture import UNBUILDABLE
from garnish.backbones.backbone import Backbone
from garnish.backbones.stored_weights import MOST_BYTES
from garnish.checking.machine_memory import machine_bytes
from garnish.checking.plain_data import Json
from garnish.errors import GarnishError, OptionError, one_line, shown

#: The widest padding of picture sides, pixels: what is padded to a multiple of more would be mostly padding.
_MOST_MULTIPLE = 1024
#: Families, names and options that were tried, and how many are remembered; text of options that is remembered.
_TRIED: dict[tuple[type[Backbone], str, str], None] = {}
_MOST_TRIED, _MOST_TEXT = 1000, 4000


def check_buildable(cls: type[Backbone], name: str, options: Mapping[str, Json]) -> None:
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
