"""What words of a command line stand for, for ``type=`` of argparse: whole numbers and lists of names."""

from __future__ import annotations

import argparse
import re

from garnish.errors import shown


def positive_int(text: str) -> int:
    """Parse a whole number from 1 that floats count exactly, for ``type=``."""
    if not re.fullmatch("0*[1-9][0-9]{0,11}", text):
        raise argparse.ArgumentTypeError(f"{shown(text, 40)} is not a whole number from 1 to 999,999,999,999")
    return int(text)


def some_names(text: str) -> list[str]:
    """As :func:`names`, but at least one and all different; for ``type=``."""
    found = names(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; leave the option out, or name some")
    if twice := [name for name in found if found.count(name) > 1]:
        raise argparse.ArgumentTypeError(f"{twice[0]!r} is named twice; name it once")
    return found


def names(text: str) -> list[str]:
    """Parse a list of names such as ``seg,depth``, for ``type=``."""
    return [name.strip() for name in text.split(",") if name.strip()]
