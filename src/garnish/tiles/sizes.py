"""Sizes from which pictures are run in windows, and of those; commands name them in their help."""

from __future__ import annotations

#: Largest picture that ``auto`` runs in one pass: 2048 by 2048. The same on every machine, for a map must not depend on
#: how much memory there is.
WHOLE_PIXELS = 2**22
#: Side of the windows of larger ones.
AUTO_TILE = 1024
