"""An hour of a server's life: mixed traffic, faults, bundles that come and go, slow clients, a kill, a full disk.

    OMP_NUM_THREADS=1 python benchmarks/serving/soak.py --seconds 3600

A ``garnish serve`` process has six bundles on one ``garnish_b0`` (LoRA, AdaptFormer, SSF; segmentation and depth), of
which its memory bound keeps some. Threads ask for pictures of odd sizes through :mod:`garnish.client`, each answer held
against ``Model.predict`` of the bundle alone. One request in twenty is faulty; others break off or send their body at a
trickle; a seventh bundle is uploaded, asked and removed again and again. At the end the server is killed with a bundle
uploaded, started again, and asked for it; then its folder of uploads is full. Results: benchmarks/serving/soak.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import garnish as gn
from garnish.client import Client
from garnish.errors import GarnishError

RESULTS = Path(__file__).with_name("soak.json")
METHODS = (gn.LoRA(rank=4), gn.AdaptFormer(bottleneck=8), gn.SSF())
SIZES = ((96, 128), (97, 131), (160, 112), (64, 64), (33, 250))
#: Largest relative difference of a map, and least share of equal labels, to what ``Model.predict`` gives.
FAR, EQUAL = 1e-5, 0.9999


@dataclass
class Told:
    """What happened, counted by all threads.

    Attributes:
        counts: kind of event → how often.
        faults: what must not happen, a line each.
        largest: relative difference of a map of numbers to that of ``Model.predict``.
        labels: pixels of maps of classes, and how many of them differ.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    largest: float = 0.0
    labels: list[int] = field(default_factory=lambda: [0, 0])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """One more of a kind."""
        with self.lock:
            self.counts[what] += 1

    def fault(self, line: str) -> None:
        """What must not happen has."""
        with self.lock:
            self.faults.append(line[:400])

    def compare(self, where: str, got: np.ndarray, wanted: np.ndarray) -> None:
        """A served map against the model's."""
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            return self.fault(f"{where}: {got.shape} {got.dtype}, the model gives {wanted.shape} {wanted.dtype}")
        with self.lock:
            if got.dtype == np.uint8:
                self.labels[0] += got.size
                self.labels[1] += int((got != wanted).sum())
                wrong = (got != wanted).mean() > 1 - EQUAL
            else:
                far = float(np.abs(got - wanted).max() / np.abs(wanted).max())
                self.largest = max(self.largest, far)
                wrong = far > FAR
        if wrong:
            self.fault(f"{where}: differs from the model")
        return None


def bundles(folder: Path, count: int = 7) -> list[Path]:
    """Bundles on one trunk, moved off the identity."""
    made = []
    for number in range(count):
        torch.manual_seed(number)
        tasks = {"seg": gn.Semantic(classes=3 + number), "depth": gn.Depth(max_metres=10.0)}
        model = gn.adapt(gn.backbone("garnish_b0"), METHODS[number % len(METHODS)], tasks, gn.LinearHead())
        with torch.no_grad():
            for parameter in model.trained_parameters().values():
                parameter.add_(0.02 * torch.randn_like(parameter))
        made.append(model.eval().save(folder / f"bundle{number}"))
    return made


def pictures() -> list[Image.Image]:
    """Scenes of odd sizes."""
    scenes = gn.Scenes(len(SIZES), size=256, seed=5)
    found = [Image.fromarray(scenes[i].image.permute(1, 2, 0).numpy()) for i in range(len(SIZES))]
    return [picture.resize((width, height)) for picture, (height, width) in zip(found, SIZES, strict=True)]


class Server:
    """A ``garnish serve`` process."""

    def __init__(self, folders: list[Path], uploads: Path, token: Path, log: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = ["serve", *map(str, folders), "--port", str(self.port), "--uploads", str(uploads)]
        words += ["--token-file", str(token), "--log", "json", *options]
        self.log = log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "garnish", *words], stdout=stream, stderr=stream
            )
        self.url = f"http://127.0.0.1:{self.port}"
        self._wait()

    def _wait(self) -> None:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/ready", timeout=5):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.2)
        raise SystemExit(f"the server did not start:\n{self.log.read_text()[-2000:]}")

    def resident(self) -> int:
        """Bytes of the process in memory now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(how)
        return self.process.wait(60)


def ask(client: Client, drawn: random.Random, wanted: dict[tuple[str, int], Any], told: Told) -> None:
    """One request for up to three bundles and some of their tasks, held against the models."""
    number = drawn.randrange(len(SIZES))
    names = drawn.sample(sorted({name for name, _ in wanted}), drawn.choice((1, 1, 2, 3)))
    tasks = drawn.choice((None, None, ["seg"], ["depth"]))
    try:
        found = client.predict(PICTURES[number], bundle=names, tasks=tasks, retries=5)
    except GarnishError as error:
        if getattr(error, "retry_after", None) is not None:
            return told.count("503")
        return told.fault(f"{names} {tasks}: {type(error).__name__}: {error}")
    told.count("answered")
    for name in names:
        for task in tasks or ("seg", "depth"):
            told.compare(f"{name}/{task} of picture {number}", found[name].maps[task], wanted[name, number][task])
    return None


def faulty(port: int, drawn: random.Random, told: Told) -> None:
    """A request that must be refused with a 4xx."""
    method, path, headers, body = drawn.choice(FAULTY)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{head}"
            line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body)
            answer = line.makefile("rb").readline().decode("latin-1")
    except OSError as error:
        return told.fault(f"faulty {path}: {error}")
    if not answer.startswith("HTTP/1.1 4"):
        return told.fault(f"faulty {method} {path} {headers}: {answer.strip()}")
    return told.count("refused")


FAULTY: list[tuple[str, str, dict[str, str], bytes]] = [
    ("POST", "/v1/predict", {"Content-Type": "image/png"}, b"no picture"),
    ("POST", "/v1/predict?bundle=nobody", {"Content-Type": "image/png"}, b"\x89PNG\r\n\x1a\n"),
    ("POST", "/v1/predict", {"Content-Type": "application/json"}, b'{"image": "@@@"}'),
    ("POST", "/v1/predict", {"Content-Type": "application/json"}, b'{"image": '),
    ("POST", "/v1/predict", {"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\nbroken"),
    ("POST", "/v1/predict", {"Content-Type": "text/plain"}, b"hello"),
    ("GET", "/v1/bundles/..%2f..%2fetc", {}, b""),
    ("PUT", "/v1/bundles/bundle1", {"Authorization": "Bearer wrong"}, b""),
    ("DELETE", "/v1/bundles/bundle1", {}, b""),
    ("GET", "/v1/predict", {}, b""),
]


def breaks_off(port: int, drawn: random.Random, told: Told) -> None:
    """Clients that go away: in the body, or before the answer; or that send a few bytes a second."""
    body = b"\x89PNG\r\n\x1a\n" + drawn.randbytes(2000)
    head = f"POST /v1/predict?bundle=bundle0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: image/png\r\n"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        for start in range(0, drawn.choice((100, 1000, 2008)), 50):
            line.sendall(body[start : start + 50])
            time.sleep(drawn.choice((0, 0, 0.05)))
    told.count("broken off")


def come_and_go(client: Client, folder: Path, wanted: dict[tuple[str, int], Any], told: Told, number: int) -> None:
    """A bundle is uploaded, asked, and removed."""
    name = f"guest{number % 3}"
    try:
        client.put(name, folder)
        found = client.predict(PICTURES[0], bundle=name, retries=5)
        for task in ("seg", "depth"):
            told.compare(f"{name}/{task}", found.maps[task], wanted[folder.name, 0][task])
        client.remove(name)
        told.count("came and went")
    except GarnishError as error:
        if getattr(error, "retry_after", None) is not None:
            return told.count("503")
        told.fault(f"{name}: {type(error).__name__}: {error}")
    return None


PICTURES: list[Image.Image] = []


def traffic(seconds: float, steps: list[Callable[[random.Random], None]]) -> Iterator[float]:
    """Run each step again and again in a thread of its own; yields the share of time that has passed, every second."""
    stop, begun = threading.Event(), time.monotonic()

    def again(step: Callable[[random.Random], None], seed: int) -> None:
        drawn = random.Random(seed)
        while not stop.is_set():
            step(drawn)

    threads = [threading.Thread(target=again, args=(step, seed), daemon=True) for seed, step in enumerate(steps)]
    for thread in threads:
        thread.start()
    while (passed := time.monotonic() - begun) < seconds:
        yield passed / seconds
        time.sleep(1)
    stop.set()
    for thread in threads:
        thread.join(120)


def restarted(folders: list[Path], guest: Path, work: Path, token: Path, server: Server, told: Told) -> Server:
    """Kill the server with a bundle uploaded; started again, it has the bundle."""
    with Client(server.url, token=token.read_text()) as client:
        client.put("kept", guest)
    server.stop(signal.SIGKILL)
    again = Server(folders, work / "uploads", token, work / "again.log")
    with Client(again.url) as client:
        names = list(client.bundles())
    if "kept" not in names:
        told.fault(f"after a kill there is no bundle kept: {names}")
    return again


def full_disk(folders: list[Path], guest: Path, work: Path, token: Path, told: Told) -> None:
    """An upload to a full disk is refused, and the server goes on; needs to mount a file system."""
    place = work / "full"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        told.count("full disk not tried: only root may mount")
        return
    server = Server(folders, place, token, work / "full.log")
    try:
        with Client(server.url, token=token.read_text()) as client:
            try:
                client.put("big", guest)
                told.fault("an upload fitted on a full disk")
            except GarnishError as error:
                told.count("507" if "space" in str(error).lower() else "refused by a full disk otherwise")
            client.predict(PICTURES[0], bundle="bundle0")
        if left := [file.name for file in place.iterdir()]:
            told.fault(f"a full disk holds {left}")
    finally:
        server.stop()
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def measure(seconds: float, work: Path) -> dict[str, Any]:
    """Run it all; facts for the results."""
    with contextlib.ExitStack() as asking:
        return _measured(seconds, work, asking)


def _measured(seconds: float, work: Path, asking: contextlib.ExitStack) -> dict[str, Any]:
    torch.set_num_threads(1)
    told = Told()
    folders = bundles(work / "bundles")
    PICTURES[:] = pictures()
    wanted = {}
    for folder in folders:
        model = gn.load(folder)
        wanted |= {(folder.name, n): model.predict(p).numpy() for n, p in enumerate(PICTURES)}
    token = work / "token"
    token.write_text("secret-of-the-soak")
    *served, guest = folders
    one = sum(file.stat().st_size for file in served[0].iterdir())
    server = Server(served, work / "uploads", token, work / "server.log", "--memory", f"{8 * one / 1e9:.6f}")
    regulars = {key: maps for key, maps in wanted.items() if key[0] != guest.name}
    clients = [asking.enter_context(Client(server.url, token=token.read_text())) for _ in range(5)]
    numbers = iter(range(10**9))

    def mixed(client: Client) -> Callable[[random.Random], None]:
        def step(drawn: random.Random) -> None:
            if drawn.random() < 0.05:
                faulty(server.port, drawn, told)
            else:
                ask(client, drawn, regulars, told)

        return step

    def going(drawn: random.Random) -> None:
        breaks_off(server.port, drawn, told)
        time.sleep(0.5)

    def guests(drawn: random.Random) -> None:
        come_and_go(clients[4], guest, wanted, told, next(numbers))
        time.sleep(0.2)

    sizes: list[tuple[float, int]] = []
    for share in traffic(seconds, [*map(mixed, clients[:4]), going, guests]):
        sizes.append((share, server.resident()))
    tenth = max(size for share, size in sizes if share <= 0.1)
    last = server.resident()
    lines = server.log.read_text().splitlines()
    status = Counter(json.loads(line).get("status") for line in lines if line.startswith("{"))
    if odd := [line for line in lines if "Traceback" in line]:
        told.fault(f"{len(odd)} tracebacks in the log")
    told.faults += [f"status {code}: {n} times" for code, n in status.items() if code and code >= 500 and code != 503]
    again = restarted(served, guest, work, token, server, told)
    if code := again.stop():
        told.fault(f"stopped with {code}")
    full_disk(served[:1], guest, work, token, told)
    return {
        "seconds": seconds, "counts": dict(told.counts), "status": {str(k): v for k, v in status.items()},
        "faults": told.faults, "largest_relative_difference": told.largest,
        "labels": told.labels[0], "labels_that_differ": told.labels[1],
        "memory_after_a_tenth": tenth, "memory_at_the_end": last, "memory_ratio": last / tenth,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = measure(given.seconds, Path(work))
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    if found["faults"] or found["memory_ratio"] > 1.05:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
