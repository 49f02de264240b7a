"""What must agree before a release (``make release-check``): one version everywhere, a dated part of the changelog."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from garnish import __version__

ROOT = Path(__file__).parents[1]


def wrong(root: Path = ROOT, version: str = __version__) -> list[str]:
    """What is to be done before ``version`` may be tagged; empty: nothing."""
    told = []
    stated = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    cited = re.search(r"^version: (.+)$", (root / "CITATION.cff").read_text("utf-8"), re.M)
    for file, found in (("pyproject.toml", stated), ("CITATION.cff", cited[1] if cited else "none")):
        if found != version:
            told.append(f"{file}: version {found}, but garnish.__version__ is {version}; set them alike")
    changes = (root / "CHANGELOG.md").read_text("utf-8")
    if not re.search(rf"^## {re.escape(version)}, \d{{4}}-\d\d-\d\d$", changes, re.M):
        told.append(f"CHANGELOG.md: no section '## {version}, YEAR-MONTH-DAY'; give the topmost one that title")
    return told


if __name__ == "__main__":
    print(*(wrong() or [f"{__version__}: version and changelog agree"]), sep="\n")
    sys.exit(bool(wrong()))
