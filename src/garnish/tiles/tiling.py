"""``Tiling``: whether a picture is run in windows, how large they are and how far they overlap; and a mirrored pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

from garnish.checking.arguments import Options
from garnish.checking.plain_data import integers
from garnish.errors import OptionError
from garnish.tiles.plan import TilePlan, tile_plan
from garnish.tiles.sizes import AUTO_TILE, WHOLE_PIXELS

#: Overlap: this share of a window, rounded down to strides of the trunk, of which it is one at least; 96 of 1024 at 32.
_OVERLAP = 3 / 32

Tile = Literal["auto"] | Annotated[int, integers(16, 65_536)]
Overlap = Annotated[int, integers(0, 65_535)]


@final
@dataclass(frozen=True, kw_only=True)
class Tiling(Options):
    """How a picture is run.

    Attributes:
        tile: side of windows in pixels; "auto": one pass up to 2048·2048 pixels, else 1024; None: always one pass.
        overlap: pixels that neighbouring windows share at least; None: 3/32 of a window, in whole strides of the trunk.
        flip: average with a pass of the mirror image.

    Raises:
        OptionError: an overlap without windows, or one as wide as they are.
    """

    tile: Tile | None = "auto"
    overlap: Overlap | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        if self.overlap is None:
            return
        if self.tile is None:
            raise OptionError(f"overlap: {self.overlap} of no windows; set tile, or leave it out")
        if self.overlap >= (side := AUTO_TILE if self.tile == "auto" else self.tile):
            raise OptionError(f"overlap: {self.overlap} pixels of windows of {side}, so none would move on; set less")

    def plan(self, size: tuple[int, int], step: int) -> TilePlan:
        """The windows of a picture.

        Args:
            size: (H, W).
            step: stride of the trunk's coarsest map, in pixels.
        """
        if self.tile is None or (self.tile == "auto" and size[0] * size[1] <= WHOLE_PIXELS):
            return tile_plan(size, max(size), 0, step)
        tile = max(AUTO_TILE - AUTO_TILE % step, step) if self.tile == "auto" else self.tile
        overlap = self.overlap
        if overlap is None:
            overlap = min(max(int(_OVERLAP * tile) // step, 1) * step, tile // 2)
        return tile_plan(size, tile, min(overlap, tile - 1), step)
