"""One part of the check on an accelerator: prints a JSON object a line for each thing that it did.

    python benchmarks/gpu/parts.py conformance --device cuda --seconds 90 [--quick]

The first object lists all items (``items``). One that fails has an ``error``; what there is no time for is missing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "benchmarks" / "training"), str(ROOT / "tests")]
#: no item is begun with less than this share of the box left: most take a few hundredths of it
SHARE = 0.08

#: what is done, and the function that does it
Items = Iterator[tuple[str, Callable[[], dict[str, Any]]]]


def items_of(part: str, device: str, quick: bool) -> Items:
    """The items of a part."""
    if part == "conformance":
        import sample

        return sample.items(device, quick)
    if part == "mixed":
        import mixed

        return mixed.items(device, quick)
    import steps

    return steps.items(device, quick) if part == "eager" else steps.compiled_items(device, quick)


def done(items: Items, until: float, least: float) -> Iterator[dict[str, Any]]:
    """What each item found; none is begun with fewer than ``least`` seconds left until ``until`` (monotonic clock)."""
    listed = list(items)
    yield {"items": [label for label, _ in listed]}
    for label, call in listed:
        if until - time.monotonic() < least:
            return
        start = time.monotonic()
        try:
            found = call()
        except Exception as error:  # the next item may still work
            traceback.print_exc()
            found = {
                "error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:300]
            }
        yield {"item": label, **found, "took": round(time.monotonic() - start, 2)}
        gc.collect()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("conformance", "eager", "compiled", "mixed"))
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    until = time.monotonic() + args.seconds
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    warnings.simplefilter("ignore")
    import torch
    from stepping import tf32_off

    tf32_off()
    if args.device == "cpu":
        torch.set_num_threads(1)
    for row in done(items_of(args.part, args.device, args.quick), until, SHARE * args.seconds):
        print(json.dumps(row), file=answers, flush=True)


if __name__ == "__main__":
    main()
