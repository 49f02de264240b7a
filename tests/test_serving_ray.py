"""A server under Ray Serve: two replicas on this machine, real bundles, changes and deaths under traffic."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import random
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
    ray.init(num_cpus=3, include_dashboard=False, _temp_dir=home, object_store_memory=200_000_000, log_to_driver=False)
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


def maps(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data)) as found:
        return {name: found[name] for name in found.files if name != "answer.json"}


def predicted(folder: Path, pixels: np.ndarray) -> dict[str, bytes]:
    found = gn.load(folder).predict(pixels)
    return {task: found[task].tobytes() for task in ("seg", "depth")}


def upload(folder: Path) -> bytes:
    made = b""
    for name in ("bundle.json", "weights.safetensors"):
        head = f'--bb\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
        made += head.encode() + (folder / name).read_bytes() + b"\r\n"
    return made + b"--bb--\r\n"


def change(port: int, method: str, name: str, folder: Path | None = None) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "multipart/form-data; boundary=bb"}
    return ask(port, method, f"/v1/bundles/{name}", None if folder is None else upload(folder), headers)


def replica_pids(port: int) -> list[int]:
    import ray.util.state

    return []


def test_answers_are_those_of_predict(port, bundles):
    pixels = picture(70, 90)
    for name, folder in (("street", "street"), ("cracks", "cracks"), ("third", "old")):
        status, data = ask(port, "POST", f"/v1/predict?bundle={name}", png(pixels), NPZ)
        assert status == 200, data
        got = {key.rpartition("/")[2]: value.tobytes() for key, value in maps(data).items()}
        assert got == predicted(bundles / folder, pixels)
