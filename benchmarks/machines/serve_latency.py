"""What Ray Serve adds to a request: the same small one at ``garnish serve`` and under Serve with one replica.

    OMP_NUM_THREADS=1 python benchmarks/machines/serve_latency.py --rounds 5 --requests 100

Two servers of one bundle (``garnish_b0`` with LoRA, segmentation of 5 classes, pictures of 64x64, as npz) run side by
side, each pass on one thread. Requests go one after the other over one connection kept alive; the arms take turns in a
round, so that whatever else the machine does falls on both. Told are percentiles of each arm over all rounds, the
difference of the percentiles, and the smallest and largest difference of medians over rounds. Three requests: a
prediction, ``GET /v1/bundles``, which needs no pass but goes to a replica, and ``/health``, which the door answers
itself. Results: benchmarks/machines/serve_latency.json.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import garnish as gn

RESULTS = Path(__file__).with_name("serve_latency.json")
SIDE = 64


def make_bundle(folder: Path) -> Path:
    """A bundle whose adapters do something."""
    torch.manual_seed(0)
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"seg": gn.Semantic(classes=5)})
    model.save(folder / "street")
    return folder / "street"


def small_picture() -> bytes:
    """A PNG of noise."""
    data = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.contextmanager
def plain(bundle: Path, token: Path) -> Iterator[int]:
    """The port of ``garnish serve``, with a token so that its bundle is not folded into the trunk, as under Serve."""
    port = free_port()
    words = [sys.executable, "-m", "garnish", "serve", str(bundle), "--port", str(port), "--token-file", str(token)]
    with subprocess.Popen([*words, "--threads", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_ready(port)
            yield port
        finally:
            process.terminate()


@contextlib.contextmanager
def on_ray(bundle: Path, token: Path, home: Path) -> Iterator[int]:
    """The port of the application with one replica, in a cluster of its own."""
    import ray
    from ray import serve

    from garnish.serving.ray import app

    port = free_port()
    ray.init(
        num_cpus=2, include_dashboard=False, _temp_dir=str(home), object_store_memory=2 * 10**8, log_to_driver=False
    )
    try:
        serve.start(http_options={"port": port})
        serve.run(app({"bundles": str(bundle), "token-file": str(token), "threads": 1}), route_prefix="/")
        wait_until_ready(port)
        yield port
    finally:
        serve.shutdown()
        ray.shutdown()


def wait_until_ready(port: int) -> None:
    end = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError):
            to = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            to.request("GET", "/ready")
            if to.getresponse().status == 200:
                return
        if time.monotonic() > end:
            raise SystemExit(f"the server at {port} is not ready within 120 s")
        time.sleep(0.2)


class Asking:
    """One connection that is kept."""

    def __init__(self, port: int, route: str, picture: bytes) -> None:
        self.to, self.route, self.picture = http.client.HTTPConnection("127.0.0.1", port, timeout=60), route, picture

    def once(self) -> float:
        """Milliseconds of a request, from its first byte to the answer's last."""
        began = time.perf_counter()
        if self.route == "health":
            self.to.request("GET", "/health")
        elif self.route == "bundles":
            self.to.request("GET", "/v1/bundles")
        else:
            headers = {"Content-Type": "image/png", "Accept": "application/x-npz"}
            self.to.request("POST", "/v1/predict?bundle=street", self.picture, headers)
        answer = self.to.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"{self.route}: answered {answer.status}")
        return (time.perf_counter() - began) * 1000


def summary(rounds: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Percentiles of the arms, and what is added."""
    found: dict[str, Any] = {}
    for arm, times in rounds.items():
        flat = np.concatenate([np.asarray(one) for one in times])
        found[arm] = {f"p{share}": round(float(np.percentile(flat, share)), 2) for share in (50, 99)}
    found["added"] = {key: round(found["serve"][key] - found["plain"][key], 2) for key in ("p50", "p99")}
    each = [np.median(b) - np.median(a) for a, b in zip(rounds["plain"], rounds["serve"], strict=True)]
    found["added"]["p50_of_rounds"] = [round(float(min(each)), 2), round(float(max(each)), 2)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100, help="of each arm and route in a round")
    parser.add_argument(
        "--warm", type=int, default=20, help="requests before, of each arm and route, that do not count"
    )
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="lat"))  # short: Ray's sockets lie below it
    routes, load = ("predict", "bundles", "health"), [os.getloadavg()[0]]
    try:
        bundle, token = make_bundle(home), home / "token"
        token.write_text("a-token-of-a-benchmark")
        with plain(bundle, token) as first, on_ray(bundle, token, home / "r") as second:
            found: dict[str, Any] = {}
            for route in routes:
                asking = {
                    "plain": Asking(first, route, small_picture()),
                    "serve": Asking(second, route, small_picture()),
                }
                for one in asking.values():
                    for _ in range(given.warm):
                        one.once()
                rounds: dict[str, list[list[float]]] = {arm: [] for arm in asking}
                for number in range(given.rounds):
                    for arm in sorted(asking, reverse=bool(number % 2)):
                        rounds[arm].append([asking[arm].once() for _ in range(given.requests)])
                    load.append(os.getloadavg()[0])
                found[route] = summary(rounds)
                print(route, json.dumps(found[route]), flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    import ray

    facts = {
        "milliseconds": found,
        "rounds": given.rounds,
        "requests": given.requests,
        "picture": f"{SIDE}x{SIDE}",
        "load_1min": {"least": round(min(load), 1), "most": round(max(load), 1)},
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": ray.__version__,
    }
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
