"""Names of tensors behind a prefix of a wrapper: ``module.`` of DDP, ``_orig_mod.`` of compile, ``student.`` …."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from garnish.errors import WeightsError

#: this many parts named beside a prefix
_FEW = 3


def without_prefix(
    tensors: Mapping[str, Tensor], known: Collection[str], where: str
) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of one trunk by their own names, wherever a file keeps them.

    Args:
        tensors: what the file holds.
        known: names that the trunk's tensors have in a checkpoint of the trunk alone.
        where: the file, for messages.

    Returns:
        The tensors, without a prefix under which at least half of the known names lie where without it fewer do, and
        without all that lies beside it; and a line that says what was taken off and left out, None where nothing was.

    Raises:
        WeightsError: several prefixes have the trunk's tensors below them (a student and its teacher).
    """
    prefixes = prefixes_of(tensors, known)
    if not prefixes or "" in prefixes:
        return dict(tensors), None
    check_one(prefixes, where)
    prefix = prefixes[0]
    taken = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return taken, said_of(prefix, tensors, where)


def prefixes_of(tensors: Collection[str], known: Collection[str]) -> list[str]:
    """What stands before at least half of the known names, in the order of the file."""
    anchor = next(iter(known), "")
    found = dict.fromkeys(
        name.removesuffix(anchor) for name in tensors if name == anchor or name.endswith(f".{anchor}")
    )
    return [prefix for prefix in found if 2 * sum(prefix + name in tensors for name in known) >= len(known)]


def check_one(prefixes: Collection[str], where: str) -> None:
    """Raise :class:`WeightsError` where there are several prefixes."""
    if len(prefixes) > 1:
        named = " and ".join(repr(prefix) for prefix in prefixes)
        raise WeightsError(
            f"{where}: holds the trunk's tensors more than once, under {named}; "
            "save those of one of them alone, without the prefix"
        )


def said_of(prefix: str, tensors: Collection[str], where: str) -> str:
    """One line: which prefix was taken off, and what lies beside it."""
    beside = [name for name in tensors if not name.startswith(prefix)]
    parts = list(dict.fromkeys(name.split(".", 1)[0] for name in beside))
    others = f"; {len(beside)} tensors beside it are left out ({', '.join(parts[:_FEW])}{', …' * (len(parts) > _FEW)})"
    return f"{where}: names are read without their prefix {prefix!r}{others if beside else ''}"
