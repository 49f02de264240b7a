"""Old names: kept for some releases after there is a better one, with a warning where they are used.

A warning is a :class:`FutureWarning`, which Python shows to everyone, not only to who runs tests: old names stand in
scripts and recipes of people who run none. It points to the line outside of garnish that uses the name, and Python
shows it once for each line. What is told has one form, which :func:`deprecated` reads: ``write NEW; since 0.1, gone in
0.3``. A test holds that nothing is kept in the release in which it is to be gone.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

from garnish.errors import showable

_PACKAGE = str(Path(__file__).parents[1])
_FORM = re.compile(r"write (?P<new>.+); since (?P<since>\d+\.\d+), gone in (?P<gone>\d+\.\d+)")

C = TypeVar("C", bound=Callable[..., Any])


@final
@dataclass(frozen=True)
class OldName:
    """What is kept.

    Attributes:
        name: of the function, class, attribute or option.
        new: what to write instead.
        since: release that brought the new one, ``major.minor``.
        gone: release that has the old one no longer.
    """

    name: str
    new: str
    since: str
    gone: str

    def warn(self) -> None:
        """Tell the line outside of garnish that uses it."""
        told = f"garnish: {self.name} is an old name; write {self.new} (since {self.since}, gone in {self.gone})"
        frame, level = sys._getframe(1), 2
        while frame.f_back is not None and frame.f_code.co_filename.startswith((_PACKAGE, "<string>")):
            frame, level = frame.f_back, level + 1
        warnings.warn(showable(told), FutureWarning, stacklevel=level)


#: Every old name of the modules that are imported.
KEPT: list[OldName] = []


def _kept(name: str, told: str) -> OldName:
    form = _FORM.fullmatch(told)
    if form is None:
        raise ValueError(f"{name}: {told!r} is not of the form 'write NEW; since 0.1, gone in 0.3'")
    KEPT.append(OldName(name, **form.groupdict()))
    return KEPT[-1]


if TYPE_CHECKING:
    # PEP 702: type checkers know this one, and show its text where an old name is used
    from typing_extensions import deprecated as deprecated
else:

    def deprecated(told: str) -> Callable[[C], C]:
        """Decorate a function, a class or the functions of a property that is kept under an old name.

        Args:
            told: ``write NEW; since 0.1, gone in 0.3``, a literal, which type checkers show too (PEP 702).

        Raises:
            ValueError: another form.
        """

        def decorate(old: C) -> C:
            kept = _kept(old.__qualname__, told)
            function = old.__init__ if inspect.isclass(old) else old

            @functools.wraps(function)
            def call(*args: object, **given: object) -> object:
                kept.warn()
                return function(*args, **given)

            if not inspect.isclass(old):
                return call
            old.__init__ = call
            return old

        return decorate


def deprecated_option(option: str, told: str) -> Callable[[C], C]:
    """Decorate a function, or a dataclass of options, that takes one more keyword under an old name.

    Its default says that it was not given: an old file that lists all options with their defaults warns nobody. Type
    checkers have no word for it.

    Args:
        option: its name.
        told: as for :func:`deprecated`.
    """

    def decorate(old: C) -> C:
        kept = _kept(f"{old.__qualname__}: {option}", told)
        named: Any = old
        function: Callable[..., Any] = named.__init__ if inspect.isclass(old) else old
        unset = inspect.signature(function).parameters[option].default

        @functools.wraps(function)
        def call(*args: object, **given: object) -> object:
            if given.get(option, unset) != unset:
                kept.warn()
            return function(*args, **given)

        if not inspect.isclass(old):
            return call  # type: ignore[return-value]
        named.__init__ = call
        return old

    return decorate
