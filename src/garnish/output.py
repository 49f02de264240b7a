"""What garnish tells people: lines, consoles, logs. Strangers' text in it is made showable in this one place.

Names of files, classes and tasks, licences and sources come from strangers' files; a terminal acts on the control
characters in them. So nothing else in garnish prints, makes a console or gets a logger.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, final

from garnish.errors import showable

if TYPE_CHECKING:  # rich takes a tenth of a second to import
    from rich.console import Console


def say(*lines: object, stderr: bool = False) -> None:
    """Print lines, each of them one line whatever is in it."""
    for line in lines:
        print(showable(str(line)), file=sys.stderr if stderr else sys.stdout, flush=stderr)


def showable_json(text: str) -> str:
    """JSON text that holds the same with its control characters and marks of direction escaped, line breaks kept."""
    import json  # the command's help does without

    return showable(text, keep="\n", escape=lambda char: json.dumps(char)[1:-1])


def console(*, stderr: bool = False) -> Console:
    """A console of rich for standard output or error that shows text as it is: no markup, no control characters.

    Text that is given as :class:`rich.text.Text` must be showable already.
    """
    from rich.console import Console
    from rich.text import Text

    @final
    class Showing(Console):
        def render_str(self, text: str, **options: object) -> Text:
            return super().render_str(showable(text, keep="\n"), **options)  # type: ignore[arg-type]

    # the stream of now, which may be redirected later: a run's output goes on to where it began
    file = sys.stderr if stderr else sys.stdout
    return Showing(file=file, highlight=False, markup=False, emoji=False, soft_wrap=stderr)


@final
class _Showable(logging.Filter):
    """Makes the message of each record one line that can be shown; never drops one."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = showable(record.getMessage()), ()
        return True


_SHOWABLE = _Showable()


def logger(name: str) -> logging.Logger:
    """The logger of a module. The filter stands here since those of ``garnish`` do not see what its children log."""
    found = logging.getLogger(name)
    found.addFilter(_SHOWABLE)
    return found
