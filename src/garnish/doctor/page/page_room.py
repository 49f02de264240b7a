"""PageRoom: how much a part of a page may still take, so that no data set makes a page of gigabytes."""

from __future__ import annotations

from typing import final


@final
class PageRoom:
    """What is left of a number of bytes, or of rows; what does not fit any more is left out, and counted.

    Args:
        most: the number.
    """

    def __init__(self, most: int) -> None:
        self.left, self.refused = most, 0

    def take(self, size: int) -> bool:
        """Whether ``size`` more fit; if so, they are taken."""
        if size > self.left:
            self.refused += 1
            return False
        self.left -= size
        return True
