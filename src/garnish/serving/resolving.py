"""From what a request names to bundles and tasks."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from garnish.errors import OptionError, shown, suggest
from garnish.pictures.bands import Bands
from garnish.serving.asked import Asking
from garnish.serving.engine import Loaded
from garnish.serving.refusals import UnknownBundle

#: Most bundles that one request may ask.
MOST_BUNDLES = 64
_LISTED, _TASKS_LISTED = 6, 12


def bundles_of(asking: Asking, served: Callable[[], Sequence[str]]) -> tuple[str, ...]:
    """The bundles that are asked, each once.

    Where none is named, those of the tasks that name theirs (``street/seg``), if all do; else the only one there is.

    Args:
        asking: the request.
        served: gives the names of all bundles.

    Raises:
        OptionError: none is named, and several or none are served; too many. UnknownBundle: a name that holds several,
            or a task.
    """
    named = dict.fromkeys(asking.bundles)
    for name in named:
        _check_is_one(name)
    if not named and asking.tasks and all("/" in task for task in asking.tasks):
        named = dict.fromkeys(task.partition("/")[0] for task in asking.tasks)
    if len(named) > MOST_BUNDLES:
        raise OptionError(f"bundle: {len(named)} are named, and a request may ask {MOST_BUNDLES}; send several")
    if named:
        return tuple(named)
    names = sorted(served())
    if len(names) == 1:
        return (names[0],)
    if not names:
        raise OptionError("bundle: no bundle is served; add one")
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    raise OptionError(f"bundle: name one or more of {', '.join(names[:_LISTED])}{more}, as bundle={names[0]}")


def _check_is_one(name: str) -> None:
    """Raise UnknownBundle for what no bundle can be called, and somebody may write."""
    if "," in name:
        raise UnknownBundle(
            f"no bundle {shown(name)}: bundle takes one name; repeat it for each (in JSON, give a list)"
        )
    bundle, slash, task = name.partition("/")
    if slash:
        raise UnknownBundle(
            f"no bundle {shown(name)}: a task goes into tasks; give bundle={shown(bundle)[1:-1]} and"
            f" tasks={shown(task)[1:-1]}"
        )


def tasks_by_bundle(asking: Asking, loaded: Sequence[Loaded]) -> tuple[tuple[Loaded, tuple[str, ...]], ...]:
    """The tasks that are asked of each bundle, in the bundle's order; bundles that have none of them are left out.

    Raises:
        OptionError: a task that no bundle has, or one of a bundle that is not asked.
    """
    if not asking.tasks:
        return tuple((bundle, tuple(bundle.decodings)) for bundle in loaded)
    wanted: dict[str, set[str]] = {bundle.name: set() for bundle in loaded}
    known = {bundle.name: bundle for bundle in loaded}
    for entry in asking.tasks:
        name, slash, task = entry.rpartition("/")
        if slash and name not in known:
            raise OptionError(
                f"tasks: {shown(entry)} is of a bundle that is not asked; name it as bundle too, or another"
                f"{suggest(name, known)}"
            )
        having = [bundle for bundle in ([known[name]] if slash else loaded) if task in bundle.decodings]
        if not having:
            raise _unknown_task(entry, task, [known[name]] if slash else loaded)
        for bundle in having:
            wanted[bundle.name].add(task)
    found = ((bundle, tuple(t for t in bundle.decodings if t in wanted[bundle.name])) for bundle in loaded)
    return tuple((bundle, tasks) for bundle, tasks in found if tasks)


def _unknown_task(entry: str, task: str, loaded: Sequence[Loaded]) -> OptionError:
    """The error for a task that none of the asked bundles has; of several, their tasks are told as ``bundle/task``."""
    if len(loaded) == 1:
        return OptionError(f"tasks: unknown task {shown(entry)}{suggest(task, loaded[0].decodings)}")
    near = difflib.get_close_matches(task, {t: None for bundle in loaded for t in bundle.decodings}, n=1, cutoff=0.5)
    names = [f"{bundle.name}/{t}" for bundle in loaded for t in bundle.decodings]
    meant = f" did you mean {near[0]!r}?" if near else ""
    more = f", … ({len(names)} in all)" if len(names) > _TASKS_LISTED else ""
    return OptionError(
        f"tasks: no bundle of those asked has a task {shown(entry)};{meant} available:"
        f" {', '.join(names[:_TASKS_LISTED])}{more}"
    )


def common_bands(loaded: Sequence[Loaded]) -> Bands:
    """The bands that all bundles take; raises OptionError where they take pictures of different ones."""
    first = loaded[0]
    for other in loaded[1:]:
        if other.bands != first.bands:
            told = " and ".join(f"{one.name} takes {_told(one.bands)}" for one in (first, other))
            raise OptionError(f"bundle: {told}, and no picture is both; send one request for each")
    return first.bands


def _told(bands: Bands) -> str:
    if bands.is_rgb:
        return "8-bit RGB"
    names = ", ".join(bands.names[:_LISTED]) + (", …" if len(bands.names) > _LISTED else "")
    return f"{len(bands.names)} bands ({names}) of their range"
