"""Whether a source can be sent to another process, found without copying what it holds."""

from __future__ import annotations

import multiprocessing
from multiprocessing.reduction import ForkingPickler
from typing import Any, final

import numpy as np
from PIL import Image
from torch import Tensor

from garnish.errors import one_line

#: What is pickled of a source at most, in bytes; behind that the rest is taken to be alike.
_MOST = 2**24


class _EnoughError(Exception):
    pass


@final
class _Counted:
    """Takes bytes and keeps none."""

    def __init__(self) -> None:
        self.taken = 0

    def write(self, data: bytes) -> int:
        self.taken += len(data)
        if self.taken > _MOST:
            raise _EnoughError
        return len(data)


@final
class _WithoutNumbers(ForkingPickler):
    """Passes over arrays, tensors and pictures, which can be sent and would be copied."""

    def reducer_override(self, value: Any) -> Any:
        return (tuple, ()) if isinstance(value, np.ndarray | Tensor | Image.Image) else NotImplemented


def unsendable(value: Any) -> str:
    """Why a value cannot be pickled, which worker processes ask for where they are not forked; empty: it can."""
    try:
        _WithoutNumbers(_Counted()).dump(value)
    except _EnoughError:
        return ""
    except Exception as error:  # code of others raises anything
        return one_line(error, 160)
    return ""


def is_forked() -> bool:
    """Whether worker processes are copies of this one, so that nothing is sent to them."""
    return (multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]) == "fork"
