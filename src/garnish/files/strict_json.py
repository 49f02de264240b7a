"""Reading untrusted JSON: standard JSON of some megabytes at most, or a one-line error. Nothing here needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

from garnish.errors import BundleError, GarnishError, one_line
from garnish.files.checksums import check_sum

#: Largest file that is read; a description has some kilobytes.
MOST_BYTES = 16 * 2**20


def read_json(
    file: Path, what: str, remedy: str, error_kind: type[GarnishError] = BundleError, *, summed: bool = False
) -> object:
    """The plain content of a JSON file.

    Args:
        file: UTF-8.
        what: what the file is, for messages.
        remedy: what to do if it cannot be read.
        error_kind: raised, with one line, for a file that is missing, too large, not text or not standard JSON.
        summed: check it against ``SHA256SUMS`` beside it.
    """
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise error_kind(f"{file}: {size} bytes are more than a {what} can have; {remedy}")
        data = file.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise error_kind(f"{file}: cannot be read ({one_line(error, 120)}); {remedy}") from error
    if summed:
        check_sum(file, data)
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise error_kind(f"{file}: is damaged ({one_line(error, 120)}); {remedy}") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
