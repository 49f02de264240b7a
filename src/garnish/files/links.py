"""Links in folders that strangers made and garnish writes into. Nothing here needs torch."""

from __future__ import annotations

import os
from pathlib import Path

from garnish.errors import BundleError


def check_links(folder: Path) -> None:
    """Raise BundleError if a link in a folder leads out of it: what is written there would land elsewhere."""
    root = os.path.realpath(folder)  # pathlib's resolve raises for links that lead to themselves
    for where, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(where, name)
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                there = folder / path.relative_to(root)
                raise BundleError(f"{there}: is a link out of {folder}; put a copy of what it names in its place")
