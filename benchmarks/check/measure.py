"""Recall and precision of the doctor's checks: 5 of 50 labels spoiled, a row of spoils.py at a time.

    python benchmarks/check/measure.py                    # the reported seeds: writes results.json
    python benchmarks/check/measure.py --seeds 0 1 --out /tmp/tuning.json --only shift --sets rooms
    python benchmarks/check/measure.py --table            # prints the tables of results.json

A check's thresholds were tuned on the seeds 0 and 1; reported are 10 and 11. A seed draws which labels are spoiled, the
directions and partners, and for procedural rooms all 50 scenes; pictures of real sets are the same for every seed.
Recall: which part of the spoiled ones the check names that is meant. Precision: which part of those that it names in
these runs is spoiled (or, of pairs of pictures, has a spoiled partner). Labels that the doctor cannot read are told by
"reading" and looked at by no other check.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sets import SETS, there
from spoils import SPOILS, Spoil
from written import Written

import garnish as gn
from garnish.data.folder import FolderDataset
from garnish.doctor.check import Seen
from garnish.doctor.examine import chosen_checks, examine
from garnish.doctor.fault import Fault
from garnish.doctor.looked import Looked
from garnish.doctor.looking import Part, parts_of
from garnish.errors import DataError

RESULTS = Path(__file__).with_name("results.json")
TUNED, REPORTED = (0, 1), (10, 11)
SPOILED = 5
#: Rows about reading files at all are done to this many tasks of a set: they do not depend on what a label means.
READING_TASKS = 2
#: Share of a task's labels that a finding about all of them names.
WHOLE = 0.8


class Doctor:
    """Looks as :func:`examine` does, but not again at what did not change since the clean set.

    A check sees the tasks of an entry alone (or, of an entry without tasks, the picture with all labels), so where one
    label of a picture was spoiled, what was kept of its other entries still holds; and so do findings about an entry of
    which nothing changed.
    """

    def __init__(self) -> None:
        self.checks = chosen_checks()
        self._pictures: dict[object, dict[str, dict[Part, Any]]] = {}
        self._judged: dict[Part, tuple[list[int], list[Fault]]] = {}

    def faults(self, at: Written, *, keep: bool = False) -> list[Fault]:
        """All findings of a set; with ``keep`` it is the clean one that later ones are compared with."""
        if keep:
            self._pictures, self._judged = {}, {}
        kept: dict[Part, list[Seen]] = {}
        for split in dict.fromkeys(split for split, _ in at.pictures):
            part = gn.folder(at.description, split, root=at.root)
            for index in range(len(part)):
                name, file, labels = part.picture_name(index), part.picture_file(index), part.label_files(index)
                for entry, value in self._look(part, index, keep).items():
                    kept.setdefault(entry, []).append(Seen(part.split, name, file, labels, value, part.tasks))
        found = []
        for entry, seen in kept.items():
            values, (known, faults) = [id(one.kept) for one in seen], self._judged.get(entry, ([], []))
            if values != known:
                faults = list(self.checks[entry[0]].judge(seen, entry[1]))
            if keep:
                self._judged[entry] = (values, faults)
            found += faults
        return found

    def _look(self, part: FolderDataset, index: int, keep: bool) -> dict[Part, Any]:
        seen = Looked(part, index)
        picture, labels = stamp(seen.file), {task: stamp(file) for task, file in seen.files.items()}
        known = self._pictures.get((picture, part.split, seen.name))
        same = [] if known is None else [task for task in part.tasks if labels.get(task) == known["labels"].get(task)]
        if known is not None and len(same) == len(part.tasks):
            return known["kept"]
        made: dict[Part, Any] = {}
        for name, check in self.checks.items():
            for entry in parts_of(check, part.tasks):
                if known is not None and entry and set(entry) <= set(same):
                    value = known["kept"].get((name, entry))
                else:
                    try:
                        value = check.look(seen, entry)
                    except DataError:
                        value = None
                if value is not None:
                    made[name, entry] = value
        if keep:
            self._pictures[picture, part.split, seen.name] = {"labels": labels, "kept": made}
        return made


def label(fault: Fault) -> str:
    """Name of a check, and apart from it that of its findings of another level."""
    return "duplicates in a split" if fault.check == "duplicates" and fault.split is not None else fault.check


def beside_spoiled(fault: Fault, spoiled: set[str]) -> set[str]:
    """Names of a finding, of checks of pairs without the partners of spoiled ones."""
    if fault.check not in ("duplicates", "video"):
        return set(fault.names)
    pairs = zip(fault.names[::2], fault.names[1::2], strict=True)
    return {name for pair in pairs if not spoiled & set(pair) for name in pair}


def stamp(file: Path) -> tuple[int, int, int]:
    """What tells a file from one that was written in its place; hard links have the same."""
    facts = file.stat()
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def run(spoil: Spoil, task: str, clean: Written, at: Path, doctor: Doctor, draw: np.random.Generator) -> dict[str, Any]:
    """Spoil, look, and count: check → [named of the spoiled, spoiled, named beside them]."""
    spoiled = clean.copy(at)
    wanted = [p for p in clean.pictures if p[0] == "val" or spoil.name not in ("copies_across", "frames")]
    count = len(clean.pictures) if spoil.whole else SPOILED
    chosen = clean.pictures if spoil.whole else [wanted[k] for k in draw.choice(len(wanted), count, replace=False)]
    told = spoil.do(spoiled, task, chosen, draw)
    partners = {name for name in told if name.startswith("of:")}
    names = {name for name in told if not name.startswith("of:")}
    beside = {name.removeprefix("of:") for name in partners}
    faults = doctor.faults(spoiled)
    found = {}
    for check in sorted({label(fault) for fault in faults} | set(spoil.meant)):
        own = [f for f in faults if label(f) == check and (not spoil.kinds or not f.tasks or task in f.tasks)]
        named = {name for fault in own for name in fault.names}
        if spoil.whole:
            hit = any(len(set(fault.names)) >= WHOLE * len(clean.pictures) or not fault.names for fault in own)
            found[check] = [int(hit), 1, 0]
        else:
            everywhere = {name for f in faults if label(f) == check for name in beside_spoiled(f, names)}
            found[check] = [len(named & names), len(names), len(everywhere - names - beside)]
    shutil.rmtree(at)
    return found


def rows(at: Written, only: Sequence[str]) -> list[tuple[Spoil, str]]:
    """Rows for a set, each with the task that is spoiled."""
    made = []
    for spoil in SPOILS:
        if only and spoil.name not in only and not set(only) & set(spoil.meant):
            continue
        tasks = [task for task, label in at.tasks.items() if label.kind in spoil.kinds]
        if spoil.meant[0] in ("reading", "orientation"):
            tasks = tasks[:READING_TASKS]
        made += [(spoil, task) for task in tasks] if spoil.kinds else [(spoil, next(iter(at.tasks)))]
    return made


def measure(sets: Sequence[str], seeds: Sequence[int], only: Sequence[str], work: Path) -> dict[str, Any]:
    """Set → row and task → check → a list of counts, one a seed; and what is told of the clean sets."""
    found: dict[str, Any] = {}
    for name in sets:
        doctor = Doctor()
        for seed in seeds:
            started = time.process_time()
            clean = SETS[name](work / f"{name}{seed}", seed)
            faults = doctor.faults(clean, keep=True)
            if seed == seeds[0] and name == "rooms":
                same = sorted(f.message for f in examine(clean.description, root=clean.root, jobs=1).faults)
                assert same == sorted(f.message for f in faults), "this is not what the doctor tells"
            told = {
                check: {n for f in faults if label(f) == check for n in f.names} for check in sorted(map(label, faults))
            }
            held = found.setdefault(name, {"pictures": len(clean.pictures), "clean": [], "rows": {}})
            held["clean"].append({check: len(names) for check, names in told.items() if names})
            for spoil, task in rows(clean, only):
                draw = np.random.default_rng([seed, zlib.crc32(f"{name} {spoil.name} {task}".encode())])
                counts = run(spoil, task, clean, work / "spoiled", doctor, draw)
                row = held["rows"].setdefault(f"{spoil.name} {task if spoil.kinds else 'pictures'}", {})
                for check, numbers in counts.items():
                    row.setdefault(check, {})[str(seed)] = numbers
            shutil.rmtree(clean.root)
            print(f"{name}, seed {seed}: {time.process_time() - started:.0f} s of processor time", flush=True)
    return found


def table(found: dict[str, Any]) -> str:
    """Lines: what each check named of each row's spoiled ones, and beside them; * where it is meant."""
    lines = []
    meant = {spoil.name: spoil.meant for spoil in SPOILS}
    for name, held in found.items():
        lines.append(f"{name}: clean {held['clean']}")
        for row, checks in held["rows"].items():
            told = []
            for check, by_seed in checks.items():
                total = np.sum(list(by_seed.values()), 0)
                mark = "*" if check in meant[row.split()[0]] else ""
                told.append(f"{mark}{check} {total[0]}/{total[1]}" + (f" +{total[2]}" if total[2] else ""))
            lines.append(f"  {row:24} {', '.join(told)}")
    return "\n".join(lines)


def keep(out: Path, found: dict[str, Any], seeds: Sequence[int]) -> None:
    """Put what was measured of a set into the file, in the place of what was there of it."""
    told = json.loads(out.read_text("utf-8")) if out.exists() else {"sets": {}}
    machine = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    sets = {**told["sets"], **found}
    ordered = {name: sets[name] for name in SETS if name in sets}
    told = {"seeds": list(seeds), "machine": machine, "sets": ordered}
    out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=REPORTED)
    parser.add_argument("--sets", nargs="+", default=there(), choices=list(SETS))
    parser.add_argument("--only", nargs="+", default=[], help="names of rows or of checks")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what --out holds, measure nothing")
    given = parser.parse_args()
    if not given.table:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as work:
            for name in given.sets:
                keep(given.out, measure([name], given.seeds, given.only, Path(work)), given.seeds)
    print(table(json.loads(given.out.read_text(encoding="utf-8"))["sets"]))


if __name__ == "__main__":
    main()
