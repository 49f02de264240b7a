"""``garnish eval``: measure bundles on labelled pictures."""

from __future__ import annotations

from collections.abc import Sequence

from garnish.commands.parser import SIZE_HELP, Parser, positive_int, size_rule, some_names
from garnish.errors import plural
from garnish.output import say
from garnish.tiles.words import given_tiling, takes_tiles

_EPILOG = """\
DATA is a data description (YAML), a folder of pictures with labels next to them, or scenes. Single keys of it can be
set by --data.KEY. A star marks the metric by which best checkpoints are chosen.

examples:
  garnish eval runs/replica/best --data recipes/data/replica.yaml --split test --json
  garnish eval runs/camvid/best --data recipes/data/camvid.yaml --every 4 --out camvid_test
  garnish eval runs/pascal/best --data pascal.yaml --thresholds-on val
  garnish eval runs/seg/best,runs/depth/best --data scenes --data.test 20
  garnish eval segformer_b0 --weights segformer-b0-ade --data ade20k.yaml --split val
"""


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish eval",
        "garnish eval BUNDLE[,BUNDLE …] --data DATA [--split test] [--json] [options]",
        "Measure a bundle (or several, joined) on labelled pictures.",
        _EPILOG,
        sections=("data",),
    )
    made.add_argument(
        "bundle", metavar="BUNDLE", help="folder that garnish train wrote, hub:user/name, or segformer_b0 … b5"
    )
    made.add_argument("--data", metavar="DATA", help="YAML, folder, or scenes")
    made.add_argument("--split", default="test", help="which part of the data (default: test)")
    made.add_argument("--tasks", type=some_names, metavar="TASK,TASK", help="only these (default: all that both know)")
    made.add_argument("--every", type=positive_int, default=1, metavar="N", help="take every N-th picture")
    made.add_argument("--limit", type=positive_int, metavar="N", help="take at most N pictures, evenly spaced")
    made.add_argument("--thresholds-on", metavar="SPLIT", help="choose thresholds (saliency) on this part first")
    made.add_argument(
        "--match-classes",
        choices=("refuse", "ignore"),
        help="give labels the model's ids by class name; a class that it lacks is refused, or counts as no label",
    )
    made.add_argument("--size", type=size_rule, default="own", metavar="SIZE", help=SIZE_HELP + ", labels too")
    made.add_argument(
        "--batch-size", type=positive_int, default=1, metavar="N", help="pictures of one size run together"
    )
    takes_tiles(made, flips=False)
    made.add_argument("--weights", metavar="FILE", help="the backbone's weights, if they have moved; a segformer's")
    made.add_argument(
        "--out",
        metavar="FOLDER",
        help="write what the tasks tell besides: classes and their confusion, errors by distance, … (CSV, pictures)",
    )
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    made.add_argument("--json", action="store_true", help="print JSON: task → metric → value")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, overrides = parser().read(words)
    from garnish.commands.printing import metric_rows, print_json, print_table
    from garnish.commands.words import bundle_paths, load_bundles, open_given
    from garnish.data.matched_classes import match_classes
    from garnish.data.subset import thinned
    from garnish.model.input_size import InputSize, input_size
    from garnish.training.evaluate import evaluate

    tiling = given_tiling(given)
    whole = open_given(overrides, given.split, "eval")
    model = load_bundles(given.bundle, given.weights, given.device)
    others = open_given(overrides, given.thresholds_on, "eval") if given.thresholds_on else None
    if given.match_classes is not None:
        whole = match_classes(whole, model, others=given.match_classes)
        others = None if others is None else match_classes(others, model, others=given.match_classes)
    data = thinned(whole, every=given.every, limit=given.limit)
    measured = given.tasks or [task for task in model.tasks if task in data.tasks]
    if (taken := input_size(given.size, model.served, measured)) != InputSize() and not given.json:
        say(f"{taken.told}, and labels with them")
    metrics = evaluate(
        model,
        data,
        batch_size=given.batch_size,
        size=given.size,
        tasks=given.tasks,
        tile=tiling.tile,
        overlap=tiling.overlap,
        thresholds_on=others,
        progress=not given.json,
        out=given.out,
    )
    if given.json:
        print_json(metrics)
        return 0
    headlines = {name: task.headline for name, task in model.tasks.items()}
    say(f"{', '.join(bundle_paths(given.bundle))} on {data.name}, {len(data)} of {plural(len(whole), 'picture')}")
    print_table(["task", "metric", "value"], metric_rows(metrics, headlines))
    if given.out is not None:
        say(f"tables and pictures: {given.out}")
    return 0
