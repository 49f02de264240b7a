"""The options of command lines about windows, the same of each command that has them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Literal

from garnish.errors import OptionError
from garnish.tiles.sizes import AUTO_TILE, WHOLE_PIXELS

if TYPE_CHECKING:
    from garnish.tiles.tiling import Tiling


def takes_tiles(parser: argparse.ArgumentParser, *, flips: bool) -> None:
    """Add ``--tile`` and ``--overlap``, and where ``flips`` also ``--flip``."""
    auto = f"auto: windows of {AUTO_TILE} for pictures above {WHOLE_PIXELS:,} pixels"
    default = "auto" if flips else "none"
    parser.add_argument(
        "--tile",
        type=_tile,
        metavar="N",
        default="auto" if flips else None,
        help=f"run pictures in overlapping windows of N pixels a side; {auto}; none: whole (default: {default})",
    )
    parser.add_argument(
        "--overlap", type=int, metavar="N", help="pixels that windows share (default: 3/32 of a window, in strides)"
    )
    if flips:
        parser.add_argument("--flip", action="store_true", help="average with a pass of the mirrored picture")


def given_tiling(given: argparse.Namespace) -> Tiling:
    """The options that :func:`takes_tiles` added; raises OptionError as :class:`Tiling` does."""
    from garnish.checking.plain_data import fits
    from garnish.tiles.tiling import Tile, Tiling  # help does without

    if given.tile not in ("auto", None) and not fits(given.tile, Tile):
        raise OptionError(f"--tile: {given.tile} pixels; windows have 16 to 65,536, or write auto or none")
    return Tiling(tile=given.tile, overlap=given.overlap, flip=getattr(given, "flip", False))


def _tile(text: str) -> int | Literal["auto"] | None:
    if text == "auto":
        return "auto"
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no side in pixels, auto or none") from None
