"""Servers in processes of their own: signals, slow clients, malformed requests, and the command with a real bundle."""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import garnish as gn
import tiny
from garnish.cli import main
from garnish.serving.named_folders import named_folders
from garnish.serving.starting import Serving, start_serving
from serving_fakes import write_bundle
from serving_http_cases import picture, png

HERE = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), str(HERE)]),
    "OMP_NUM_THREADS": "1",
}
PREDICT = "/v1/predict?bundle=street"
OCTETS = {"Content-Type": "application/octet-stream"}


def fake_words(folder: Path, seconds: float = 0.0) -> list[str]:
    return [sys.executable, str(HERE / "serving_fake_server.py"), str(folder), str(seconds)]


@contextlib.contextmanager
def running(words: list[str], lines: int = 1) -> Iterator[tuple[subprocess.Popen, int]]:
    """A server and its port, once it is ready; it says so many lines, which are ``process.said``."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True)
    try:
        assert process.stdout is not None
        process.said = "".join(process.stdout.readline() for _ in range(lines))
        found = re.match(r"http://127\.0\.0\.1:([0-9]+): ", process.said)
        assert found, (process.said, process.communicate(timeout=30))
        port = int(found[1])
        while ask(port, "GET", "/ready")[0] != 200:
            time.sleep(0.02)
        yield process, port
    finally:
        process.kill()
        process.communicate()


def ask(port: int, method: str, path: str, body: bytes | None = None, headers: dict | None = None) -> tuple[int, bytes]:
    to = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        to.request(method, path, body, headers or {})
        answer = to.getresponse()
        return answer.status, answer.read()
    finally:
        to.close()


def in_thread(answers: list, *asked: object) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(ask(*asked)))
    thread.start()
    return thread


def test_a_signal_ends_it_when_what_was_accepted_is_answered(tmp_path):
    with running(fake_words(tmp_path, 1.0)) as (process, port):
        answers: list = []
        thread = in_thread(answers, port, "POST", PREDICT, png(picture()), OCTETS)
        time.sleep(0.4)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        refused, told = ask(port, "POST", PREDICT, png(picture()), OCTETS)
        ready, _ = ask(port, "GET", "/ready")
        health, _ = ask(port, "GET", "/health")
        thread.join()
        _, log = process.communicate(timeout=20)
    assert answers[0][0] == 200
    assert (refused, ready, health) == (503, 503, 200) and b"stopping" in told
    assert process.returncode == 0
    told = [json.loads(line) for line in log.splitlines()]
    assert [told[0]["message"], told[-1]["message"]] == ["started", "stopped"]
    assert told[0]["address"] == told[-1]["address"] == f"http://127.0.0.1:{port}" and told[0]["pid"] == process.pid


def test_a_second_signal_ends_it_at_once(tmp_path):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nContent-Type: image/png\r\n\r\n"
    with running(fake_words(tmp_path)) as (process, port), socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(head)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None  # the body may come yet
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM


def test_a_body_of_two_lengths_hides_no_request(tmp_path):
    hidden = b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n"
    with running(fake_words(tmp_path)) as (_, port), socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(head + b"Content-Length: %d\r\n\r\n" % len(hidden) + hidden)
        answer = line.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(("takes", "connection"), [(False, "keep-alive"), (False, "close"), (True, "close")])
def test_who_takes_nothing_is_let_go(tmp_path, connection, takes):
    code = "import garnish.serving.running as r; r._TAKING_SECONDS = 0.8; import serving_fake_server as s; s.main()"
    body = png(picture(990, 990))
    head = (
        f"POST {PREDICT}&confidence=true HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n"
        f"Accept: application/x-npz\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with running([sys.executable, "-c", code, str(tmp_path)]) as (_, port), socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        line.connect(("127.0.0.1", port))
        line.sendall(head.encode() + body)
        line.settimeout(20)
        read, end = line.recv(1), time.monotonic() + 2
        if not takes:
            time.sleep(2)
        with contextlib.suppress(ConnectionResetError):
            while piece := line.recv(65_536):
                read += piece
                if time.monotonic() < end:
                    time.sleep(0.02)  # longer than it may take nothing, and all the while it takes some
    whole = int(re.search(rb"content-length: ([0-9]+)", read)[1])
    assert (len(read.partition(b"\r\n\r\n")[2]) == whole > 8_000_000) is takes


def malformed():
    spec = importlib.util.spec_from_file_location("malformed", HERE.parent / "benchmarks/serving/malformed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_malformed_requests_do_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    tool = malformed()
    for shift, name in enumerate(("street", "cracks")):
        write_bundle(tmp_path / "bundles" / name, shift)
    found = tool.run(12 * len(tool.KINDS), 7, tmp_path, fake_words(tmp_path))
    assert found["faults"] == []
    answered = {status for of in found["answers"].values() for status in of}
    assert {"200", "400", "401", "403", "404", "405", "406", "413", "415", "422"} <= answered
    assert not (tmp_path / "odd").exists()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    """Two bundles of the trunk that comes with garnish, with adapters that do something."""
    folder = tmp_path_factory.mktemp("bundles")
    for seed, (name, tasks) in enumerate(
        {
            "street": {"seg": gn.Semantic(classes=5), "depth": gn.Depth()},
            "cracks": {"seg": gn.Semantic(classes=2)},
        }.items()
    ):
        torch.manual_seed(seed)
        model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), tasks)
        with torch.no_grad():
            for parameter in model.trained_parameters().values():
                parameter.add_(0.02 * torch.randn_like(parameter))
        model.save(folder / name)
    return folder


def opened(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("changing", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["many", "merged"])
def test_the_command_answers_what_predict_writes(bundles, tmp_path, changing):
    words = [sys.executable, "-m", "garnish", "serve", str(bundles / "street"), "--port", "0", "--queue", "8"]
    token = {"Authorization": "Bearer a-token-of-this-test"}
    if changing:
        (tmp_path / "token").write_text("a-token-of-this-test\n")
        words += ["--token-file", str(tmp_path / "token")]
    pixels = picture(70, 90)
    with running(words, 4 if changing else 5) as (process, port):
        status, told = ask(port, "POST", "/v1/predict", png(pixels), OCTETS)
        assert status == 200, told
        found = json.loads(told)["bundles"]["street"]
        maps = gn.load(bundles / "street").predict(pixels)
        for file in maps.write(tmp_path / "maps", ["maps"]):
            want, got = (
                np.array(Image.open(file)),
                opened(base64.b64decode(found[file.stem.rpartition("_")[2]]["data"])),
            )
            if file.stem.endswith("seg"):
                assert (want == got).mean() >= 0.9999
            else:
                assert np.abs(want.astype(int) - got).max() <= 1  # millimetres
        status, told = ask(port, "PUT", "/v1/bundles/new", upload(bundles / "cracks"), {**FORM, **token})
        assert status == (201 if changing else 403), told
        if changing:
            assert ask(port, "POST", "/v1/predict?bundle=new", png(pixels), OCTETS)[0] == 200
            assert ask(port, "DELETE", "/v1/bundles/new", headers=token)[0] == 204
            assert ask(port, "POST", "/v1/predict?bundle=new", png(pixels), OCTETS)[0] == 404
        answers: list = []
        thread = in_thread(answers, port, "POST", "/v1/predict", png(picture(700, 900)), OCTETS)
        while not answers and b"garnish_requests_running 2.0" not in ask(port, "GET", "/metrics")[1]:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        thread.join()
        _, log = process.communicate(timeout=60)
    assert answers[0][0] == 200 and process.returncode == 0
    assert ("folded into the trunk" in process.said) is not changing
    assert "a-token-of-this-test" not in process.said + log and "Traceback" not in log


FORM = {"Content-Type": "multipart/form-data; boundary=bb"}


def upload(folder: Path) -> bytes:
    made = b""
    for name in ("bundle.json", "weights.safetensors"):
        head = f'--bb\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
        made += head.encode() + (folder / name).read_bytes() + b"\r\n"
    return made + b"--bb--\r\n"


def test_what_cannot_be_served_is_one_line(bundles, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(bundles / "street"), "--port", str(taken.getsockname()[1])]) == 2
        assert "choose another --port" in capsys.readouterr().err
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bundle.json").write_text("{")
    (tmp_path / "short").write_text("secret")
    street = str(bundles / "street")
    for words, says in (
        ([str(tmp_path / "bad")], "bundle.json"),
        ([str(tmp_path / "none")], "is no folder"),
        ([], "there is no bundle"),
        ([street, street], "two bundles are called 'street'"),
        ([street, f"b={tmp_path / 'bad'}"], "bundle.json"),
        ([street, "--host", "no.such.name.invalid"], "is no address here"),
        ([street, "--token-file", str(tmp_path / "short")], "at least 16"),
        ([street, "--port", "70000"], "is not a port"),
        ([street, "--deadline", "nan"], "is not a number from"),
        ([street, "--runtime", "onnx"], "export"),
        ([street, "--runtime", "onnx", "--weights", "w"], "leave --weights out"),
        ([street, "--runtime", "onnx", "--device", "cuda"], "runs on the CPU"),
        ([street, "--runtime", "onnx", "--uploads", str(tmp_path / "up")], "leave --uploads out"),
        ([street, "--bundles", str(bundles), "--uploads", str(bundles)], "where DELETE removes files; name two"),
        ([street, "--token-file", str(tmp_path / "nothing")], "nothing"),
        ([street, "--token-file", str(tmp_path)], str(tmp_path)),
        ([f"={street}"], "bundle name ''"),
        ([street, "--allow-host", "example.com:8000"], "without scheme and port"),
        ([street, "--prot", "1"], "did you mean '--port'"),
    ):
        assert main(["serve", *words, *([] if "--port" in words else ["--port", "0"])]) == 2
        err = capsys.readouterr().err
        assert says in err and len(err.strip().splitlines()) == 1, (words, err)


def test_the_start_tells_that_an_upload_is_served_in_place_of_what_it_names(bundles, tmp_path, caplog):
    shutil.copytree(bundles / "cracks", tmp_path / "uploads" / "street")
    started = start_serving(Serving(bundles={"street": bundles / "street"}, uploads=tmp_path / "uploads"))
    started.close()
    assert f"bundle street: the upload of this name is served, not {bundles / 'street'}" in caplog.text


def test_a_folder_is_looked_at_before_anything_slow_and_a_run_is_its_best(bundles, tmp_path):
    run, other = tmp_path / "indoor", tmp_path / "other"
    shutil.copytree(bundles / "street", run / "best")
    gn.save(tiny.model("vit", gn.LoRA(rank=2)), other)
    assert named_folders([str(run), f"b={run}"]) == {"indoor": run / "best", "b": run / "best"}
    assert named_folders([f"{run}/best"]) == {"indoor": run / "best"}
    code = (
        "import sys; from garnish.cli import main; code = main(sys.argv[1:]);"
        " print(code, *{'torch', 'starlette', 'uvicorn'} & sys.modules.keys())"
    )
    for words, says in (
        ([str(tmp_path / "none")], "is no folder"),
        ([str(tmp_path)], "is not a bundle (it holds no bundle.json)"),
        (
            [str(run), str(other)],
            "and this server's trunk is garnish_b0, of",
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, "serve", *words], capture_output=True, text=True, env=ENVIRONMENT, check=True
        )
        assert says in done.stderr and done.stdout.split() == ["2"], (done.stderr, done.stdout)


def test_a_missing_library_is_named_with_its_extra(bundles, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(bundles / "street")]) == 2
    assert "uvicorn" in (err := capsys.readouterr().err) and "pip install 'garnish[serve]'" in err
