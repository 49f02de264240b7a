"""What people hold as a source of items: read by index, or once into memory where it gives no item again."""

from __future__ import annotations

import os
import sysconfig
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from garnish.data.dataset import Dataset
from garnish.errors import DataError, GarnishError, OptionError, one_line, shown

#: Folders of installed code, which is not what the author of a class is to mend.
_OF_OTHERS = ("site-packages", sysconfig.get_path("stdlib"))


@final
class IndexedSource:
    """A source that gives item i whenever it is asked; one thread at a time asks it.

    Classes that people write seldom think of threads, and one file that two threads read at once gives either the
    other's bytes.

    Args:
        mine: has ``__len__`` and ``__getitem__``.
        name: for messages.

    Raises:
        DataError: its length cannot be told.
    """

    def __init__(self, mine: Any, name: str) -> None:
        self.mine, self.name = mine, name
        self._lock, self._process = threading.Lock(), os.getpid()
        try:
            self.length = len(mine)
        except Exception as error:  # code of others raises anything
            raise DataError(
                f"{name}: len() of it fails ({_told(error)}); give a data set that knows its length"
            ) from error

    def item(self, index: int) -> Any:
        """Item ``index``.

        Raises:
            DataError: the source raises anything.
        """
        if self._process != os.getpid():  # forked, perhaps while a thread held it
            self._lock, self._process = threading.Lock(), os.getpid()
        with self._lock:
            try:
                return self.mine[index]
            except GarnishError:
                raise
            except Exception as error:  # code of others raises anything
                raise DataError(f"{self.name}[{index}]: reading it fails: {_told(error)}; mend the data set") from error

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _process=os.getpid())


def items_of(mine: Iterable[Any], name: str) -> Iterator[Any]:
    """The items of a source that is read once.

    Raises:
        DataError: the source raises anything.
    """
    count = 0
    try:
        for count, item in enumerate(mine):  # noqa: B007 (for the message)
            yield item
    except GarnishError:
        raise
    except Exception as error:  # code of others raises anything
        raise DataError(f"{name}: reading what follows item {count} fails: {_told(error)}; mend it") from error


def is_indexed(mine: Any, name: str) -> bool:
    """Whether a source gives items by index; False: it can only be gone through.

    Raises:
        OptionError: it is neither, or something that a set is made of in another way.
    """
    if reason := _no_source(mine):
        raise OptionError(f"dataset: {name}: {reason}")
    if isinstance(mine, IterableDataset):  # which torch gives a __getitem__ that raises
        return False
    if hasattr(mine, "__getitem__") and hasattr(mine, "__len__"):
        return not isinstance(mine, set | frozenset)
    if isinstance(mine, Iterable):
        return False
    lacks = "__len__" if hasattr(mine, "__getitem__") else "__getitem__ and no __iter__"
    raise OptionError(f"dataset: {name}: has no {lacks}; give a data set with __len__ and __getitem__, or a list")


def source_name(mine: Any) -> str:
    """What messages call a source: its class."""
    return mine.__name__ if isinstance(mine, type) else type(mine).__name__


def _no_source(mine: Any) -> str:
    """Why a value is no source of items, and what to give; empty: it may be one."""
    if isinstance(mine, Dataset):
        return "is a data set of garnish already; give it to fit as it is"
    if isinstance(mine, type):
        return "is a class; give one of it, with its arguments"
    if isinstance(mine, str | bytes | Path):
        return f"{shown(str(mine))} is a name; gn.folder reads folders"
    if isinstance(mine, DataLoader):
        return "gives batches, which fit makes itself; give its data set, loader.dataset"
    if isinstance(mine, Mapping):
        keys = ", ".join(map(shown, list(mine)[:6]))
        return f"is a dictionary of {keys or 'nothing'}; give one of its splits, or a list of items"
    if isinstance(mine, tuple | list) and len(mine) == 2 and all(_is_stack(one) for one in mine):
        return (
            "is a pair of arrays; give torch.utils.data.TensorDataset(pictures, labels), or list(zip(pictures, labels))"
        )
    if hasattr(mine, "iloc") and hasattr(mine, "columns"):
        return "is a table; give its rows, table.to_dict('records')"
    return ""


def _is_stack(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor) and value.ndim >= 3 and (value.ndim == 4 or len(value) != 3)


def _told(error: BaseException) -> str:
    """Class and text of an error, and where in its author's own code it arose."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)[1:] if not frame.filename.startswith("<")]
    own = [frame for frame in frames if not any(folder in frame.filename for folder in _OF_OTHERS)]
    at = f" ({one_line(f'{own[-1].filename}:{own[-1].lineno}', 160)})" if own else ""
    return f"{type(error).__name__} {one_line(error, 120)}".strip() + at
