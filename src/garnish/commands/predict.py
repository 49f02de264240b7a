"""``garnish predict``: write the maps of pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from garnish.commands.parser import SIZE_HELP, Parser, size_rule, some_names
from garnish.output import say
from garnish.tiles.words import given_tiling, takes_tiles

_EPILOG = """\
For each picture: NAME_sheet.png, a contact sheet, and NAME_TASK.png per task: ids (8 bit), depth (16 bit, millimetres),
normals, edges, saliency. Maps have the picture's own size. Of a picture of more than 4096x4096 pixels, which is never
held whole, NAME_TASK.tif, without a sheet (--tile none: as of others).

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
    takes_tiles(made, flips=True)
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
    from garnish.model.streamed import predict_streamed
    from garnish.tiles.streaming import check_streamed, is_streamed

    folder_to_write(given.out)
    files = picture_files(given.images)
    tiling = given_tiling(given)
    sizes = {file: picture_size(file) for file in files.values()}  # all are checked before any is predicted
    model = load_bundles(given.bundle, given.weights, given.device)
    check_map_names(files, given.tasks or model.tasks, Path(given.out))
    taken = input_size(given.size, model.served, given.tasks)
    own = taken == InputSize()
    told = (lambda line: None) if given.json else say
    if not own:
        told(taken.told)
    large = {name: file for name, file in files.items() if own and is_streamed(sizes[file], tiling)}
    for name in large:
        check_streamed(Path(given.out, name), given.tasks or model.tasks, files.values())
    tile, overlap, flip = tiling.tile, tiling.overlap, tiling.flip
    written: dict[str, list[str]] = {}
    for name, file in files.items():
        if name in large:
            maps = predict_streamed(model, file, Path(given.out, name), given.tasks, tiling, told)
            written[str(file)] = [str(path) for path in maps.values()]
        else:
            plan = tiling.plan(taken.of(sizes[file], f"{file}: size: train"), model.backbone.multiple)
            if plan.count > 1:
                told(f"{file}: {plan}")
            found = model.predict(file, given.tasks, size=given.size, tile=tile, overlap=overlap, flip=flip)
            written[str(file)] = [str(path) for path in dataclasses.replace(found, name=name).write(given.out)]
        if not given.json:
            say(f"{file}: {', '.join(written[str(file)])}")
    if given.json:
        print_json(written)
    return 0
