"""The files of one prediction: which there are, what they are called, and what is in them.

Shape letters: K classes, H W pixels of the picture.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from garnish.decodings.decoding import Decoding
from garnish.decodings.file_kinds import chosen_kinds


def written_stems(kinds: Iterable[str], tasks: Mapping[str, Any]) -> tuple[str, ...]:
    """What follows ``NAME_`` in the names of the files of one picture, without suffixes, in the order of writing.

    Args:
        kinds: of :data:`garnish.decodings.file_kinds.KINDS`.
        tasks: name → task or decoding, of those that are predicted.
    """
    kinds, stems = chosen_kinds(kinds), []
    if "maps" in kinds:
        stems += list(tasks)
    if "overlays" in kinds:
        stems += [f"{task}_overlay" for task in tasks]
    if "probabilities" in kinds:
        stems += [f"{task}_probabilities" for task, by in tasks.items() if has_shares(by)]
    if "coco" in kinds:
        stems.append("coco")
    if "sheet" in kinds:
        stems.append("sheet")
    return tuple(stems)


def has_shares(by: object) -> bool:
    """Whether a task, or a decoding, has probabilities."""
    decoding = by if isinstance(by, Decoding) else getattr(by, "decoding", None)
    return isinstance(decoding, Decoding) and decoding.are_shares


def has_regions(by: object) -> bool:
    """Whether maps of a task, or a decoding, have classes; also where it is not known, of a task without decoding."""
    decoding = by if isinstance(by, Decoding) else getattr(by, "decoding", None)
    return not isinstance(decoding, Decoding) or type(decoding).class_ids is not Decoding.class_ids


def shares_file(shares: np.ndarray, names: Sequence[str]) -> bytes:
    """``probabilities`` (K, H, W) float16 and ``names`` (K,), which ``numpy.load`` reads without unpickling.

    float16 is within 2.5e-4 of each probability, and finer near 0; float32 would take twice the bytes, most of them
    digits that differ between machines. Deflate is set for speed: what is improbable is most of the file, and cheap.
    """
    data = io.BytesIO()
    np.savez_compressed(data, probabilities=shares.astype(np.float16), names=np.array(names or ["yes"], np.str_))
    return data.getvalue()
