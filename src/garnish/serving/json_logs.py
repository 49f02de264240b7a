"""Log lines of the server: one JSON object a line, or one line for people; never a token, never a picture."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from garnish.errors import LONGEST, one_line, showable
from garnish.output import only_lines

#: Logger → from which level on its lines are shown; that of forms would tell of every broken one, as answers do.
_LEVELS = {
    "": logging.WARNING,
    "garnish": logging.INFO,
    "uvicorn": logging.WARNING,
    "uvicorn.error": logging.WARNING,
    "asyncio": logging.WARNING,
    "python_multipart": logging.ERROR,
    "py.warnings": logging.WARNING,
}


@final
class JsonLines(logging.Formatter):
    """``time`` (UTC), ``level``, ``message``, ``traceback`` of an error, and what a record has as ``facts``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON in ASCII."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "message": one_line(record.getMessage(), LONGEST),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            told["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(told, default=str)


@final
class TextLines(logging.Formatter):
    """The time of day, the message, and facts as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; an error's traceback follows."""
        facts = " ".join(f"{name}={value}" for name, value in getattr(record, "facts", {}).items())
        line = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {one_line(record.getMessage(), LONGEST)}"
        line = showable(f"{line} {facts}".rstrip())
        if record.exc_info and record.exc_info[0] is not None:
            line += "\n" + showable("".join(traceback.format_exception(*record.exc_info)), keep="\n").rstrip()
        return line


@contextmanager
def logging_lines(*, as_json: bool) -> Iterator[None]:
    """Within a ``with`` block all log lines and warnings go to standard error in one form, and no other."""
    with only_lines(JsonLines() if as_json else TextLines(), _LEVELS):
        yield
