"""``gn.dataset``: pictures and labels that somebody holds already, as a data set here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from garnish.checking.arguments import checked
from garnish.checking.plain_data import Json, reals
from garnish.data.held.class_names import compare_names
from garnish.data.held.columns import IMAGE, Column, Columns
from garnish.data.held.held_dataset import HeldDataset
from garnish.data.held.reading import ItemReading
from garnish.data.held.source import IndexedSource, is_indexed, source_name
from garnish.data.held.targets import held_reader
from garnish.errors import OptionError, shown, suggest
from garnish.pictures.bands import RGB_BANDS, Bands
from garnish.tasks.task import Task


@checked
def dataset(
    mine: object,
    tasks: Mapping[str, Task],
    *,
    columns: Mapping[str, Column] | None = None,
    labels: Mapping[str, Mapping[str, Json]] | None = None,
    bands: Bands | None = None,
    name: str | None = None,
    identify: Callable[[int], str] | None = None,
    memory_gb: Annotated[float, reals(0, 1e6, above=True)] = 2.0,
) -> HeldDataset:
    """Take pictures and labels of any source as a data set: your class, torchvision's, Hugging Face's, a list.

    The first four items are read, twice each, and looked at: what is wrong is one line that names the item and the
    task, ``print`` tells what was understood. All later items are checked as they are read.

    >>> import numpy as np
    >>> import garnish as gn
    >>> picture, mask = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    >>> picture[:2], mask[:2] = 200, 1
    >>> data = gn.dataset([(picture, mask)], {"seg": gn.Semantic(classes=["ground", "sky"])})
    >>> data[0].image.shape, data[0].targets["seg"].dtype
    (torch.Size([3, 4, 6]), torch.int64)
    >>> print(data)
    list: 1 item, 8-bit RGB
      image: array uint8 (H, W, 3), 4x6 (height x width)
      seg: array uint8 (H, W), ids 0, 1; Semantic, 1 label in 1 item

    Args:
        mine: with ``__len__`` and ``__getitem__``; or an iterable, which is read once, into memory. Its items are
            ``(picture, target)``, ``(picture, {task: target})`` or dictionaries. Pictures: Pillow's, uint8 or floats
            in [0, 1] as arrays (H, W, 3) or tensors (3, H, W), grey (H, W), or paths. Targets: maps of Pillow's, arrays
            or tensors of what label files hold. None, or no such key: no label for that task.
        tasks: name → task.
        columns: ``image`` or a task → its key, its position in the item, or several of these, one below the other.
        labels: task → options of its labels, as data descriptions have them: ``{"seg": {"ignore": [0]}}``.
        bands: of the pictures, which then hold the numbers of files; None: 8-bit RGB.
        name: in messages; None: the class of ``mine``.
        identify: index → text that changes with the picture or its labels, such as the path of its file; kept features
            (``cache``) need it, and resumed runs compare it.
        memory_gb: what an iterable may take in memory, in 10⁹ bytes.

    Raises:
        OptionError: what is no source of items, or does not fit the tasks.
        DataError: one of the first items is not what its task takes.
    """
    called = name or source_name(mine)
    if not tasks:
        raise OptionError(
            f"dataset: {called}: no tasks; say what its labels are: tasks={{'seg': gn.Semantic(classes=…)}}"
        )
    for task in labels or {}:
        if task not in tasks:
            raise OptionError(f"dataset: labels: unknown task {shown(task)}{suggest(task, tasks)}")
    if IMAGE in tasks:
        raise OptionError("dataset: tasks: 'image' names the picture; call the task otherwise")
    readers = {task: held_reader((labels or {}).get(task, {}), made, task) for task, made in tasks.items()}
    indexed = is_indexed(mine, called)
    reading = ItemReading(dict(tasks), readers, Columns(tuple(tasks), columns or {}), bands or RGB_BANDS)
    compare_names(mine, tasks, reading.columns, called)
    _check_columns(mine, reading.columns, called)
    source = IndexedSource(mine, called) if indexed else None
    made = HeldDataset(called, reading, source, identify)
    if source is None:
        assert isinstance(mine, Iterable), "else it would be read by index"
        made.take_all(mine, int(memory_gb * 1e9))
    else:
        made.look()
    return made


def _check_columns(mine: Any, columns: Columns, name: str) -> None:
    """Raise OptionError for a column that a source which names its columns (``column_names``) has not."""
    known = getattr(mine, "column_names", None)
    if not isinstance(known, list | tuple) or not all(isinstance(one, str) for one in known):
        return
    for entry in (IMAGE, *columns.tasks):
        column = columns.given.get(entry, entry)
        first = column[0] if isinstance(column, tuple) and column else column
        if first not in known:
            raise OptionError(
                f"dataset: {name}: has no column {shown(first)}{suggest(str(first), known)}; write"
                f" columns={{{entry!r}: …}}"
            )
