"""One weights file of a stranger, in either format: what it says it holds first, its values when they are wanted.

Nothing is unpickled but tensors, plain values and their containers, and no file makes more than its own size.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from garnish.checking.stored_dtypes import STORED_DTYPES
from garnish.errors import WeightsError, one_line
from garnish.files.pickled_weights import UnfitPickle, check_pickled, is_zipped
from garnish.files.regular import UnfitFile, open_regular
from garnish.files.safetensors_header import MOST_HEADER

SAFETENSORS = ".safetensors"
PICKLED = (".pth", ".pt", ".bin", ".ckpt")
#: Largest weights file, bytes: 25 billion numbers in float32.
MOST_BYTES = 100 * 10**9
#: Most tensors in a file; published trunks have up to 2,000.
MOST_TENSORS = 20_000
#: Several names may hold one tensor; with more than this the file would grow when it is read.
_MOST_GROWTH = 4

#: Keys under which training scripts keep the tensors.
_WRAPPERS = ("state_dict", "model", "teacher")
_HALF = (torch.float16, torch.bfloat16)


@final
@dataclass(frozen=True)
class StoredWeights:
    """What a weights file holds, or a model in memory.

    Attributes:
        file: its path; None: there is none.
        shapes: name → tensor on the device "meta", of the dtype that :meth:`read` gives.
        licence: as its metadata or what lies beside it states; None: not stated.
        values: reads the values.
    """

    file: Path | None
    shapes: Mapping[str, Tensor]
    licence: str | None
    values: Callable[[], dict[str, Tensor]]

    def read(self) -> dict[str, Tensor]:
        """Name → tensor, of a file on the CPU; float16 and bfloat16 converted to float32."""
        return {name: t.float() if t.dtype in _HALF else t for name, t in self.values().items()}


def open_stored(file: Path) -> StoredWeights:
    """Look at a weights file; no value is read yet.

    Raises:
        WeightsError: another suffix, no regular file, a damaged one, or one that holds other objects than tensors.
    """
    if file.suffix == SAFETENSORS:
        return _open_safetensors(file)
    if file.suffix in PICKLED:
        return _open_pickled(file)
    raise WeightsError(f"{file}: weights must be a {SAFETENSORS}, {', '.join(PICKLED)} file")


def read_notes(file: str | Path) -> dict[str, object]:
    """The ``meta`` entry that a training run stored in a ``.pth`` file; empty if there is none."""
    path = Path(file)
    if path.suffix not in PICKLED:
        return {}
    try:
        loaded = _unpickled(path)
    except WeightsError:
        return {}
    notes = loaded.get("meta") if isinstance(loaded, Mapping) else None
    return {str(key): value for key, value in notes.items()} if isinstance(notes, Mapping) else {}


def _unreadable(file: Path, error: BaseException) -> WeightsError:
    return WeightsError(f"{file}: cannot be read ({one_line(error, 120)}); fetch or write it again")


def _open_safetensors(file: Path) -> StoredWeights:
    try:
        with open_regular(file, MOST_BYTES) as stream:
            header = int.from_bytes(stream.read(8), "little")
        if header > MOST_HEADER:
            raise UnfitFile(f"its header would have {header:,} bytes, more than the {MOST_HEADER:,} of any weights")
        with safe_open(file, framework="pt", device="cpu") as opened:  # checks that the offsets cover the file
            metadata = opened.metadata() or {}
            names = list(opened.keys())
            _check_count(file, len(names))
            facts = {name: opened.get_slice(name) for name in names}
            kinds = {name: (str(fact.get_dtype()), list(fact.get_shape())) for name, fact in facts.items()}
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from error
    shapes = {name: _shape(file, name, dtype, shape) for name, (dtype, shape) in kinds.items()}
    licence = metadata.get("license") or metadata.get("licence")

    def values() -> dict[str, Tensor]:
        try:
            with safe_open(file, framework="pt", device="cpu") as opened:
                return {name: opened.get_tensor(name) for name in shapes}
        except (SafetensorError, OSError) as error:
            raise _unreadable(file, error) from error

    return StoredWeights(file, shapes, licence, values)


def _shape(file: Path, name: str, dtype: str, shape: list[int]) -> Tensor:
    kind = STORED_DTYPES.get(dtype)
    try:
        if kind is not None:
            return torch.empty(shape, dtype=torch.float32 if kind in _HALF else kind, device="meta")
    except (RuntimeError, TypeError, ValueError) as error:  # sides that no tensor can have
        raise _unreadable(file, error) from error
    raise WeightsError(f"{file}: {one_line(name, 80)} holds {one_line(dtype, 20)}; save it as float32")


def _open_pickled(file: Path) -> StoredWeights:
    loaded = _unpickled(file)
    for _ in _WRAPPERS:
        entries = loaded if isinstance(loaded, Mapping) else {}
        inner = [entries[key] for key in _WRAPPERS if isinstance(entries.get(key), Mapping)]
        if not inner:
            break
        loaded = inner[0]
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{file}: holds {type(loaded).__name__}, not named tensors; save a state_dict")
    other = [k for k, v in loaded.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    if other:
        kind = type(loaded[other[0]]).__name__
        raise WeightsError(
            f"{file}: {len(other)} of {len(loaded)} entries are not named tensors (first: "
            f"{one_line(repr(other[0]) if isinstance(other[0], str) else type(other[0]).__name__, 80)}, {kind}); "
            "save the state_dict alone"
        )
    tensors: dict[str, Tensor] = dict(loaded)
    _check_count(file, len(tensors))
    held = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors.values()}
    wanted = [t.numel() * t.element_size() for t in tensors.values()]
    own = [t.untyped_storage().nbytes() for t in tensors.values()]
    if any(w > o for w, o in zip(wanted, own, strict=True)) or sum(wanted) > _MOST_GROWTH * sum(held.values()):
        raise WeightsError(f"{file}: its tensors are larger than what it stores of them; save contiguous tensors")
    shapes = {
        name: torch.empty(t.shape, dtype=torch.float32 if t.dtype in _HALF else t.dtype, device="meta")
        for name, t in tensors.items()
    }
    # copies, for the file is mapped and may change
    return StoredWeights(file, shapes, None, lambda: {name: t.detach().clone() for name, t in tensors.items()})


def _unpickled(file: Path) -> object:
    """What a ``.pth`` file holds, its tensors mapped from the file where the format allows that."""
    try:
        check_pickled(file, MOST_BYTES)
        return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipped(file, MOST_BYTES))
    except (pickle.UnpicklingError, UnfitPickle) as error:
        # A damaged file may also end here; the two cannot be told apart without unpickling.
        why = f" ({one_line(error, 120)})" if isinstance(error, UnfitPickle) else ""
        raise WeightsError(
            f"{file}: refused, because it holds objects other than tensors or is damaged{why}; "
            f"save its state_dict alone as {SAFETENSORS}"
        ) from error
    except Exception as error:  # a machine that runs what the file says raises whatever that leads to
        raise _unreadable(file, error) from error


def _check_count(file: Path, count: int) -> None:
    if count > MOST_TENSORS:
        raise WeightsError(f"{file}: holds {count:,} tensors, more than the {MOST_TENSORS:,} of any weights")
