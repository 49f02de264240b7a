"""Which blocks of a plain transformer of transformers give the maps that a trunk reads."""

from __future__ import annotations

import re
from collections.abc import Sequence

from garnish.backbones.plain_blocks import tap_ends


def plain_taps(modules: Sequence[str], block: str) -> list[str]:
    """Names of the blocks behind which a trunk's maps are read, the first one first.

    Args:
        modules: names of all modules of a model.
        block: pattern of a block's name.
    """
    blocks = [name for name in modules if re.fullmatch(f"(?:.*\\.)?{block}", name)]
    return [blocks[end - 1] for end in tap_ends(len(blocks))]
