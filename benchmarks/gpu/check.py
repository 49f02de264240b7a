"""Checks and measures the package on one accelerator within a time limit, and writes docs/gpu.md.

    sh benchmarks/gpu.sh                          # on a GPU
    sh benchmarks/gpu.sh --device cpu --quick     # all of it but CUDA itself, on tiny trunks; prints the page

Each part (see parts.py) is a process of its own with a time box: what it has found by then counts, what it had not got
to is said on the page, and a part that crashes takes no other with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import selectors
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import page

try:
    import torch
except ImportError:  # told with all else that is missing
    torch = None

ROOT = Path(__file__).resolve().parents[2]
#: part → most seconds; together less than the eight minutes
BOXES = {"conformance": 95, "eager": 110, "mixed": 70, "compiled": 180}


def run_part(command: Sequence[str], seconds: float) -> dict[str, Any]:
    """Run a process that prints a JSON object a line, for so long at most.

    Returns:
        ``rows``: its objects; ``ended``: "" where it ended by itself and well, else what happened; ``seconds``.
    """
    start, rows, pending = time.monotonic(), [], b""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    ended = ""
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = start + seconds - time.monotonic()
            if left <= 0 or not waiting.select(left):
                process.kill()
                ended = f"was stopped after its {seconds:.0f} s"
                break
            read = os.read(process.stdout.fileno(), 2**16)
            if not read:
                break
            *lines, pending = (pending + read).split(b"\n")
            rows += [json.loads(line) for line in lines]
    process.stdout.close()
    status = process.wait()
    if status and not ended:
        ended = f"ended with status {status}; its last words stand in the output above"
    return {"rows": rows, "ended": ended, "seconds": round(time.monotonic() - start, 1)}


def missing() -> list[str]:
    """What pyproject.toml asks for, and PEFT, as far as it is absent or older."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    found = []
    for line in [*wanted, "peft"]:
        name, least = re.fullmatch(r"([\w-]+)(?:>=([\d.]+))?.*", line).groups()  # type: ignore[union-attr]
        try:
            there = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(f"{name} is missing")
            continue
        if least and _numbers(there) < _numbers(least):
            found.append(f"{name} is {there}, older than {least}")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version."""
    return tuple(int(part) for part in re.match(r"[\d.]*", version).group().strip(".").split("."))  # type: ignore[union-attr]


def machine(device: str) -> dict[str, Any]:
    """The device and the versions."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "versions": {"torch": str(torch.__version__)}
        | {n: metadata.version(n) for n in ("timm", "peft") if list(metadata.distributions(name=n))},
    }
    if device == "cuda":
        facts = torch.cuda.get_device_properties(0)
        found |= {"name": facts.name, "memory": facts.total_memory, "cuda": torch.version.cuda}
    else:
        found |= {"name": f"the CPU, {os.cpu_count()} cores", "memory": None, "cuda": None}
    return found


def main(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny trunks, few cases, two rounds")
    parser.add_argument("--minutes", type=float, default=8.0, help="most minutes for all parts together")
    parser.add_argument("--parts", nargs="+", choices=list(BOXES), default=list(BOXES))
    parser.add_argument("--page", type=Path, help="where to write; docs/gpu.md for a whole run on a GPU, else printed")
    args = parser.parse_args(given)
    start = time.monotonic()
    lacking = missing()
    for line in lacking:
        print(line, file=sys.stderr, flush=True)
    if torch is None:
        print("nothing can be run without torch", file=sys.stderr)
        return 1
    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device, so nothing was run; --device cpu --quick tries the script", file=sys.stderr)
        return 1
    found: dict[str, Any] = {
        "command": " ".join(["sh benchmarks/gpu.sh", *given]),
        "device": args.device,
        "quick": args.quick,
        "missing": lacking,
        "machine": machine(args.device),
        "parts": {},
    }
    limit = 60 * args.minutes
    for name in args.parts:
        box = min(BOXES[name], limit - (time.monotonic() - start) - 2)
        if box < 5:
            found["parts"][name] = {"rows": [], "ended": "was not begun: no time was left", "seconds": 0.0}
            continue
        script = str(Path(__file__).with_name("parts.py"))
        options = ["--device", args.device, "--seconds", f"{box:.0f}", *["--quick"] * args.quick]
        found["parts"][name] = run_part([sys.executable, script, name, *options], box)
        print(
            f"{name}: {found['parts'][name]['seconds']} s {found['parts'][name]['ended']}", file=sys.stderr, flush=True
        )
    found["seconds"] = round(time.monotonic() - start)
    whole = args.device == "cuda" and not args.quick and args.parts == list(BOXES)
    where = args.page or (page.PAGE if whole else None)
    text = page.text(found)
    if where is None:
        print(text)
    else:
        where.write_text(text, "utf-8")
        print(f"written to {where}", file=sys.stderr)
    return int(page.failed(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
