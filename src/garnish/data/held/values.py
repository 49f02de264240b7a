"""What people hold a picture or a label in: Pillow's pictures, arrays, tensors, files and their bytes.

Shape letters: H W pixels, C bands.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from garnish.errors import DataError, one_line
from garnish.files.path_text import given_path
from garnish.files.picture_header import FORMATS, lossy, stored
from garnish.files.pictures import ONE_BAND, PictureBytes, damaged

#: Types of tensors that NumPy has not, or that are too coarse to be calculated with.
_COARSE = (torch.float16, torch.bfloat16)


def file_of(value: Any, where: str, *, label: bool) -> Path | PictureBytes | None:
    """The file that a value stands for, to be read as those of folders are; None: it stands for none.

    A path; ``{"bytes": …, "path": …}`` of a picture that was not decoded; or a picture that Pillow has opened and not
    yet decoded, where its file says more than Pillow will tell, or is one that is refused.

    Args:
        value: any.
        where: the item, for messages.
        label: whether it is to be a label.

    Raises:
        DataError: an impossible path, a damaged file.
    """
    if isinstance(value, str | Path):
        return given_path(value, where, DataError)
    if isinstance(value, Mapping) and {"bytes", "path"} == set(value):
        data, path = value["bytes"], value["path"]
        if isinstance(data, bytes):
            return PictureBytes(data, where)
        return None if path is None else given_path(path, where, DataError)
    if (stream := _undecoded(value)) is None or value.format not in FORMATS:
        return None
    with _kept_place(stream):
        stream.seek(0)
        data = stream.read()
    try:
        # opened anew, for asking some files for their orientation decodes them
        with Image.open(io.BytesIO(data), formats=(value.format,)) as again:
            facts = stored(again, io.BytesIO(data))
    except Exception as error:  # damaged files make Pillow raise anything
        raise damaged(where, error) from error
    plain = facts.bits in (1, 8) or (facts.bits == 16 and facts.mode in ONE_BAND and not facts.unsigned)
    turned_by_pillow = facts.format == "TIFF" and facts.orientation != 1
    if plain and not turned_by_pillow and not facts.refused(label=label):
        return None  # it is decoded as it stands, which closes its file
    return PictureBytes(data, where)


def lossy_of(image: Image.Image) -> str | None:
    """The lossy compression that a picture of Pillow's came through; None: there was none, or nothing tells."""
    if (stream := _undecoded(image)) is None:
        return "JPEG" if image.format in ("JPEG", "MPO") else None
    with _kept_place(stream):
        return lossy(image, stream)


def _undecoded(value: Any) -> Any:
    """The stream of a picture that Pillow has opened and not yet decoded; None: it is no such."""
    if not isinstance(value, ImageFile.ImageFile) or not value.tile or value.fp is None:
        return None
    return None if getattr(value, "decoderconfig", ()) else value.fp  # a JPEG that is to be decoded at another size


@contextmanager
def _kept_place(stream: Any) -> Iterator[None]:
    """A stream is where it was after a ``with`` block."""
    place = stream.tell()
    try:
        yield
    finally:
        stream.seek(place)


def numbers_of_value(value: Any, where: str) -> np.ndarray | None:
    """The numbers of an array of any library, a tensor, or of lists in lists; None: it is none of these.

    Raises:
        DataError: a tensor without numbers (meta, sparse), lists of unequal lengths, anything but plain numbers.
    """
    if isinstance(value, Tensor):
        if value.is_meta or value.layout != torch.strided:
            raise DataError(
                f"{where}: a tensor without numbers of its own ({value.device}, {value.layout}); give others"
            )
        plain = value.detach().as_subclass(Tensor).cpu()
        found = (plain.float() if plain.dtype in _COARSE else plain).numpy()
    elif isinstance(value, np.ndarray):
        found = np.asarray(value.astype(np.float32) if value.dtype == np.float16 else value)
    elif isinstance(value, list | tuple) or hasattr(value, "__array__"):
        try:
            found = np.asarray(value)
        except ValueError as error:
            raise DataError(f"{where}: numbers of no one shape ({one_line(error, 80)}); give an array") from None
    else:
        return None
    if found.dtype.kind not in "buif" or found.dtype.itemsize > 8:
        raise DataError(
            f"{where}: holds {one_line(found.dtype, 60)}, which are no plain numbers; give whole ones or floats"
        )
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def kind_of(value: Any) -> str:
    """How a value is held, in a few words."""
    if isinstance(value, Image.Image):
        return f"Pillow's {value.mode}"
    if isinstance(value, Tensor):
        return f"tensor {str(value.dtype).removeprefix('torch.')} {_letters(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {_letters(value.shape)}"
    if isinstance(value, str | Path):
        return "file"
    return "bytes of a file" if isinstance(value, Mapping) else type(value).__name__


def _letters(shape: Any) -> str:
    """A shape with sides of pictures as letters: (3, H, W)."""
    sides = [str(side) for side in shape]
    if len(sides) == 2:
        return "(H, W)"
    if len(sides) != 3:
        return f"({', '.join(sides)})"
    return f"({sides[0]}, H, W)" if int(shape[0]) < int(shape[2]) else f"(H, W, {sides[2]})"
