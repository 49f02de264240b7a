"""``garnish predict``: write the maps of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from garnish.commands.parser import SIZE_HELP, Parser, positive_int, size_rule, some_names
from garnish.errors import OptionError
from garnish.output import logger, say
from garnish.predicting.write_words import WRITTEN, add_write_options, write_options
from garnish.tiles.words import given_tiling, takes_tiles

log = logger(__name__)

_EPILOG = f"""\
{WRITTEN}
examples:
  garnish predict runs/replica/best street.jpg --out maps
  garnish predict runs/seg/best,runs/depth/best pictures/ --out maps --tasks depth --skip-existing
  garnish predict runs/seg/best 'in/**/*.jpg' --out maps --write maps,coco --overlay
  garnish predict runs/seg/best drive.mp4 --every 5 --out maps --write overlays
  garnish predict runs/seg/best s3://bucket/pictures/ --out s3://bucket/maps/ --skip-existing
  garnish predict segformer_b0 street.jpg --weights segformer-b0-ade --out maps
  garnish predict --on ray://head:10001 runs/seg/best s3://pictures/2026 --out s3://maps/2026

--on takes addresses (s3://…), and .parquet and .tar files of pictures, too; the same command goes on after a crash.
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
        help="folder that garnish train or model.save wrote, or hub:user/name; several: a,b; or segformer_b0 … b5",
    )
    made.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="pictures, videos, folders of them, patterns such as 'in/**/*.jpg', or addresses of these: s3://bucket/in/",
    )
    made.add_argument("--out", metavar="DIR", required=True, help="folder to write to, or s3://bucket/prefix")
    made.add_argument("--tasks", type=some_names, metavar="TASK,TASK", help="only these (default: all)")
    add_write_options(made)
    takes_tiles(made, flips=True)
    made.add_argument(
        "--batch",
        metavar="N",
        type=positive_int,
        help="pictures of one size in a pass (default: 1 on a CPU, up to 8 elsewhere)",
    )
    made.add_argument("--size", type=size_rule, default="own", metavar="SIZE", help=SIZE_HELP)
    made.add_argument("--weights", metavar="FILE", help="the backbone's weights, if they have moved; a segformer's")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    made.add_argument("--json", action="store_true", help="print JSON: picture → the files written")
    made.add_argument(
        "--on", metavar="CLUSTER", help="predict on a Ray cluster: ray (of this machine), ray://HOST:PORT or ray:auto"
    )
    made.add_argument(
        "--workers",
        metavar="N",
        type=positive_int,
        help="with --on, processes that predict (default: all it has room for)",
    )
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code: 1 if there were pictures that could not be predicted."""
    given, _ = parser().read(words)
    if given.on is not None:
        from garnish.commands.predict_on import run_on

        return run_on(given)
    if given.workers is not None:
        raise OptionError(f"--workers {given.workers}: acts with --on alone; leave it out, or write --on ray")
    from garnish.commands.predict_elsewhere import pictures_elsewhere
    from garnish.commands.predict_progress import PredictProgress
    from garnish.commands.printing import print_json
    from garnish.commands.words import load_bundles
    from garnish.files.given_pictures import folder_to_write, picture_files
    from garnish.model.input_size import InputSize, input_size
    from garnish.model.predict_many import picture_work
    from garnish.model.streamed import predict_streamed
    from garnish.predicting.large import Streaming
    from garnish.predicting.writing import check_written, count_pictures, write_maps
    from garnish.tiles.streaming import is_streamed

    options, tiling = write_options(given), given_tiling(given)
    with pictures_elsewhere(given.images, options, given.out) as elsewhere:
        if elsewhere is None:
            folder_to_write(given.out)
            files, write = picture_files(given.images, options.out), write_maps
        else:
            files, options, write = elsewhere.files, elsewhere.options, elsewhere.write_maps
        total = count_pictures(files, every=options.every)
        model = load_bundles(given.bundle, given.weights, given.device)
        keep = "probabilities" in options.kinds
        work = picture_work(model, given.tasks, batch=given.batch, probabilities=keep, tiling=tiling, size=given.size)
        tasks = {name: task for name, task in model.served.tasks.items() if given.tasks is None or name in given.tasks}
        check_written(files, options, tasks)

        seen = input_size(given.size, model.served, given.tasks)
        if seen != InputSize() and not given.json:
            say(seen.told)

        def stream(file: Path, name: str) -> list[Path]:
            return list(predict_streamed(model, file, options.out / name, given.tasks, tiling, log.info).values())

        large = Streaming(
            lambda size: seen == InputSize() and is_streamed(size, tiling), model.served.bands_of(tasks), stream
        )
        with PredictProgress(total, lines=not given.json) as progress:
            found = write(files, options, tasks, work, progress, stream=large, keep=given.json)
        if given.json:
            print_json(found.files)
        return found.report()
