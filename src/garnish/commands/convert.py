"""``garnish convert``: write a data set of any form as a plain folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from garnish.commands.parser import Parser, positive_int, some_names
from garnish.output import say

_EPILOG = """\
SOURCE is whatever garnish train takes as data: a description (YAML), or a folder. Keys of a description can be set by
--data.KEY. OUT gets SPLIT/images, a folder of labels for each task (masks, depth, …) and a data.yaml that reads
the same pictures and labels; it appears when it is complete, and nothing is ever replaced.

  pictures   copied as they are; those that an EXIF tag turns are written upright, as PNG. --link: links
  classes    PNG of ids with colours as palette, 255 is no label
  yes or no  (edges, saliency) PNG of 0 and 255, 128 is no label
  depth      16-bit PNG of millimetres, or of the source's own steps, where that is exact, else .npy of float32 metres;
             --round-depth: millimetres also where they are off by half a millimetre at most
  normals    copied as they are, or .npy of float32
  numbers    (depth without a unit) 16-bit PNG if they are whole, else .npy of float32

A folder of Parquet files as the Hugging Face hub has them is unpacked (pip install 'garnish[hf]'): the bytes of its
pictures and labels, as they are. --column says which column is what, where their names do not.

examples:
  garnish convert recipes/data/camvid.yaml --out camvid_plain
  garnish convert export/data.yaml --out plain --link --splits train,val
  garnish convert hub/scene_parse --out scenes --column image=image --column seg=annotation
"""


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish convert",
        "garnish convert SOURCE --out FOLDER [--tasks TASK,TASK] [--splits SPLIT,SPLIT] [--link] [options]",
        "Write a data set of any form as a plain folder.",
        _EPILOG,
        sections=("data",),
    )
    made.add_argument("source", metavar="SOURCE", help="data description (YAML) or folder")
    made.add_argument("--out", metavar="FOLDER", required=True, help="the folder to write; must not exist")
    made.add_argument("--tasks", type=some_names, metavar="TASK,TASK", help="only these (default: all)")
    made.add_argument("--splits", type=some_names, metavar="SPLIT,SPLIT", help="only these (default: all)")
    made.add_argument("--link", action="store_true", help="link pictures instead of copying them")
    made.add_argument("--round-depth", action="store_true", help="depth in whole millimetres if off by 0.5 mm at most")
    made.add_argument(
        "--column", action="append", default=[], metavar="NAME=COLUMN", help="of Parquet files; NAME: image, or a task"
    )
    made.add_argument("--jobs", type=positive_int, metavar="N", help="threads (default: one a core, 8 at most)")
    made.add_argument("--json", action="store_true", help="print JSON: what was written")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, overrides = parser().read(words)
    from pathlib import Path

    from garnish.commands.ending import ended_in_order
    from garnish.commands.predict_progress import PredictProgress
    from garnish.commands.printing import print_json
    from garnish.data.conversion.convert import conversion_lines, convert
    from garnish.data.conversion.parquet import parquet_files, unpack_parquet
    from garnish.errors import OptionError
    from garnish.recipes.recipe import read_recipe

    if "data" in overrides:
        raise OptionError("convert: give the data as SOURCE; --data.KEY sets a key of it")
    files = parquet_files(Path(given.source))
    if given.column and not files:
        raise OptionError("convert: --column is for Parquet files, and SOURCE holds none; leave it out")
    if files:
        for option in ("tasks", "splits", "link", "round_depth", "jobs"):
            if getattr(given, option):
                raise OptionError(f"convert: --{option.replace('_', '-')} is not for Parquet files; leave it out")
        with ended_in_order():
            unpacked = unpack_parquet(files, given.out, given.column)
        if given.json:
            print_json({"out": given.out, "files": unpacked})
        else:
            told = (f"{split}: {', '.join(f'{n} {kind}' for kind, n in of.items())}" for split, of in unpacked.items())
            say(*told, f"{given.out} holds the files of {given.source}; next: garnish check --data {given.out}")
        return 0
    source = read_recipe(None, {"data": given.source, **overrides}).plain["data"] if overrides else Path(given.source)
    progress: list[PredictProgress] = []

    def started(total: int) -> None:
        if not given.json:
            progress.append(PredictProgress(total, lines=False).__enter__())

    def done() -> None:
        for one in progress:
            one.picture(None)

    try:
        with ended_in_order():
            made = convert(
                source,
                given.out,
                tasks=given.tasks,
                splits=given.splits,
                link=given.link,
                rounds_depth=given.round_depth,
                jobs=given.jobs,
                started=started,
                done=done,
            )
    finally:
        for one in progress:
            one.__exit__()
    if given.json:
        print_json({**asdict(made), "out": str(made.out)})
    else:
        split = "" if "train" in made.pictures else f" --split {next(iter(made.pictures))}"
        say(*conversion_lines(made), f"next: garnish check --data {made.out}{split}")
    return 0
