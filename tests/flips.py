"""Flips one bit in a random file of a run, a bundle or a comparison, goes on with it, and looks at what comes of it.

    python -m tests.flips --flips 100 --seed 0

A flip is noticed if the command refuses the file, or says that it makes it again and ends as if nothing had happened.
Files that are not read back change nothing; in those that are for people (logs), a changed figure stays.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from kill_kinds import KINDS, contents
from kills import Harness

#: What a run writes for people and goes on with, line by line; and the recipe, which may be edited.
FOR_PEOPLE = {"log/scalars.csv": {"scalars"}, "results.csv": {"results.csv"}, "args.yaml": {"args.yaml"}}
#: In the description of a bundle, the recipe as args.yaml has it.
_TEXT = {"best/bundle.json", "best/SHA256SUMS"}
SAID = ("is damaged", "made again", "measured again", "drawn again", "going on from the state before")


class Flips:
    """A run that was stopped, its bundle, and a comparison, and what became of each with one bit flipped."""

    def __init__(self, place: Path, seed: int) -> None:
        self.harness = Harness(place, seed, lambda line: None)
        self.draw = random.Random(seed)
        self.found: dict[str, Counter[str]] = defaultdict(Counter)
        self.faults: list[str] = []
        self.base = place / "base"

    def prepare(self) -> None:
        """Make what bits are flipped in."""
        harness = self.harness
        harness.prepare(["train", "compare"])
        train, compare = KINDS["train"], KINDS["compare"]
        at = 2 * harness.changes["train"] // 3
        assert harness.forked(train, harness.out, at, signal.SIGTERM) == 143
        harness.out.rename(self.base)
        shutil.copytree(self.base, harness.out)
        assert harness.forked(train, harness.out) == 0
        (harness.out / "best").rename(self.base.with_name("bundle"))
        shutil.rmtree(harness.out)
        assert harness.forked(compare, harness.out) == 0
        harness.out.rename(self.base.with_name("report"))

    def flip(self, what: str) -> None:
        """Flip one bit in a copy, and note what comes of it."""
        harness, out = self.harness, self.harness.out
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.base.with_name(what), out)
        files = sorted(file for file in out.rglob("*") if file.is_file() and file.stat().st_size)
        file = self.draw.choice(files)
        data = bytearray(file.read_bytes())
        # half of them at the beginning, where the JSON of most files is
        place = self.draw.randrange(len(data) if self.draw.random() < 0.5 else min(len(data), 600))
        data[place] ^= 1 << self.draw.randrange(8)
        file.write_bytes(data)
        name = str(file.relative_to(out))
        harness.log.unlink(missing_ok=True)
        if what == "bundle":
            self._note(what, name, *self._evaluated(out))
            return
        kind = KINDS["train" if what == "base" else "compare"]
        code = harness.forked(kind, out)
        if code == 0:
            here, whole = contents(kind, out), harness.whole[kind.name]
            odd = {key for key in here.keys() | whole.keys() if here.get(key) != whole.get(key)}
            if name == "args.yaml" and odd <= _TEXT | FOR_PEOPLE[name]:
                odd = set()
            self._note(what, name, code, odd - FOR_PEOPLE.get(name, set()), bool(odd))
        else:
            self._note(what, name, code, set())

    def _evaluated(self, out: Path) -> tuple[int, set[str]]:
        """Measure the bundle; its figures must be those of the undamaged one."""
        words = ["eval", str(out), "--data", "scenes", "--data.test", "2", "--data.size", "32", "--json"]
        weights = str(self.harness.place / "trunk.safetensors")
        code = self.harness.in_child([*words, "--weights", weights], out)
        if code:
            return code, set()
        said = self.harness.log.read_text()
        whole = self.harness.whole.setdefault("bundle", said)
        return code, set() if said == whole else {"figures"}

    def _note(self, what: str, name: str, code: int, odd: set[str], in_log: bool = False) -> None:
        said = self.harness.log.read_text() if self.harness.log.exists() else ""
        group = {"base": "run", "report": "comparison", "bundle": "bundle"}[what]
        last = name.rpartition("/")[2]
        if "/measures/" in name or "/costs/" in name:  # named by keys of 32 letters
            last = "measures/*" + last[32:] if "/measures/" in name else "costs/*" + last[32:]
        file = f"{group}: {last}"
        if code not in (0, 2) or odd:
            self.found[file]["not noticed"] += 1
            self.faults.append(f"{what}/{name}: exit {code}, {', '.join(sorted(odd))} differ: {said[-400:]}")
        elif code == 2:
            self.found[file]["refused"] += 1
            if said.count("garnish: ") != 1 or "Traceback" in said or "--debug" in said:
                self.faults.append(f"{what}/{name}: {said[-400:]}")
        elif any(words in said for words in SAID):
            self.found[file]["made again"] += 1
        else:
            self.found[file]["a figure for people" if in_log else "same result"] += 1


def flip(flips: int, seed: int, say: Callable[[str], None]) -> Flips:
    """Flip so many bits."""
    import torch

    import garnish.comparing.compare
    import garnish.training.fit  # noqa: F401

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="flips") as place:
        made = Flips(Path(place), seed)
        made.prepare()
        # undamaged, for its figures
        shutil.copytree(made.base.with_name("bundle"), made.harness.out)
        made.harness.log.unlink(missing_ok=True)
        assert made._evaluated(made.harness.out) == (0, set()), made.harness.log.read_text()
        for number in range(flips):
            made.flip(("base", "report", "bundle")[number % 3])
            if number % 10 == 9:
                say(f"{number + 1} flips")
        return made


def main() -> int:
    """Run from the command line; 1 if a flip was not noticed."""
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--flips", type=int, default=100)
    read.add_argument("--seed", type=int, default=0)
    given = read.parse_args()
    made = flip(given.flips, given.seed, lambda line: print(line, file=sys.stderr, flush=True))
    kinds = ["refused", "made again", "same result", "a figure for people", "not noticed"]
    print(f"| file | flips | {' | '.join(kinds)} |\n|---|---:|{'---:|' * len(kinds)}")
    for file, counts in sorted(made.found.items()):
        print(f"| {file} | {counts.total()} | {' | '.join(str(counts[kind] or '') for kind in kinds)} |")
    print("\n".join(made.faults), file=sys.stderr)
    return 1 if made.faults else 0


if __name__ == "__main__":
    sys.exit(main())
