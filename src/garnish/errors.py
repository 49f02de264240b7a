"""The exceptions of garnish, and helpers for their messages: what happened, which values, what to do, in one line."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class GarnishError(Exception):
    """Base of all errors meant for users; the command line prints its message alone and exits with 2."""


class OptionError(GarnishError, ValueError):
    """A name or an option that does not exist, or a value out of range."""


class DataError(GarnishError, ValueError):
    """A picture, label or data description that cannot be used; the message names the file."""


class BundleError(GarnishError, ValueError):
    """A bundle or checkpoint that does not fit, is incomplete or is damaged."""


class WeightsError(GarnishError, ValueError):
    """Backbone weights that do not fit the architecture, or cannot be read."""


class SiteError(GarnishError, ValueError):
    """An adapter plan that does not fit the backbone (no such site, a site that never ran, a rank too large)."""


class MissingExtraError(GarnishError, ImportError):
    """A feature whose optional dependency is not installed; the message says what to install."""


def remedy_of(error: OSError) -> str:
    """What to do about an error in writing: free space, stop other writers, or check the path."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space"
    others = error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EBUSY)
    return "let no other process write there" if others else "check the path and its rights"


def one_line(text: object, limit: int = 300) -> str:
    """Fold ``text`` into a single line of at most ``limit`` characters (messages of other libraries are long)."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def plural(count: int, noun: str) -> str:
    """``1 picture``, ``2 pictures``, ``3 classes``: a count and what is counted, named in the singular."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}{'es' if noun.endswith(('s', 'x', 'ch', 'sh')) else 's'}"


def suggest(name: str, known: Iterable[str], *, limit: int = 12) -> str:
    """``; did you mean x? available: a, b, c``: the tail of an error about an unknown ``name``."""
    names = sorted(known)
    near = [n for n in names if n.lower() == name.lower()] or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listed = ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" available: {listed or 'none'}"
