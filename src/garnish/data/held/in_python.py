"""What messages call options of data descriptions, as people write them who hold their data in Python."""

from __future__ import annotations

import re

_OPTIONS = re.compile(r"`channels: \{(\w+): ([^`]*)\}`")


def in_python(told: str) -> str:
    """A message about ``channels`` as one about ``gn.Bands``.

    >>> in_python("state `channels: {range: [LOW, HIGH]}`, as `channels` names 3")
    'state bands=gn.Bands(range=[LOW, HIGH]), as gn.Bands names 3'
    """
    return _OPTIONS.sub(r"bands=gn.Bands(\1=\2)", told).replace("`channels`", "gn.Bands")
