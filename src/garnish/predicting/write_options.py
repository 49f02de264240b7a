"""``WriteOptions``: what is written of pictures, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

from garnish.checking.arguments import Options
from garnish.checking.plain_data import reals
from garnish.decodings.file_kinds import DEFAULT, OPACITY, chosen_kinds
from garnish.predicting.overlapping import Every


@final
@dataclass(frozen=True, kw_only=True)
class WriteOptions(Options):
    """What is written, and where.

    Attributes:
        out: the folder.
        kinds: of files (:data:`garnish.decodings.file_kinds.KINDS`).
        opacity: of overlays, 0 … 1.
        skip_existing: pictures whose files are all there are left out.
        every: of a video, each so-manieth frame is taken.
    """

    out: Path
    kinds: tuple[str, ...] = DEFAULT
    opacity: Annotated[float, reals(0, 1)] = OPACITY
    skip_existing: bool = False
    every: Every = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", chosen_kinds(self.kinds))
