"""JSON of strangers: standard JSON of some megabytes at most, or one line. Nothing here needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

from garnish.errors import BundleError, GarnishError, one_line
from garnish.files.checksums import check_sum

#: A description is some kilobytes; more than this is not read.
MOST_BYTES = 16 * 2**20


def read_json(
    file: Path, what: str, remedy: str, error_kind: type[GarnishError] = BundleError, *, summed: bool = False
) -> object:
    """The plain content of a JSON file.

    Args:
        file: UTF-8.
        what: what the file is, for messages.
        remedy: what to do where it cannot be read.
        error_kind: what is raised for one that is missing, too large, no text or no standard JSON; one line.
        summed: it is held against ``SHA256SUMS`` beside it.
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
