"""Making faults of what checks have found: several files in one fault, the worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from garnish.checking.plain_data import Json
from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level


def fault_about(
    check: type[Check],
    concerned: Sequence[Seen],
    message: str,
    remedy: str,
    *,
    tasks: tuple[str, ...],
    level: Level | None = None,
) -> Fault:
    """One fault with a message of its own, about labels of the first of some tasks in all splits together.

    Args:
        check: that found it.
        concerned: the pictures, the worst first.
        message: whole.
        remedy: what to do.
        tasks: names of the tasks.
        level: None: the check's.
    """
    return Fault(
        check=check.name,
        level=level or check.level,
        message=message,
        remedy=remedy,
        tasks=tasks,
        files=tuple(str(one.labels[tasks[0]]) for one in concerned),
        names=tuple(one.name for one in concerned),
    )


def fault_of(
    check: type[Check],
    found: Sequence[tuple[float, Seen]],
    what: str,
    remedy: str,
    *,
    of: int,
    tasks: tuple[str, ...] = (),
    level: Level | None = None,
    fix: str | None = None,
    write: Mapping[str, Json] | None = None,
) -> Fault:
    """One fault about several pictures, or their labels of the first of some tasks.

    Args:
        check: that found it.
        found: how bad it is (any scale), and the picture; at least one.
        what: about the worst, in words that follow the file.
        remedy: what to do.
        of: how many were looked at.
        tasks: names of the tasks; empty: pictures.
        level: None: the check's.
        fix: as in :class:`Fault`.
        write: as in :class:`Fault`.
    """
    ordered = [seen for _, seen in sorted(found, key=lambda one: -one[0])]
    files = [str(one.labels[tasks[0]] if tasks else one.file) for one in ordered]
    splits = {one.split for one in ordered}
    noun = f"labels of {tasks[0]}" if tasks else "pictures"
    return Fault(
        check=check.name,
        level=level or check.level,
        message=f"{files[0]}: {what} ({len(files)} of {of} {noun})",
        remedy=remedy,
        split=splits.pop() if len(splits) == 1 else None,
        tasks=tasks,
        files=tuple(files),
        names=tuple(one.name for one in ordered),
        fix=fix,
        write=write or {},
    )
