"""A server under Ray Serve: two replicas on this machine, real bundles, changes and deaths under traffic."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import garnish as gn
from serving_http_cases import picture, png

ray = pytest.importorskip("ray", reason="needs Ray Serve: pip install 'garnish[ray]'")
psutil = pytest.importorskip("psutil", reason="needs psutil, which Ray brings")
serve = pytest.importorskip("ray.serve", reason="needs Ray Serve: pip install 'garnish[ray]'")
pytestmark = pytest.mark.slow

TOKEN = "a-token-of-this-test"
NPZ = {"Accept": "application/x-npz", "Content-Type": "image/png"}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    """Bundles of one trunk whose adapters do something: two that are served, and two states of a third."""
    folder = tmp_path_factory.mktemp("bundles")
    for seed, name in enumerate(("street", "cracks", "old", "new")):
        torch.manual_seed(seed)
        model = gn.adapt(
            gn.backbone("garnish_b0"), gn.LoRA(rank=2), {"seg": gn.Semantic(classes=5), "depth": gn.Depth()}
        )
        with torch.no_grad():
            for parameter in model.trained_parameters().values():
                parameter.add_(0.02 * torch.randn_like(parameter))
        model.save(folder / name)
    return folder


@pytest.fixture(scope="module")
def port(bundles):
    """The port of the application, in a cluster of its own."""
    from garnish.serving.ray import app

    home = tempfile.mkdtemp(prefix="r", dir="/tmp")  # its sockets have names of a hundred characters at most
    with socket.create_server(("127.0.0.1", 0)) as free:
        found = free.getsockname()[1]
    (bundles / "token").write_text(TOKEN)
    if "RAY_ADDRESS" in os.environ:  # one that runs: where this machine is too busy to start one within Ray's 30 s
        ray.init(log_to_driver=False)
    else:
        ray.init(
            num_cpus=3, include_dashboard=False, _temp_dir=home, object_store_memory=2 * 10**8, log_to_driver=False
        )
    try:
        serve.start(http_options={"port": found})
        args = {
            "bundles": f"{bundles}/street,{bundles}/cracks,third={bundles}/old",
            "replicas": 2,
            "spread": 3,
            "token-file": str(bundles / "token"),
        }
        serve.run(app(args), route_prefix="/")
        yield found
    finally:
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(home, ignore_errors=True)


def ask(port: int, method: str, path: str, body: bytes | None = None, headers: dict | None = None) -> tuple[int, bytes]:
    to = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        to.request(method, path, body, headers or {})
        answer = to.getresponse()
        return answer.status, answer.read()
    finally:
        to.close()


def maps(data: bytes, bundle: str) -> dict[str, np.ndarray]:
    """Task → map of one bundle of an npz."""
    with np.load(io.BytesIO(data)) as found:
        return {name.rpartition("/")[2]: found[name] for name in found.files if name.startswith(f"{bundle}/")}


def predicted(folder: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What the model alone gives."""
    found = gn.load(folder).predict(pixels)
    return {task: found[task].numpy() for task in ("seg", "depth")}


def is_near(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    """As for a server alone: passes of other pictures and bundles beside it move the last bits of a picture's maps."""
    if got.keys() != wanted.keys() or any(got[task].shape != wanted[task].shape for task in got):
        return False
    seg, depth = got["seg"] == wanted["seg"], np.abs(got["depth"] - wanted["depth"])
    return bool(seg.mean() >= 0.999 and depth.max() <= 1e-5 * np.abs(wanted["depth"]).max())


def upload(folder: Path) -> bytes:
    made = b""
    for name in ("bundle.json", "weights.safetensors"):
        head = f'--bb\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
        made += head.encode() + (folder / name).read_bytes() + b"\r\n"
    return made + b"--bb--\r\n"


def change(port: int, method: str, name: str, folder: Path | None = None) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "multipart/form-data; boundary=bb"}
    return ask(port, method, f"/v1/bundles/{name}", None if folder is None else upload(folder), headers)


def replica_pids() -> list[int]:
    """Of our own cluster: whatever else runs on this machine is no child of this process."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if one.name().startswith("ray::ServeRepl") and "Replicas" in " ".join(one.cmdline()):
                found.append(one.pid)
    return sorted(found)


class Traffic:
    """Clients that ask for one bundle all the time, and keep what they get: (begun, ended, status, maps)."""

    def __init__(self, port: int, bundle: str, pixels: np.ndarray, clients: int = 2) -> None:
        self.port, self.bundle, self.file = port, bundle, png(pixels)
        self.got: list[tuple[float, float, int, dict[str, np.ndarray]]] = []
        self.end = threading.Event()
        self.threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        while not self.end.is_set():
            began = time.monotonic()
            status, data = ask(self.port, "POST", f"/v1/predict?bundle={self.bundle}", self.file, NPZ)
            self.got.append((began, time.monotonic(), status, maps(data, self.bundle) if status == 200 else {}))

    def __enter__(self) -> Traffic:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.end.set()
        for thread in self.threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        wanted, end = len(self.got) + count, time.monotonic() + 120
        while len(self.got) < wanted:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_answers_are_those_of_predict(port, bundles):
    pixels = picture(70, 90)
    for name, folder in (("street", "street"), ("cracks", "cracks"), ("third", "old")):
        status, data = ask(port, "POST", f"/v1/predict?bundle={name}", png(pixels), NPZ)
        assert status == 200, data
        assert is_near(maps(data, name), predicted(bundles / folder, pixels)), name


def test_it_says_what_one_server_says(port):
    for path, status, says in (
        ("/health", 200, b"alive"),
        ("/ready", 200, b"true"),
        ("/v1/bundles", 200, b'["cracks","street","third"]'),
        ("/v1/bundles/stret", 404, b"did you mean 'street'?"),
        ("/", 200, b"<html"),
        ("/openapi.json", 200, b'"openapi"'),
        ("/nowhere", 404, b"there is nothing at"),
    ):
        found, data = ask(port, "GET", path)
        assert found == status and says in data, (path, data[:300])
    status, data = ask(port, "POST", "/v1/predict?bundle=street", b"none", {"Content-Type": "image/png"})
    assert status == 422, data
    assert ask(port, "GET", "/v1/bundles", headers={"Host": "evil.example"})[0] == 403
    assert ask(port, "DELETE", "/v1/bundles/street", headers={"Authorization": "Bearer no"})[0] == 401
    text = ask(port, "GET", "/metrics")[1].decode()
    assert len(set(re.findall('garnish_bundles{replica="([^"]+)",state="known"} 3.0', text))) == 2, text[:3000]


def test_a_bundle_is_warm_in_one_place_and_a_hot_one_spreads(port):
    def passes() -> list[float]:
        text = ask(port, "GET", "/metrics")[1].decode()
        return [float(count) for count in re.findall('garnish_batch_size_count{replica="[^"]+"} ([0-9.]+)', text)]

    before, pixels = passes(), picture(40, 40)
    for _ in range(12):
        assert ask(port, "POST", "/v1/predict?bundle=street", png(pixels), NPZ)[0] == 200
    one_by_one = [b - a for a, b in zip(before, passes(), strict=True)]
    assert sorted(one_by_one) == [0, 12]
    before = passes()
    with Traffic(port, "street", picture(200, 200), clients=10) as traffic:
        traffic.wait_for_more(40)
    assert min(b - a for a, b in zip(before, passes(), strict=True)) > 0
    assert {status for _, _, status, _ in traffic.got} == {200}


def test_a_bundle_is_replaced_under_traffic_and_no_request_fails(port, bundles):
    pixels = picture(48, 64)
    states = {name: predicted(bundles / name, pixels) for name in ("old", "new")}
    assert not is_near(states["old"], states["new"])
    changes: list[tuple[float, float, str]] = []
    with Traffic(port, "third", pixels, clients=4) as traffic:  # more than the spread: both replicas answer
        for number in range(8):
            traffic.wait_for_more(8)
            name, began = ("new", "old")[number % 2], time.monotonic()
            status, data = change(port, "PUT", "third", bundles / name)
            assert status == 200, data
            changes.append((began, time.monotonic(), name))
        traffic.wait_for_more(8)
    assert Counter(status for _, _, status, _ in traffic.got) == {200: len(traffic.got)}
    seen = set()
    for began, ended, _, got in traffic.got:
        (state,) = [name for name, wanted in states.items() if is_near(got, wanted)]  # the one or the other, no mixture
        seen.add(state)
        settled = [name for _, done, name in changes if done < began]  # answered before this request began
        open_ = [name for start, done, name in changes if start < ended and done >= began]
        assert state in {(settled or ["old"])[-1], *open_}
    assert seen == states.keys()
    assert change(port, "DELETE", "third")[0] == 204  # what the start names is served again
    status, data = ask(port, "POST", "/v1/predict?bundle=third", png(pixels), NPZ)
    assert is_near(maps(data, "third"), states["old"])


def test_what_is_put_is_served_by_all_until_it_goes(port, bundles):
    pixels = picture(33, 47)
    assert change(port, "PUT", "fourth", bundles / "new")[0] == 201
    for names in (["fourth"], ["street", "fourth"], ["cracks", "fourth"], ["street", "cracks", "fourth"]):
        status, data = ask(port, "POST", "/v1/predict?bundle=" + "&bundle=".join(names), png(pixels), NPZ)
        assert status == 200, data
        assert is_near(maps(data, "fourth"), predicted(bundles / "new", pixels)), names
    assert change(port, "PUT", "fourth")[0] in (400, 415)
    assert change(port, "DELETE", "fourth")[0] == 204
    for _ in range(6):
        assert ask(port, "POST", "/v1/predict?bundle=fourth", png(pixels), NPZ)[0] == 404
    assert change(port, "DELETE", "fourth")[0] == 404


def test_a_replica_that_is_killed_is_replaced_and_its_requests_go_to_another(port, bundles):
    assert change(port, "PUT", "kept", bundles / "new")[0] == 201
    pixels = picture(48, 64)
    wanted = predicted(bundles / "new", pixels)
    before = replica_pids()
    assert len(before) == 2
    with Traffic(port, "kept", pixels, clients=4) as traffic:
        traffic.wait_for_more(10)
        for pid in before:  # one after the other: the second has to have learnt what was put before it started
            os.kill(pid, signal.SIGKILL)
            end = time.monotonic() + 180
            while len(replica_pids()) < 2 or pid in replica_pids():
                assert time.monotonic() < end
                time.sleep(0.2)
            while len(re.findall('replica="([^"]+)",state="known"', ask(port, "GET", "/metrics")[1].decode())) < 2:
                assert time.monotonic() < end
                time.sleep(0.5)
            traffic.wait_for_more(10)
    assert not set(before) & set(replica_pids())
    assert Counter(status for _, _, status, _ in traffic.got) == {200: len(traffic.got)}
    assert all(is_near(got, wanted) for _, _, _, got in traffic.got)
    assert change(port, "DELETE", "kept")[0] == 204
