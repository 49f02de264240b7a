"""``MemoryFile``: a file that is written bit by bit, and never reaches the disk."""

from __future__ import annotations

import io
from typing import BinaryIO, final


@final
class MemoryFile:
    """What stands for a :class:`garnish.files.atomic.GrowingFile` where nothing may reach the disk.

    Attributes:
        stream: what is written to.
        data: the whole file, once it is finished.
    """

    def __init__(self) -> None:
        self.stream: BinaryIO = io.BytesIO()
        self.data = b""

    def finish(self) -> None:
        """Keep what was written as :attr:`data`."""
        self.stream.seek(0)
        self.data = self.stream.read()
        self.stream.close()

    def discard(self) -> None:
        """Forget what was written; nothing after :meth:`finish`."""
        self.stream.close()

    def __str__(self) -> str:
        return "a file in memory"
