"""Write the tables of docs/scale.md from the files of measurements and the cost model, or compare them (--check).

python benchmarks/machines/scale_table.py [--check]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

from cost_assumptions import Assumptions
from cost_bulk import attempts, bulk
from cost_fleet import fleet
from cost_measured import ENGINES, METHODS, measured
from cost_model import COUNTED, TIMED, run, sharing
from cost_scenario import Scenario
from cost_text import assumption_rows, digits, ratio, shown

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"
ASKED = (1, 10, 1000)
MEMORIES = (1.5e9, 4e9, 16e9)
#: columns of the table of fleets, and the rows of the model that they show
FLEET = {
    "room": "in memory beside a device",
    "hits, all names": "hits of a device that gets all names",
    "hits, its names": "hits, each name at one device",
    "cold loads": "cold loads a second",
    "devices": "devices",
    "memory of all": "memory of all of them",
}
EXAMPLE = ("--method", "lora-last", "--asked", "10")


def begin(name: str) -> str:
    """What stands before a block."""
    return f"<!-- {name}: written by benchmarks/machines/scale_table.py -->\n"


def end(name: str) -> str:
    """What stands behind it."""
    return f"<!-- end of {name} -->\n"


def markdown(head: list[str], rows: list[list[str]], left: int = 1) -> str:
    """A table, of which so many columns are left-aligned."""
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def engines_block() -> str:
    """What each engine adds."""
    a = measured()
    parts = (
        ("a sweep: Ray's tasks", "sweep_start", "sweep_run", "run"),
        ("bulk prediction: Ray Data", "bulk_start", "bulk_picture", "picture"),
        ("serving: Ray Serve", None, "serve_request", "request"),
    )
    rows = []
    for what, start, each, unit in parts:
        once = "–" if start is None else shown(getattr(a, start), "s")
        value = getattr(a, each)
        rows.append([what, a.source(each), once, "not measured" if value is None else f"{shown(value, 's')} a {unit}"])
    return markdown(["engine", "source", "once", "for each"], rows, 2)


def weights_block() -> str:
    """A bundle beside a copy."""
    file = ENGINES / "weights.json"
    if not file.exists():
        return "not measured: no benchmarks/machines/weights.json\n"
    found = json.loads(file.read_text("utf-8"))
    rows = []
    for trunk, name in (("swin_t", "Swin-T"), ("vit_s", "ViT-S/14")):
        for kind, what in (("bundle", "LoRA, r = 8"), ("copy", "full fine-tuning")):
            one = found["trunks"][trunk][kind]
            bytes_ = [shown(one[key], "B") for key in ("files_bytes", "memory_bytes")]
            rows.append([f"{name}, {what}", *bytes_, f"{one['cpu_ms']:.0f} ms", str(one["loads"])])
    load = " to ".join(f"{one:.1f}" for one in found["load"])
    text = markdown(["", "files", "tensors in memory", "until it can be used", "loads"], rows)
    return f"{text}\nMedians of processor time on one thread, torch {found['torch']}, at a load of {load}.\n"


def assumptions_block() -> str:
    """Every assumption."""
    rows = [
        [f"`{name}`", meaning, source, value if unit == "1" or value == "–" else f"{value} {unit}"]
        for name, value, unit, meaning, source in assumption_rows(measured())
    ]
    return markdown(["name", "what it is", "source", "value"], rows, 3)


def sharing_block() -> str:
    """Passes and time over those of copies."""
    found = sharing(Scenario(), ASKED, "cpu", {})
    counts = [str(count) for count in ASKED]
    rows = [
        [f"`{method}`", *(ratio(of[n]["passes"]) for n in counts), *(ratio(of[n]["time"]) for n in counts)]
        for method, of in found.items()
    ]
    head = ["adapters", *(f"passes, {n} asked" for n in counts), *(f"time, {n} asked" for n in counts)]
    return markdown(head, rows)


def passes_block() -> str:
    """How many passes and hours a hundred million pictures take."""
    rows = []
    for count in ASKED:
        s = dataclasses.replace(Scenario(), asked=count)
        arms = {"a copy a tenant": bulk(measured(), s, "copy")}
        arms |= {f"`{method}`": bulk(measured(method), s, "bundle") for method in METHODS}
        for name, rows_of in arms.items():
            passes, time = rows_of[COUNTED].value, rows_of[TIMED].value
            millions = "not measured" if passes is None else f"{digits(passes / 1e6)} million"
            hours = "not measured" if time is None else f"{digits(time / 3600)} h"
            rows.append([f"{count:,}", name, millions, hours, rows_of["what binds"].note.partition(";")[0]])
    return markdown(["asked of each", "weights", "trunk passes", "device time", "binds"], rows, 2)


def fleet_block() -> str:
    """Hits, cold loads and devices of a serving fleet, by memory beside a device."""
    rows = []
    for traffic, exponent in (("uniform", 0.0), ("Zipf, s = 1", 1.0)):
        for memory in MEMORIES:
            for kind, what in (("bundle", "bundles"), ("copy", "copies")):
                found = fleet(measured().given(memory=memory), Scenario(), kind, exponent)
                rows.append([traffic, shown(memory, "B"), what])
                rows[-1] += [shown(found[name].value, found[name].unit) for name in FLEET.values()]
    return markdown(["traffic", "memory of each", "weights", *FLEET], rows, 3)


def example_block() -> str:
    """The sums of one case, with their numbers, and what the command prints."""
    a, s = measured("lora-last"), dataclasses.replace(Scenario(), asked=10)
    done = s.pictures / (1 - a.need("block_lost"))
    lines = [
        f"pictures, with what is done again   {s.pictures:,} / (1 - {a.block_lost:g}) = {done:,.0f}",
        f"trunk passes   {done:,.0f} · (1 + {s.asked - 1} · {a.unshared:.4g}) = {_said(a, s, COUNTED)}",
        f"device time   {done:,.0f} · ({a.first_bundle:.4g} + {s.asked - 1} · {a.another_bundle:.4g}"
        f" + {s.asked} · {s.tasks} · {a.head:.4g}) s = {_said(a, s, TIMED)}",
        f"PUT requests   {attempts(a):.5g} · ({done:,.0f} · {s.asked} · {s.tasks} + blocks) = "
        f"{_said(a, s, 'PUT requests')}",
        f"bytes written   {attempts(a):.5g} · {done:,.0f} · {s.asked} · {s.tasks} · {s.side}² · {a.map_pixel:.4g} B = "
        f"{_said(a, s, 'bytes written')}",
    ]
    command = f"$ python benchmarks/machines/cost_model.py {' '.join(EXAMPLE)}"
    return "\n".join(["```", *lines, "```", "", "```", command, run(EXAMPLE), "```", ""])


def _said(a: Assumptions, s: Scenario, name: str) -> str:
    one = bulk(a, s, "bundle")[name]
    return shown(one.value, one.unit)


BLOCKS: dict[str, Callable[[], str]] = {
    "engines": engines_block,
    "weights": weights_block,
    "sharing": sharing_block,
    "passes": passes_block,
    "fleet": fleet_block,
    "example": example_block,
    "assumptions": assumptions_block,
}


def filled(page: str) -> str:
    """A page with its blocks written anew; what stands around them is kept.

    Raises:
        ValueError: a block that the page does not have once.
    """
    for name, block in BLOCKS.items():
        if page.count(begin(name)) != 1 or page.count(end(name)) != 1:
            raise ValueError(f"the page must hold {begin(name).strip()} and {end(name).strip()} once")
        before, _, rest = page.partition(begin(name))
        after = rest.partition(end(name))[2]
        page = f"{before}{begin(name)}\n{block()}\n{end(name)}{after}"
    return page


def main() -> int:
    """Write the page; with --check say whether it would change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    before = PAGE.read_text("utf-8")
    after = filled(before)
    if given.check:
        print("docs/scale.md is as measured" if before == after else "docs/scale.md is out of date")
        return int(before != after)
    PAGE.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
