"""The exceptions of garnish, and helpers for their messages: what happened, which values, what to do, in one line."""

from __future__ import annotations

import difflib
import errno
import re
import reprlib
import unicodedata
from collections.abc import Callable, Iterable

#: The longest message, in characters.
LONGEST = 2000
#: Categories of characters that a terminal, a log or a page acts on instead of showing them: controls, the marks that
#: turn the direction of text, halves of characters, ends of lines.
_UNSHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")
#: Joiners that Persian, the languages of India and emoji are written with.
_JOINERS = "\u200c\u200d"


class GarnishError(Exception):
    """Base of all errors meant for users; the command line prints its message alone and exits with 2.

    The message is made :func:`one_line` of at most :data:`LONGEST` characters, whatever a stranger's file put into it.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message, LONGEST))


class OptionError(GarnishError, ValueError):
    """A name or an option that does not exist, or a value out of range."""


class DataError(GarnishError, ValueError):
    """A picture, label or data description that cannot be used; the message names the file."""


class BundleError(GarnishError, ValueError):
    """A bundle or checkpoint that does not fit, is incomplete or is damaged."""


class WeightsError(GarnishError, ValueError):
    """Backbone weights that do not fit the architecture, or cannot be read."""


class HubError(GarnishError):
    """What the Hugging Face Hub refuses or lacks, or a network that does not answer; the message names the address."""


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
    """Fold ``text`` into one line of at most ``limit`` characters that can be shown (see :func:`showable`)."""
    whole = str(text)
    line = " ".join(whole[: 8 * limit].split())  # what is behind is left out without being looked at
    if len(line) > limit or len(whole) > 8 * limit:
        line = line[: limit - 1] + "…"
    line = showable(line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def showable(text: str, keep: str = "", escape: Callable[[str], str] | None = None) -> str:
    """``text`` with control characters, marks of direction and lone surrogates escaped as Python does.

    Strangers' text (names of files, classes and licences) is to reach a terminal, a log or a page only in this form.
    Line breaks are escaped too, unless ``keep``, characters that are left as they are, has them. ``escape`` is another
    way than Python's to write a character.
    """
    if text.isprintable():
        return text
    keep += _JOINERS
    return "".join(
        (escape or _escaped)(c) if unicodedata.category(c) in _UNSHOWN and c not in keep else c for c in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


class _Short(reprlib.Repr):
    """Looks at a few entries of a few levels only, so that what grows without bounds when printed is never printed."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxother, self.maxlong = 3, 6, 80, 80
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 6
        self.maxstring = 200

    def repr_str(self, x: str, level: int) -> str:
        return repr(x[: self.maxstring])

    def repr_int(self, x: int, level: int) -> str:
        return f"a whole number of {x.bit_length()} bits" if x.bit_length() > 4096 else repr(x)

    def repr_instance(self, x: object, level: int) -> str:
        return one_line(super().repr_instance(x, level), self.maxother)


_SHORT = _Short()


def shown(value: object, limit: int = 60) -> str:
    """``repr`` of a value in one line of at most ``limit`` characters, shortened before it is made.

    A few aliases in a YAML file of a stranger stand for lists that would fill the memory when printed.
    """
    return one_line(_SHORT.repr(value), limit)


def plural(count: int, noun: str) -> str:
    """``1 picture``, ``2 pictures``, ``3 classes``: a count and what is counted, named in the singular."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}{'es' if noun.endswith(('s', 'x', 'ch', 'sh')) else 's'}"


def with_count(count: int, what: str) -> str:
    """``3 boxes``, ``2 polygons of fewer than 3 points``: :func:`plural` of the noun that ``what`` begins with."""
    noun, *rest = re.split(r" (?=of |without |that )", what, maxsplit=1)
    is_plural = noun.endswith("s") and not noun.endswith("ss")  # as tools name them: "choices"
    return " ".join([f"{count} {noun}" if is_plural else plural(count, noun), *rest])


def suggest(name: str, known: Iterable[str], *, limit: int = 12) -> str:
    """``; did you mean x? available: a, b, c``: the tail of an error about an unknown ``name``."""
    names = sorted(known)
    near = [n for n in names if n.lower() == name.lower()] or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listed = ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" available: {listed or 'none'}"
