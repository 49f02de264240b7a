"""``python -m garnish.runtime``: write the maps of pictures, as ``garnish predict`` does, from an exported folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, final

from garnish.errors import OptionError, one_line, suggest
from garnish.output import logger, run_told, say, showable_json
from garnish.predicting.write_words import WRITTEN, add_write_options, write_options
from garnish.tiles.words import given_tiling, takes_tiles

if TYPE_CHECKING:
    from garnish.runtime.session import Session

log = logger(__name__)

PROGRAM = "python -m garnish.runtime"
_EPILOG = (
    WRITTEN
    + """
examples:
  python -m garnish.runtime exported street.jpg --out maps
  python -m garnish.runtime exported pictures/ --out maps --bundle streets --tasks seg,depth
  python -m garnish.runtime exported --list
"""
)


@final
class _Words(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{one_line(message)}; see {PROGRAM} --help")


def runtime_parser() -> argparse.ArgumentParser:
    """The argument parser of this command."""
    made = _Words(
        prog=PROGRAM,
        usage=f"{PROGRAM} FOLDER IMAGE … --out DIR [options]",
        description="Write the maps of pictures from a folder that garnish export wrote, without torch.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("folder", metavar="FOLDER", help="folder that garnish export wrote")
    made.add_argument("images", metavar="IMAGE", nargs="*", help="pictures, videos, folders of them, or patterns")
    made.add_argument("--out", metavar="DIR", help="folder to write to")
    add_write_options(made)
    made.add_argument("--bundle", metavar="NAME", help="which bundle, where the folder holds several")
    made.add_argument("--tasks", metavar="TASK,TASK", help="only these (default: all)")
    takes_tiles(made, flips=True)
    made.add_argument("--threads", metavar="N", type=int, help="threads of one prediction (default: one a core)")
    made.add_argument("--list", action="store_true", help="print what the folder holds, and its bundles and tasks")
    made.add_argument("--json", action="store_true", help="print JSON: picture → the files written")
    return made


def runtime_main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, as :func:`garnish.output.run_told` has them."""
    return run_told(PROGRAM, _run, sys.argv[1:] if argv is None else argv)


def _run(words: list[str]) -> int:
    words_of = runtime_parser()
    given, unknown = words_of.parse_known_intermixed_args(words)
    if unknown:
        known = [word for action in words_of._actions for word in action.option_strings if word.startswith("--")]
        what = "option" if unknown[0].startswith("-") else "argument"
        raise OptionError(f"unknown {what} {unknown[0]!r}{suggest(unknown[0], known)}")
    from garnish.runtime.session import Session

    if given.list:
        return _list(Session(given.folder, threads=given.threads), given.folder, as_json=given.json)
    if not given.images or given.out is None:
        raise OptionError(f"give pictures and --out, or --list; see {PROGRAM} --help")
    return _predict(given)


def _predict(given: argparse.Namespace) -> int:
    from garnish.files.given_pictures import folder_to_write, picture_files
    from garnish.predicting.large import Streaming
    from garnish.predicting.writing import check_written, write_maps
    from garnish.runtime.session import Session
    from garnish.tiles.streaming import is_streamed

    tasks = None if given.tasks is None else [name.strip() for name in given.tasks.split(",") if name.strip()]
    folder_to_write(given.out)
    options, tiling = write_options(given), given_tiling(given)
    files = picture_files(given.images, options.out)
    session = Session(given.folder, threads=given.threads)
    asked = session.asked(given.bundle, tasks, tiling, probabilities="probabilities" in options.kinds)
    check_written(files, options, asked.decodings)

    def stream(file: Path, name: str) -> list[Path]:
        tile = tiling.tile or "auto"
        overlap, flip, stem = tiling.overlap, tiling.flip, options.out / name
        made = session.stream(file, stem, given.bundle, tasks, tile=tile, overlap=overlap, flip=flip, told=log.info)
        return list(made.values())

    large = Streaming(lambda size: is_streamed(size, tiling), session.bands, stream)
    lines = _Lines(shown=not given.json)
    found = write_maps(files, options, asked.decodings, asked.work(), lines, stream=large, keep=given.json)
    if given.json:
        _say_json(found.files)
    return found.report()


@final
class _Lines:
    """Prints a line a picture."""

    def __init__(self, *, shown: bool) -> None:
        self.shown = shown

    def picture(self, line: str | None) -> None:
        if self.shown and line is not None:
            say(line)


def _list(session: Session, given: str, *, as_json: bool) -> int:
    facts, trunk = session.facts, session.facts["backbone"]
    bundles = {name: _tasks(session, name) for name in session.bundles or (None,)} if _has_any(session) else {}
    if as_json:
        told = {name: facts[name] for name in ("form", "precision", "backbone", "image", "versions", "certificate")}
        _say_json(told | {"bundles": {name or "": tasks for name, tasks in bundles.items()}})
        return 0
    free = "" if not trunk["non_commercial"] else ", not for commercial use"
    say(f"{given}: {trunk['name']}, {facts['precision']}, adapters {facts['form']}")
    say(f"weights: {trunk['weights_source']} ({trunk['licence']}{free})")
    if not session.bands.is_rgb:
        say(f"pictures: {len(session.bands.names)} bands, {', '.join(session.bands.names)}, as files hold them")
    for name, tasks in bundles.items():
        say(f"{'tasks' if name is None else f'bundle {name}'}: {', '.join(f'{t} ({d})' for t, d in tasks.items())}")
    if not bundles:
        say("no bundle: export one for this graph")
    return 0


def _has_any(session: Session) -> bool:
    return session.facts["form"] == "merged" or bool(session.bundles)


def _tasks(session: Session, bundle: str | None) -> Mapping[str, str]:
    return {name: type(decoding).__name__ for name, decoding in session.tasks(bundle).items()}


def _say_json(value: object) -> None:
    say(*showable_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)).split("\n"))
