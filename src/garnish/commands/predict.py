"""``garnish predict``: write the maps of pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from garnish.commands.parser import SIZE_HELP, Parser, size_rule, some_names
from garnish.output import say

_EPILOG = """\
For each picture: NAME_sheet.png, a contact sheet, and NAME_TASK.png per task: ids (8 bit), depth (16 bit, millimetres),
normals, edges, saliency. Maps have the picture's own size.

examples:
  garnish predict runs/replica/best street.jpg --out maps
  garnish predict runs/seg/best,runs/depth/best pictures/ --out maps --tasks depth
  garnish predict segformer_b0 street.jpg --weights segformer-b0-ade --out maps
"""


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish predict",
        "garnish predict BUNDLE[,BUNDLE …] IMAGE … --out DIR [options]",
        "Write the maps of pictures, all tasks in one pass.",
        _EPILOG,
    )
    made.add_argument(
        "bundle",
        metavar="BUNDLE",
        help="folder that garnish train or model.save wrote; several: a,b; or segformer_b0 … b5",
    )
    made.add_argument("images", metavar="IMAGE", nargs="+", help="pictures, or folders of pictures")
    made.add_argument("--out", metavar="DIR", required=True, help="folder to write to")
    made.add_argument("--tasks", type=some_names, metavar="TASK,TASK", help="only these (default: all)")
    made.add_argument("--size", type=size_rule, default="own", metavar="SIZE", help=SIZE_HELP)
    made.add_argument("--weights", metavar="FILE", help="the backbone's weights, if they have moved; a segformer's")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    made.add_argument("--json", action="store_true", help="print JSON: picture → the files written")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, _ = parser().read(words)
    from garnish.commands.printing import print_json
    from garnish.commands.words import load_bundles
    from garnish.files.given_pictures import check_map_names, folder_to_write, picture_files
    from garnish.files.pictures import picture_size
    from garnish.model.input_size import InputSize, input_size

    folder_to_write(given.out)
    files = picture_files(given.images)
    for file in files.values():
        picture_size(file)  # all are checked before any is predicted
    model = load_bundles(given.bundle, given.weights, given.device)
    check_map_names(files, given.tasks or model.tasks, Path(given.out))
    if (taken := input_size(given.size, model.served, given.tasks)) != InputSize() and not given.json:
        say(taken.told)
    written: dict[str, list[str]] = {}
    for name, file in files.items():
        maps = dataclasses.replace(model.predict(file, given.tasks, size=given.size), name=name)
        written[str(file)] = [str(path) for path in maps.write(given.out)]
        if not given.json:
            say(f"{file}: {', '.join(written[str(file)])}")
    if given.json:
        print_json(written)
    return 0
