"""What a thousand tenants cost, on paper: passes, hours, bytes, requests, memory, and which of them binds.

    python benchmarks/machines/cost_model.py [--tenants 1000] [--pictures 100000000] [--asked 1 10 1000]
    python benchmarks/machines/cost_model.py --method lora-last --devices 400 --set memory=64e9 --set request_fails=0.05
    python benchmarks/machines/cost_model.py --device accelerator --set plain_pass=0.002 --set first_bundle=0.002 ...
    python benchmarks/machines/cost_model.py --assumptions
    python benchmarks/machines/cost_model.py --json

Every number that goes in is an assumption with a name, a unit and a source (``--assumptions`` lists them, ``--set``
gives another). What needs a number that nobody measured is shown as "not measured". docs/scale.md explains the model.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from cost_assumptions import DEVICES, Assumptions, ImpossibleError
from cost_bulk import bulk, sweep
from cost_caches import popularity, simulated_hits
from cost_fleet import fleet
from cost_measured import METHODS, MOST, measured
from cost_scenario import Rows, Scenario, plain, room
from cost_text import assumption_table, text

KINDS = ("bundle", "copy")
COUNTED = "trunk passes, by arithmetic"
TIMED = "device time: passes and heads"


def report(a: Assumptions, s: Scenario, asked: Sequence[int]) -> dict[str, Any]:
    """All that the model says, as plain data.

    Args:
        a: what is assumed.
        s: what is asked, but for the bundles of a picture.
        asked: numbers of bundles asked of each picture; each gets a bulk prediction of its own.

    Raises:
        ImpossibleError: a value that cannot be.
    """
    many = {count: dataclasses.replace(s, asked=count) for count in asked}
    return {
        "assumptions": a.to_json(),
        "scenario": dataclasses.asdict(s) | {"asked": list(asked)},
        "bulk": {str(n): {kind: plain(bulk(a, one, kind)) for kind in KINDS} for n, one in many.items()},
        "sweep": plain(sweep(a, s)),
        "fleet": {
            name: {kind: plain(fleet(a, s, kind, exponent)) for kind in KINDS}
            for name, exponent in (("uniform", 0.0), (f"Zipf, s = {s.zipf:g}", s.zipf))
        },
    }


def sharing(s: Scenario, asked: Sequence[int], device: str, given: dict[str, float]) -> dict[str, Any]:
    """Passes and device time of bundles over those of copies, by where adapters begin."""
    found: dict[str, Any] = {}
    for method in METHODS:
        a = measured(method, device).given(**given)
        for count in asked:
            one = dataclasses.replace(s, asked=count)
            with_bundles, with_copies = bulk(a, one, "bundle"), bulk(a, one, "copy")
            found.setdefault(method, {})[str(count)] = {
                "passes": _ratio(with_bundles, with_copies, COUNTED),
                "time": _ratio(with_bundles, with_copies, TIMED),
            }
    return found


def _ratio(upper: Rows, lower: Rows, name: str) -> float | None:
    top, bottom = upper[name].value, lower[name].value
    return None if top is None or not bottom else top / bottom


def simulate(a: Assumptions, s: Scenario, requests: int, seed: int = 0) -> dict[str, Any]:
    """Hits of one device, by the approximation beside those counted."""
    found = {}
    for name, exponent in (("uniform", 0.0), (f"Zipf, s = {s.zipf:g}", s.zipf)):
        rows, shares = fleet(a, s, "bundle", exponent), popularity(s.tenants, exponent)
        held = room(a, "bundle")
        said = rows["hits of a device that gets all names"].value
        found[name] = {"room": held, "said": said, "counted": simulated_hits(shares, held, requests, seed)}
    return found


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plain_numbers = [one for one in dataclasses.fields(Scenario) if one.name != "asked"]
    for one in plain_numbers:
        kind = float if isinstance(one.default, float) else int
        parser.add_argument(f"--{one.name}", type=kind, default=one.default)
    parser.add_argument("--asked", type=int, nargs="+", help="bundles asked of each picture; default: 1, 10 and all")
    parser.add_argument("--method", default="lora-first", help=f"where adapters begin: {', '.join(METHODS)}")
    parser.add_argument("--device", default="cpu", help=f"{' or '.join(DEVICES)}")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another value of an assumption"
    )
    parser.add_argument("--assumptions", action="store_true", help="print the assumptions alone")
    parser.add_argument("--simulate", type=int, metavar="REQUESTS", help="count hits beside the approximation")
    parser.add_argument("--json", action="store_true", help="print all as JSON")
    return parser.parse_args(words)


def values(words: Sequence[str]) -> dict[str, float]:
    """What ``--set`` gives.

    Raises:
        ImpossibleError: a word that is not NAME=NUMBER.
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ImpossibleError(f"--set: {word!r} is not NAME=NUMBER, as memory=64e9") from None
        if not equals:
            raise ImpossibleError(f"--set: {word!r} is not NAME=NUMBER, as memory=64e9")
    return found


def run(words: Sequence[str] | None) -> str:
    """What the command prints.

    Raises:
        ImpossibleError: a value that cannot be.
    """
    given = parsed(words)
    numbers = values(given.set)
    a = measured(given.method, given.device).given(**numbers)
    if given.assumptions:
        return json.dumps(a.to_json(), indent=1) if given.json else assumption_table(a)
    asked = given.asked or sorted({1, min(10, given.tenants), given.tenants})
    names = [one.name for one in dataclasses.fields(Scenario) if one.name != "asked"]
    s = Scenario(**{name: getattr(given, name) for name in names}, asked=1)
    found = report(a, s, asked)
    found["method"] = given.method
    found["sharing"] = sharing(s, asked, given.device, numbers)
    if given.simulate is not None:
        found["simulated"] = simulate(a, s, given.simulate)
    return json.dumps(found, indent=1) if given.json else text(found, MOST)


def main(words: Sequence[str] | None = None) -> int:
    """Print a report; 2 and one line where a value cannot be."""
    try:
        print(run(words))
    except ImpossibleError as error:
        print(f"cost_model: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
