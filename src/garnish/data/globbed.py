"""The pictures of a folder that fit a pattern, each with its name."""

from __future__ import annotations

import re
from pathlib import Path

from garnish.data.finding import files_that_fit
from garnish.data.patterns import as_glob, as_regex
from garnish.files.pictures import is_picture_file
from garnish.output import logger

_log = logger(__name__)


def globbed_pictures(root: Path, pattern: str, suffixes: tuple[str, ...], source: str) -> list[tuple[str, Path]]:
    """(name, file) of the pictures that fit a pattern, in no order; endings of other files there are logged.

    Args:
        root: folder that the pattern is relative to.
        pattern: of pictures, ``{split}`` filled; the name is what ``{name}`` stands for, else the stem.
        suffixes: of files that are pictures.
        source: the description, for the log.
    """
    regex = re.compile(as_regex(pattern)) if "{name}" in pattern else None
    found, others = [], set()
    for path in files_that_fit(root, as_glob(pattern)):
        if not is_picture_file(path, suffixes):
            if path.is_file() and not path.name.startswith("."):
                others.add(path.suffix)
            continue
        name = path.stem
        if regex is not None:
            match = regex.fullmatch(path.relative_to(root).as_posix())
            if match is None:
                continue
            name = match["name"]
        found.append((name, path))
    if others:
        _log.info(
            "%s: files that fit %s but end in %s are no pictures and were left out",
            *(source, pattern, ", ".join(sorted(others))),
        )
    return found
