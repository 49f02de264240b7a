"""``garnish predict``: write the maps of pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from garnish.commands.parser import Parser, some_names
from garnish.errors import OptionError
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
    made.add_argument("--weights", metavar="FILE", help="the backbone's weights, if they have moved; a segformer's")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    made.add_argument("--json", action="store_true", help="print JSON: picture → the files written")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, _ = parser().read(words)
    from garnish.commands.printing import print_json
    from garnish.commands.words import folder_to_write, load_bundles, picture_files
    from garnish.files.pictures import picture_size

    folder_to_write(given.out)
    files = picture_files(given.images)
    for file in files.values():
        picture_size(file)  # all are checked before any is predicted
    model = load_bundles(given.bundle, given.weights, given.device)
    _check_names(files, given.tasks or model.tasks, Path(given.out))
    written: dict[str, list[str]] = {}
    for name, file in files.items():
        maps = dataclasses.replace(model.predict(file, given.tasks), name=name)
        written[str(file)] = [str(path) for path in maps.write(given.out)]
        if not given.json:
            say(f"{file}: {', '.join(written[str(file)])}")
    if given.json:
        print_json(written)
    return 0


def _check_names(files: Mapping[str, Path], tasks: Iterable[str], out: Path) -> None:
    """Raise OptionError where one map would be written over another, or over a picture that is to be read.

    Args:
        files: name → picture.
        tasks: whose maps are written, as ``NAME_TASK.png``.
        out: the folder that they are written to.
    """
    folders = {file.parent: file.parent.resolve() == out.resolve() for file in files.values()}
    kept = {file.stem: file for file in files.values() if folders[file.parent] and file.suffix.lower() == ".png"}
    taken: dict[str, Path] = {}
    kinds = (*tasks, "sheet")
    for name, file in files.items():
        for kind in kinds:
            made = f"{name}_{kind}"
            if made in kept:
                raise OptionError(f"--out {out}: {kind} of {file} would replace {kept[made]}; choose another folder")
            if made in taken:
                raise OptionError(
                    f"--out {out}: {made}.png would be {kind} of {file}, and another map of {taken[made]}; "
                    "predict them one by one into folders of their own, or name other --tasks"
                )
            taken[made] = file
