"""What people give to our functions in place of what is meant, by the names of classes, and what to give instead.

Names, since nothing here imports torch, Lightning or a room above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args


def remedy_for(value: object, hint: object) -> str:
    """``; give …``, for a known mistake; else empty.

    Args:
        value: what was given in place of what ``hint`` says, or a list that holds it.
        hint: an annotated type.
    """
    wanted = _names_in(hint)
    for ours, remedy in _REMEDIES.items():
        if ours in wanted:
            if _is_a(value, ours):  # which is wrong only where several are meant
                return "; give a list of it"
            odd = [one for one in _entries(value) if not _is_a(one, ours)]
            told = remedy(odd[0]) if odd else ""
            return f"; {told}" if told else ""
    return ""


def _entries(value: object) -> Sequence[object]:
    """What a list or a mapping holds; any other value alone."""
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list | tuple) else [value]


def _is_a(value: object, ours: str) -> bool:
    return any(base.__name__ == ours and base.__module__.startswith("garnish.") for base in type(value).__mro__)


def _names_in(hint: object) -> set[str]:
    """Names of the classes that a type is made of."""
    inner = get_args(hint)
    return {name for one in inner for name in _names_in(one)} if inner else {getattr(hint, "__name__", "")}


def _names_of(value: object) -> Sequence[str]:
    return [base.__name__ for base in type(value).__mro__]


def _for_model(value: Any) -> str:
    if "Module" not in _names_of(value):
        return ""
    held = next((name for name, part in value.named_children() if _is_a(part, "Model")), "")
    return f"give the garnish model that it holds, .{held}" if held else ""


def _for_data(value: Any) -> str:
    names = _names_of(value)
    if "DataLoader" in names:
        return "give its data set, for batches are made here"
    if "Subset" in names and _is_a(value.dataset, "Dataset"):
        return "write garnish.data.subset.Subset(data, indices) instead of torch's"
    return "wrap it: gn.dataset(yours, tasks=…)" if hasattr(value, "__getitem__") else ""


def _for_callback(value: Any) -> str:
    if isinstance(value, type):
        return f"give an object of the class: {value.__name__}(…)"
    names = _names_of(value)
    if "EarlyStopping" in names:
        return "patience=… ends a run early"
    if "ModelCheckpoint" in names:
        return "out=… keeps the best bundle and the last checkpoint"
    return ""


def _for_head(value: Any) -> str:
    if "Module" not in _names_of(value):
        return ""
    return "wrap the module as a head (docs/add-a-head.md), or give gn.NoHead() and run it on model.features yourself"


#: Name of the class that is meant → what to do about a value that stands in its place, or about an entry of a list.
_REMEDIES = {"Model": _for_model, "Dataset": _for_data, "Callback": _for_callback, "Head": _for_head}
