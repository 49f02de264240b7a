"""Removing wrapper prefixes from tensor names: ``module.`` of DDP, ``_orig_mod.`` of compile, ``student.`` …."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from garnish.errors import WeightsError

#: how many of the other parts of a file a message names
_FEW = 3


def without_prefix(
    tensors: Mapping[str, Tensor], known: Collection[str], where: str
) -> tuple[dict[str, Tensor], str | None]:
    """Find the tensors of one trunk in a file and remove their common prefix.

    Args:
        tensors: what the file holds.
        known: names that the trunk's tensors have in a checkpoint of the trunk alone.
        where: the file, for messages.

    Returns:
        All tensors and None, if at least half of the known names are there without a prefix or under none. Otherwise
        only the tensors under the one prefix that has them, without it, and a line that says what was removed.

    Raises:
        WeightsError: the trunk's tensors are there under several prefixes (a student and its teacher).
    """
    prefixes = prefixes_of(tensors, known)
    if not prefixes or "" in prefixes:
        return dict(tensors), None
    check_one(prefixes, where)
    prefix = prefixes[0]
    taken = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return taken, said_of(prefix, tensors, where)


def prefixes_of(tensors: Collection[str], known: Collection[str]) -> list[str]:
    """The prefixes under which at least half of the known names are found, in the order of the file."""
    anchor = next(iter(known), "")
    found = dict.fromkeys(
        name.removesuffix(anchor) for name in tensors if name == anchor or name.endswith(f".{anchor}")
    )
    return [prefix for prefix in found if 2 * sum(prefix + name in tensors for name in known) >= len(known)]


def check_one(prefixes: Collection[str], where: str) -> None:
    """Raise :class:`WeightsError` if there are several prefixes."""
    if len(prefixes) > 1:
        named = " and ".join(repr(prefix) for prefix in prefixes)
        raise WeightsError(
            f"{where}: holds the trunk's tensors more than once, under {named}; "
            "save those of one of them alone, without the prefix"
        )


def said_of(prefix: str, tensors: Collection[str], where: str) -> str:
    """One line for a warning: which prefix was removed, and which other tensors were left out."""
    beside = [name for name in tensors if not name.startswith(prefix)]
    parts = list(dict.fromkeys(name.split(".", 1)[0] for name in beside))
    others = f"; {len(beside)} tensors beside it are left out ({', '.join(parts[:_FEW])}{', …' * (len(parts) > _FEW)})"
    return f"{where}: names are read without their prefix {prefix!r}{others if beside else ''}"
