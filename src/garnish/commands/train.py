"""``garnish train``: train adapters and heads as a recipe says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from garnish.commands.parser import Parser, allows_loggers
from garnish.errors import OptionError
from garnish.output import logger, say

_log = logger(__name__)

_EPILOG = """\
Every key of the recipe can be overridden: --adapter NAME takes another method with its default options,
--adapter.rank 8 sets one option; likewise --backbone, --head, --tasks, --data, --train and --out. Paths in a recipe are
relative to the recipe, paths of the command line and --out to the current folder. garnish methods lists all options.

examples:
  garnish train --config recipes/camvid.yaml
  garnish train --config recipes/camvid.yaml --adapter AdaptFormer --adapter.bottleneck 32 --out runs/adaptformer
  garnish train --config recipes/replica.yaml --tasks seg,depth --train.lr 5e-4 --train.epochs 20
  garnish train --config recipes/parts.yaml --onto runs/camvid/best
  garnish train --config recipes/parts.yaml --onto segformer_b0 --backbone segformer_b0 --backbone.weights ade.pth
  garnish train --resume runs/camvid
"""


def parser() -> Parser:
    """The argument parser of this command."""
    from garnish.recipes.recipe import SECTIONS

    made = Parser(
        "garnish train",
        "garnish train --config RECIPE [--onto BUNDLE] [--resume RUN] [--SECTION[.KEY] VALUE …]",
        "Train adapters and heads as a recipe says. The best step is kept in OUT/best, a bundle.",
        _EPILOG,
        sections=SECTIONS,
    )
    made.add_argument("--config", metavar="RECIPE", help="YAML file; see recipes/")
    made.add_argument(
        "--resume", metavar="RUN", help="continue an interrupted run; its recipe is read from RUN/args.yaml"
    )
    shown = made.add_argument_group("sections of the recipe (also --SECTION.KEY)")
    shown.add_argument(
        "--onto",
        metavar="BUNDLE",
        help="add the recipe's tasks to those of a bundle (hub:user/name, segformer_b0 … b5), which stay unchanged",
    )
    shown.add_argument("--out", metavar="FOLDER", help="folder of the run; if it exists, FOLDER-2 is created, …")
    allows_loggers(made)
    made.add_argument("--print-config", action="store_true", help="print the recipe with every option, and stop")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.add_argument("--quiet", action="store_true", help="no progress, warnings only")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, overrides = parser().read(words)
    from garnish.files.strict_yaml import read_yaml, write_yaml
    from garnish.recipes.paths import as_written
    from garnish.recipes.recipe import read_recipe
    from garnish.recipes.splits import validation

    if given.config is None and given.resume is None and not any(key.split(".")[0] == "data" for key in overrides):
        raise OptionError("train: no recipe; give --config RECIPE (recipes/ has some), or --resume RUN")
    if given.resume is not None:
        if given.config is not None:
            raise OptionError(
                "train: --resume reads its recipe from RUN/args.yaml, so --config does not apply; leave it out"
            )
        if "out" in overrides:
            raise OptionError("train: --resume goes on in the run's folder, so --out does not apply; leave it out")
        from garnish.training.run_folder import check_run

        if not (Path(given.resume) / "args.yaml").is_file():
            check_run(Path(given.resume))
    config = given.config or (Path(given.resume) / "args.yaml" if given.resume else None)
    if given.resume is not None and not any(key.split(".")[0] == "data" for key in overrides):
        plain = read_yaml(Path(str(config)))
        if isinstance(plain, Mapping) and "data" not in plain:
            raise OptionError(
                f"train: {given.resume}: begun by gn.fit, on data held in Python, which no recipe names; go on there,"
                f" with fit(…, resume={given.resume!r}) and model, data and options as before"
            )
    recipe = read_recipe(config, overrides, given.allow_logger)
    resolved = recipe.resolved()
    if given.print_config:
        say(*write_yaml(resolved).splitlines())
        return 0
    from garnish.recipes.build_model import build_model

    train, val = recipe.open("train"), validation(recipe)
    if val is None:
        _log.warning(
            "%s: no split val: nothing is measured while training, and the last step is kept as the best; give --data."
            "hold_out 0.2 (or `hold_out: 0.2` in the description) to hold out a part of the training pictures",
            train.name,
        )
    model = build_model(recipe, train)
    if given.resume is None:
        resolved["base"] = str(Path.cwd())
    else:  # bundles are then the same as of an uninterrupted run, wherever it is resumed
        resolved = as_written(resolved, recipe.written)
        trunk = model.backbone
        trunk.weights_source = recipe.written.get(trunk.weights_source, trunk.weights_source)
    from garnish.training.fit import fit

    options = vars(recipe.options)
    result = fit(
        model,
        train,
        val,
        out=recipe.out,
        resume=given.resume,
        recipe=resolved,
        progress=not given.quiet,
        allow_loggers=recipe.allow_loggers,
        **options,
    )
    from garnish.commands.printing import metric_rows, print_json, print_table
    from garnish.reporting.detail import shown_rows
    from garnish.training.processes import is_first_process
    from garnish.training.run_page import DETAILS, PAGE
    from garnish.training.task_details import kept_details

    if not is_first_process():
        return 0
    if given.json:
        told = {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name != "history"}
        told |= {"out": str(result.out), "best": str(Path(str(result.out)) / "best")}
        print_json(told | {"backbone_licence": model.backbone.licence})
        return 0
    if result.metrics:
        headlines = {name: task.headline for name, task in model.tasks.items()}
        details = kept_details(Path(str(result.out)) / DETAILS, model.tasks, result.best_step)
        told = {task: [detail for detail in found if detail.brief()] for task, found in details.items()}
        rows = metric_rows(result.metrics, headlines)  # those of single classes stand in their own table
        rows = [row for row in rows if "/" not in row[1] or not told.get(row[0])]
        print_table(["task", f"val, step {result.best_step}", "value"], rows)
        for task, found in told.items():
            for detail in found:
                (first, *others), *lines = shown_rows(detail.brief())
                print_table([f"{task}: {first}", *others], lines)
    say(f"weights of the backbone: {model.backbone.licence}")
    say(f"bundle: {result.out}/best")
    say(f"page: {result.out}/{PAGE}")
    say(f"try it: garnish predict {result.out}/best PICTURE, or garnish serve {result.out}/best")
    return 0
