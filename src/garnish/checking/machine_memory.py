"""How much memory the machine has. Nothing here needs torch."""

from __future__ import annotations

import os
from pathlib import Path


def machine_bytes() -> int:
    """Bytes of memory of the machine, or the container's limit if that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return total
