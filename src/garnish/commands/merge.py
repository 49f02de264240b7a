"""``garnish merge``: fold adapters into the backbone's weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from garnish.commands.parser import Parser
from garnish.output import say

_EPILOG = """\
A FOLDER gets backbone.safetensors, and a bundle of the heads that belongs to it: give the folder to garnish predict,
eval or train --onto. A FILE.safetensors gets the backbone alone. The tensors have the names of the family's own
checkpoints, so timm.create_model(NAME, checkpoint_path=FILE) loads them. Before anything is written, the merged
backbone's feature maps are compared with the adapted one's on probe pictures of several sizes; a difference above 1e-4
of a map's largest value is refused.

LoRA, rsLoRA, DoRA, SSF and everything tuned in place can be merged. MTLoRA's shared part is folded in outside the last
blocks; the parts that its tasks own stay in the bundle. Other methods are refused.

examples:
  garnish merge runs/camvid/best --out merged
  garnish predict merged street.jpg --out maps
  garnish merge runs/replica/best --task depth --out swin_depth.safetensors
"""


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish merge",
        "garnish merge BUNDLE[,BUNDLE …] --out FOLDER|FILE.safetensors [options]",
        "Fold one owner's adapters into the backbone's weights, and write a plain checkpoint.",
        _EPILOG,
    )
    made.add_argument(
        "bundle", metavar="BUNDLE", help="folder that garnish train or model.save wrote, or hub:user/name; several: a,b"
    )
    made.add_argument("--out", metavar="PATH", required=True, help="folder, or .safetensors file, to write")
    made.add_argument("--task", metavar="TASK", help="a task of the owner to merge, if there are several")
    made.add_argument("--weights", metavar="FILE", help="the backbone's weights, if they have moved")
    made.add_argument("--json", action="store_true", help="print JSON: what was merged and how exactly")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, _ = parser().read(words)
    from garnish.bundles.merge import LIMIT, merge
    from garnish.commands.printing import print_json
    from garnish.commands.words import bundle_paths

    said = merge(bundle_paths(given.bundle), given.out, task=given.task, weights=given.weights)
    if given.json:
        print_json(asdict(said))
        return 0
    say(f"{said.out}: {', '.join(said.files)}")
    say(f"{said.backbone} with {', '.join(m['name'] for m in said.methods)} of {', '.join(said.tasks)}")
    say(
        f"largest difference {said.largest_difference:.2g}, {said.largest_relative:.2g} of the largest value "
        f"(limit {LIMIT:.0e})"
    )
    if said.left:
        say(f"still adapters, in the bundle: {', '.join(m['name'] for m in said.left)}, where tasks own a part")
    if said.carried_over:
        say(f"unchanged from the original weights: {', '.join(said.carried_over)}")
    return 0
