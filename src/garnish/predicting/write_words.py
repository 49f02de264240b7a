"""What is written of pictures, in words that ``garnish predict`` and ``python -m garnish.runtime`` share.

Nothing slow is imported here, for their help.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from garnish.decodings.file_kinds import DEFAULT, KINDS, OPACITY, chosen_kinds
from garnish.errors import shown

if TYPE_CHECKING:
    from garnish.predicting.write_options import WriteOptions

#: For the end of a command's help.
WRITTEN = (
    "For each picture, what --write names (default: maps,sheet), at the picture's own size:\n"
    + "\n".join(f"  {kind:<13} {what}" for kind, what in KINDS.items())
    + """

Pictures of a folder keep their place below it: in/a/b.png becomes OUT/a/b_TASK.png. Frames of a video clip.mp4 become
OUT/clip/000000_TASK.png and so on. Of a picture of more than 4096x4096 pixels, which is never held whole, NAME_TASK.tif
alone (--tile none: as of others). A picture that cannot be read is told at the end, and the exit code is 1.
"""
)


def add_write_options(made: argparse.ArgumentParser) -> None:
    """Add the options of :class:`WriteOptions` to a parser that has ``--out``."""
    made.add_argument(
        "--write", metavar="KIND,KIND", default=",".join(DEFAULT), help=f"files: {', '.join(KINDS)}; see below"
    )
    for option, kind in {"--overlay": "overlays", "--probabilities": "probabilities", "--coco": "coco"}.items():
        made.add_argument(
            option, dest="more", action="append_const", const=kind, default=[], help=f"write {kind} beside the others"
        )
    made.add_argument(
        "--opacity", metavar="SHARE", type=_share, default=OPACITY, help=f"of overlays, 0 to 1 (default: {OPACITY})"
    )
    made.add_argument("--skip-existing", action="store_true", help="leave out pictures whose files are all there")
    made.add_argument(
        "--every", metavar="N", type=_every, default=1, help="of a video, take one frame in N (default: 1)"
    )


def write_options(given: argparse.Namespace) -> WriteOptions:
    """The options as they were given; raises OptionError for an unknown kind of file."""
    from garnish.predicting.write_options import WriteOptions

    named = [name.strip() for name in given.write.split(",") if name.strip()]
    return WriteOptions(
        out=Path(given.out),
        kinds=(*chosen_kinds(named), *given.more),
        opacity=given.opacity,
        skip_existing=given.skip_existing,
        every=given.every,
    )


def _share(text: str) -> float:
    if not re.fullmatch(r"0|1|[01]\.0{0,6}|0?\.[0-9]{1,6}", text):
        raise argparse.ArgumentTypeError(f"{shown(text, 40)} is not a number from 0 to 1, such as 0.6")
    return float(text)


def _every(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise argparse.ArgumentTypeError(f"{shown(text, 40)} is not a whole number from 1 to 999,999")
    return int(text)
