"""``garnish export``: write a graph that runs without garnish."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from garnish.commands.parser import Parser, positive_int, some_names
from garnish.errors import OptionError, plural
from garnish.output import say

if TYPE_CHECKING:
    from garnish.exporting.agreement import TaskAgreement
    from garnish.exporting.certificate import Certificate

_EPILOG = """\
DIR gets model.onnx (or model.pt2), export.json (how to read it, and the certificate) and SHA256SUMS. The graph takes
pictures of any number, height and width; padding and normalisation are inside. An output per task, named as the task,
is its raw map at the picture's size, which garnish.runtime decodes. Needs the extra: pip install 'garnish[onnx]'.

With --adapters inputs the graph takes adapters and heads as inputs, and each bundle is two files, NAME.onnx_adapter and
NAME.json, named as its folder (of a run's best, as the run). Export further bundles of its trunk, methods and heads
to the same DIR, with any ranks and numbers of classes.

With --page DIR gets index.html and what it needs as well, 15 MB, of which npm fetches onnxruntime-web: served by any
server of files, it computes all maps of a picture in the browser.

Before anything is written, the file is run against the model on pictures and sizes that it was not made with. A float32
file is refused beyond 1e-4 of a map's largest value, or below 99.9 % equal labels; float16 below 99.5 %; int8 where it
loses more than 0.5 points of mean IoU on --data.

examples:
  garnish export runs/camvid/best --out exported
  garnish export runs/seg/best,runs/depth/best --out exported --input float
  garnish export runs/camvid/best --out exported --precision int8 --data recipes/data/camvid.yaml
  garnish export runs/seg/best,runs/cracks/best --out exported --adapters inputs
  garnish export runs/camvid/best --out exported --page
  garnish export segformer_b0 --weights ade.safetensors --out exported --to torch
"""


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish export",
        "garnish export BUNDLE[,BUNDLE …] --out DIR [options]",
        "Write a graph that runs without garnish, and the proof that it does what the model does.",
        _EPILOG,
        sections=("data",),
    )
    made.add_argument(
        "bundle",
        metavar="BUNDLE",
        help="folder that garnish train or model.save wrote, or hub:user/name; several: a,b; or segformer_b0 … b5",
    )
    made.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    made.add_argument(
        "--adapters",
        choices=("merged", "inputs"),
        default="merged",
        help="merged: folded into the weights where they fold, else constants (default); inputs: data of the graph",
    )
    made.add_argument(
        "--to", choices=("onnx", "torch"), default="onnx", help="ONNX, or a .pt2 of torch (default: onnx)"
    )
    made.add_argument(
        "--input",
        choices=("uint8", "uint16", "float"),
        help="pictures in 0 … 255, or floats in [0, 1]; of other bands as files hold them, or values (default: uint8 of"
        " RGB, float of other bands)",
    )
    made.add_argument(
        "--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="how the trunk's weights are stored"
    )
    made.add_argument("--data", metavar="DATA", help="compare and measure on these as well: YAML, folder, or scenes")
    made.add_argument("--split", help="which part of the data (default: test)")
    made.add_argument("--every", type=positive_int, default=1, metavar="N", help="take every N-th picture")
    made.add_argument("--limit", type=positive_int, metavar="N", help="take at most N pictures, evenly spaced")
    made.add_argument("--tasks", type=some_names, metavar="TASK,TASK", help="only these (default: all)")
    made.add_argument("--page", action="store_true", help="a page beside the graph that runs it in a browser")
    made.add_argument("--onnxruntime-web", metavar="FILE", help="npm's package for --page, where npm cannot fetch it")
    made.add_argument("--weights", metavar="FILE", help="the backbone's weights, if they have moved; a segformer's")
    made.add_argument("--json", action="store_true", help="print JSON: export.json, with the certificate")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, overrides = parser().read(words)
    from garnish.commands.printing import print_json
    from garnish.commands.words import bundle_paths, open_given
    from garnish.data.subset import thinned
    from garnish.exporting.export import export
    from garnish.files.given_pictures import folder_to_write
    from garnish.page.files import PAGE_FILES
    from garnish.runtime.manifest import ADAPTER

    folder_to_write(given.out)
    if given.onnxruntime_web is not None and not given.page:
        raise OptionError("export: --onnxruntime-web is the package for --page, which is missing; add it")
    data = None
    if overrides:
        data = thinned(open_given(overrides, given.split or "test", "export"), every=given.every, limit=given.limit)
    elif given.split is not None or given.limit is not None or given.every != 1:
        raise OptionError("export: --split, --every and --limit choose pictures of --data, which is missing; add it")
    made = export(
        bundle_paths(given.bundle),
        given.out,
        adapters=given.adapters,
        to=given.to,
        input=given.input,
        precision=given.precision,
        data=data,
        weights=given.weights,
        tasks=given.tasks,
        page=given.onnxruntime_web or given.page,
    )
    if given.json:
        print_json({"export": made.facts, "bundles": made.bundles} if made.bundles else made.facts)
        return 0
    files = [name for name in made.files if name not in PAGE_FILES]
    size = sum(Path(made.out, name).stat().st_size for name in files)
    say(f"{made.out}: {', '.join(files)}; {size / 1e6:.1f} MB")
    for name, facts in made.bundles.items():
        size = Path(made.out, f"{name}{ADAPTER}").stat().st_size
        say(f"bundle {name}: {plural(len(facts['tensors']), 'tensor')}, {size / 1e3:.0f} kB")
        _say(cast("Certificate", facts["certificate"]))
    if not made.bundles:
        _say(made.certificate)
    if given.page:
        say(f"page: python -m http.server --directory {shlex.quote(made.out)}, then http://localhost:8000")
    return 0


def _say(certificate: Certificate) -> None:
    """Print how far an exported file is from the model."""
    from garnish.commands.printing import metric_rows, print_table

    say(f"against the model on made pictures of {plural(len(certificate['sizes']), 'size')}:")
    print_table(_COLUMNS, rows_of(certificate["tasks"]))
    if "data" in certificate:
        found = certificate["data"]
        say(f"on {found['name']}, {plural(found['pictures'], 'picture')}:")
        print_table(_COLUMNS, rows_of(found["tasks"]))
        rows = zip(metric_rows(found["before"], {}), metric_rows(found["after"], {}), strict=True)
        print_table(["task", "metric", "model", "exported"], [[*before, after[2]] for before, after in rows])


_COLUMNS = ("task", "unit", "largest difference", "mean", "over the largest value", "equal labels")


def rows_of(found: Mapping[str, TaskAgreement]) -> list[list[str]]:
    """A row for each task of a certificate."""
    rows = []
    for task, facts in found.items():
        equal = facts["equal_labels"]
        numbers = [f"{facts['largest']:.2g}", f"{facts['mean']:.2g}", f"{facts['relative']:.2g}"]
        rows.append([task, facts["unit"], *numbers, "–" if equal is None else f"{100 * equal:.3f} %"])
    return rows
