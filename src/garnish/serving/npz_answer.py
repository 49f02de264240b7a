"""The answer of a server as ``.npz``, read without trust: every size is compared before there is an array of it.

Shape letters: H W pixels.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, cast, final

import numpy as np

from garnish.checking.plain_data import Json
from garnish.decodings.decoding import Decoding
from garnish.errors import DataError, OptionError, shown
from garnish.files.npy_header import npy_header
from garnish.files.strict_json import MOST_BYTES, parse_json
from garnish.registry import build

#: Name of the array of bytes that says what the others are.
_ANSWER = "answer.json"


@final
@dataclass(frozen=True, eq=False)
class BundleMaps:
    """The maps of one bundle.

    Attributes:
        tasks: task → what its map means.
        maps: task → the decoded map.
        confidence: task → (H, W) float32, where it was asked for.
    """

    tasks: Mapping[str, Decoding]
    maps: Mapping[str, np.ndarray]
    confidence: Mapping[str, np.ndarray]


def read_npz_answer(data: bytes, size_for: Callable[[str], tuple[int, int]]) -> dict[str, BundleMaps]:
    """Bundle → its maps.

    Args:
        data: the answer's body.
        size_for: bundle → (H, W) of the picture as that bundle takes it.

    Raises:
        DataError: maps of another size, or of a decoding that is not installed here.
        Exception: what zipfile and NumPy raise of damaged archives, which is anything.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        told: Json = parse_json(npz_array(archive, _ANSWER, None, np.dtype(np.uint8)).tobytes())
        size, found = (told["picture"]["height"], told["picture"]["width"]), {}
        for bundle, facts in told["bundles"].items():
            if size != (own := size_for(bundle)):
                raise DataError(
                    f"the server saw a picture of {shown(size[1])}x{shown(size[0])}, here it has {own[1]}x{own[0]};"
                    " give its file"
                )
            tasks = {task: _decoding(one["decoding"], f"{bundle}/{task}") for task, one in facts.items()}
            maps = {task: _map(archive, f"{bundle}/{task}", decoding, own) for task, decoding in tasks.items()}
            sure = {task: f"{bundle}/{task}.confidence" for task in tasks}
            kept = {task: name for task, name in sure.items() if f"{name}.npy" in archive.NameToInfo}
            shares = {task: npz_array(archive, name, own, np.dtype(np.float32)) for task, name in kept.items()}
            found[bundle] = BundleMaps(tasks, maps, shares)
    return found


def _map(archive: zipfile.ZipFile, name: str, decoding: Decoding, size: tuple[int, int]) -> np.ndarray:
    """A map of the axes and dtype that its decoding gives."""
    like = decoding.decode(np.zeros((decoding.channels, 1, 1), np.float32))
    return npz_array(archive, name, (*like.shape[:-2], *size), like.dtype)


def _decoding(told: Json, at: str) -> Decoding:
    """What a map means, of the decodings that are installed here."""
    try:
        made: Decoding = build("decodings", told["name"], told["options"])
    except OptionError as error:
        raise DataError(f"{at}: {error}") from error
    return made


def npz_array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...] | None, dtype: np.dtype) -> np.ndarray:
    """An array of an archive, of this shape and dtype, which are compared before there is one.

    Args:
        archive: as ``numpy.savez`` writes it.
        name: of the array.
        shape: None: bytes of any number, of a description's size at most.
        dtype: likewise.

    Raises:
        ValueError, KeyError, zipfile.BadZipFile: it is another, or not there.
    """
    with archive.open(f"{name}.npy") as member:
        found, by_columns, kind = npy_header(cast(BinaryIO, member))
        if shape is None and len(found) == 1 and found[0] <= MOST_BYTES:
            shape = found
        if found != shape or kind != dtype:
            raise ValueError(f"{shown(name)} is {shown(found)} {kind}, where {shown(shape)} {dtype} is meant")
        size = math.prod(found) * dtype.itemsize
        data = member.read(size)
    if len(data) != size:
        raise ValueError(f"{shown(name)} ends early")
    return np.frombuffer(data, dtype).reshape(found, order="F" if by_columns else "C")
