"""One input after the other, in a process of its own: copy a specimen, damage it, read it, judge it."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import random
import sys
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import IO

from garnish.errors import LONGEST, GarnishError, showable

from .damage_files import TRAPS, lay_traps
from .fence import fence
from .surface import Damage, Surface, copied
from .verdicts import Refusal, Verdict, judged, place_of
from .watch import Forbidden, Hang, Started, Watch

#: An input of these is the reason to go on in a new process.
_LAST = ("hang", "memory", "event")
_STARTED = "asked for further processes, which were not started"


def work(
    surface: Surface, place: Path, numbers: list[int], seed: int, limit: float, memory: int, answers: IO[str]
) -> None:
    """Run inputs and write a line of JSON before and after each; ends early after one that may have left marks."""
    with (place / "errors.txt").open("w") as errors:  # what libraries of C say there
        os.dup2(errors.fileno(), 2)
    sys.dont_write_bytecode = True
    sys.stdin = Path(os.devnull).open()  # noqa: SIM115
    sys.path[:0] = [""]  # as of `python -m garnish`, which looks for modules in the current folder
    logging.getLogger("garnish").setLevel(logging.INFO)
    warnings.simplefilter("ignore")
    specimens = sorted(path for path in (place / "seeds").iterdir() if path.is_dir())
    with (place / "stacks.txt").open("w") as trace:
        watch = Watch(place / "input", limit, memory, trace)
        fence(place)
        for number in numbers:
            _say(answers, {"start": number})
            verdict = one(surface, watch, specimens, number, seed)
            verdict.told = verdict.told.replace(f"{place}/", "")
            _say(answers, verdict.plain())
            if verdict.kind in _LAST or verdict.told == _STARTED:
                return


def one(surface: Surface, watch: Watch, specimens: list[Path], number: int, seed: int) -> Verdict:
    """The verdict on input ``number``: every third is made by hand, the others are damaged at random."""
    draw = Random(f"{seed}/{surface.name}/{number}")
    folder = Path(watch.here)
    specimen, damage, name = _chosen(surface, specimens, number, draw)
    copied(specimen, folder)
    lay_traps(folder)
    os.chdir(folder)
    what = f"{specimen.name}: {damage(draw, folder) or name}"[:300]
    (folder.parent / "what.txt").write_text(what)  # for whoever finds this process dead
    before = _marks(folder)
    random.seed(0)
    out, err, log = io.StringIO(), io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    verdict = Verdict(surface.name, number, "accepted", what=what)
    start = time.monotonic()
    try:
        with watch.armed(), redirect_stdout(out), redirect_stderr(err):
            surface.read(folder, draw)
    except Hang as error:
        verdict.kind, verdict.told, verdict.place = "hang", f"over {watch.limit} s", place_of(error)
    except Started:
        verdict.told = _STARTED
    except Forbidden as error:
        verdict.kind, verdict.place = "event", place_of(error)
    except (Exception, SystemExit) as error:
        verdict.kind, verdict.told, verdict.place = judged(error, folder)
    except BaseException as error:  # panics of Rust
        verdict.kind, verdict.told, verdict.place = "foreign", f"{type(error).__name__}: {error}"[:300], place_of(error)
    finally:
        logging.getLogger().removeHandler(handler)
    verdict.seconds = round(time.monotonic() - start, 3)
    if watch.events or (folder / "ran").exists():
        verdict.kind, verdict.told = "event", "; ".join(watch.events[:3]) or "a file was run"
    elif verdict.kind in ("accepted", "refused"):
        _look_around(verdict, surface, watch, folder, before, out.getvalue() + err.getvalue() + log.getvalue())
    return verdict


def _chosen(surface: Surface, specimens: list[Path], number: int, draw: Random) -> tuple[Path, Damage, str]:
    """The specimen of an input, its damage, and the damage's name if it is made by hand.

    Those made by hand come in turn, in a mixed order, and each time on another specimen unless the name names one.
    """
    crafted = list(surface.crafted().items())
    Random(surface.name).shuffle(crafted)
    if number % 3 or not crafted:
        ways = surface.damages()
        damage = draw.choices([way for _, way in ways], [weight for weight, _ in ways])[0]
        return specimens[number % len(specimens)], damage, ""
    turn = number // 3
    name, damage = crafted[turn % len(crafted)]
    named = next((one for one in specimens if name.startswith(f"{one.name}/")), None)
    return named or specimens[(turn + turn // len(crafted)) % len(specimens)], damage, name


def _look_around(
    verdict: Verdict, surface: Surface, watch: Watch, folder: Path, before: dict[str, str], printed: str
) -> None:
    """What the input did beside its result."""
    grown = watch.grown()
    if grown > watch.memory:
        verdict.kind, verdict.told = "memory", f"{grown / 1e9:.1f} GB"
    else:
        odd = next((line for line in printed.split("\n") if line != showable(line)), None)
        long = next((line for line in printed.split("\n") if len(line) > 10 * LONGEST), None)
        after = _marks(folder)
        lost = [n for n, mark in before.items() if after.get(n) != mark and not _may(surface, n)]
        made = [n for n in after if n not in before and not _may(surface, n) and not surface.names_places]
        if odd is not None or long is not None:
            verdict.kind, verdict.told = "message", f"printed: {(odd or long or '')[:200]!r}"
        elif lost or made:
            verdict.kind, verdict.told = "wrong", f"changed: {lost[:3]}, left behind: {made[:3]}"


def _may(surface: Surface, name: str) -> bool:
    return any(name == one or name.startswith(f"{one}/") for one in surface.writes)


def _marks(folder: Path) -> dict[str, str]:
    """Relative name → digest of every regular file of moderate size, the target of every link."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            large = path.stat().st_size > 10**8
            found[name] = str(path.stat().st_size) if large else hashlib.sha256(path.read_bytes()).hexdigest()
    return {name: mark for name, mark in found.items() if Path(name).name not in TRAPS or name in TRAPS}


def _say(answers: IO[str], told: dict[str, object]) -> None:
    answers.write(json.dumps(told) + "\n")
    answers.flush()


def command(*words: object) -> str:
    """What a command of garnish prints on standard output.

    Raises:
        Refusal: exit code 2. Any other error than those for users is raised as it is.
    """
    from garnish import cli, output

    told: list[str] = []

    def fail(_: str, message: str, code: int, debug: bool) -> int:
        told.append(message)
        error = sys.exception()
        if code == 2 and isinstance(error, GarnishError | OSError):
            raise Refusal(message) from error
        assert error is not None
        raise error

    former, out = output._fail, io.StringIO()
    output._fail = fail
    try:
        with redirect_stdout(out):
            code = cli.main([str(word) for word in words])
    finally:
        output._fail = former
        print(out.getvalue())
    if code not in (0, 1):
        raise AssertionError(f"exit code {code}")
    return out.getvalue()
