"""Reading untrusted JSON: standard JSON of some megabytes at most, or a one-line error. Nothing here needs torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal, NoReturn

from garnish.checking.plain_data import Json
from garnish.errors import BundleError, GarnishError, one_line, shown
from garnish.files.checksums import check_sum
from garnish.files.regular import read_regular

#: Largest file that is read; a description has some kilobytes.
MOST_BYTES = 16 * 2**20


def read_json(
    file: Path,
    what: str,
    remedy: str,
    error_kind: type[GarnishError] = BundleError,
    *,
    summed: bool | Literal["if listed"] = False,
) -> object:
    """The plain content of a JSON file.

    Args:
        file: UTF-8.
        what: what the file is, for messages.
        remedy: what to do if it cannot be read.
        error_kind: raised, with one line, for a file that is missing, too large, not text or not standard JSON.
        summed: check it against ``SHA256SUMS`` beside it; "if listed": if that names it.
    """
    try:
        data = read_regular(file, MOST_BYTES)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise error_kind(f"{file}: cannot be read ({one_line(error, 120)}); {remedy}") from error
    if summed:
        check_sum(file, data, listed=summed is True)
    try:
        return parse_json(text)
    except ValueError as error:
        raise error_kind(f"{file}: is damaged ({one_line(error, 120)}); {remedy}") from error


def parse_json(text: str | bytes, *, finite: bool = True) -> object:
    """The plain content of JSON text whose size is bounded already.

    Args:
        text: UTF-8 if bytes.
        finite: refuse NaN and infinities, which standard JSON lacks.

    Raises:
        ValueError: not JSON, nested too deeply, or a key that stands twice.
    """
    try:
        if not finite:
            return json.loads(text, object_pairs_hook=_once)
        return json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """A mapping; readers differ in which of two entries with one key they take, so neither is."""
    made: dict[str, Json] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"key {shown(key)} stands twice")
        made[key] = value
    return made


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{one_line(text, 40)} is beyond all floats")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
