"""``garnish.client`` against a server that answers by the contract; its maps are those of the decodings themselves."""

from __future__ import annotations

import http.server
import io
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from garnish.client import Client
from garnish.errors import BundleError, DataError, OptionError
from garnish.pictures.bands import Bands
from garnish.serving.connections import ServerError
from garnish.serving.given_bytes import picture_of
from garnish.serving.refusals import Busy, UnknownBundle
from serving_fakes import write_bundle
from serving_stub import TASKS, TOKEN, Stub, a_picture, raw, serving


@pytest.fixture
def stub():
    return Stub("b", "a")


@pytest.fixture
def client(stub):
    with serving(stub) as address, Client(address) as made:
        yield made


def pixels_of(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def assert_maps(prediction, pixels: np.ndarray, shift: int, tasks=tuple(TASKS)) -> None:
    assert list(prediction.maps) == list(prediction.tasks) == list(tasks)
    assert (prediction.picture == pixels).all()
    for task in tasks:
        expected = TASKS[task][1].decode(raw(task, pixels.transpose(2, 0, 1), shift))
        assert prediction.tasks[task] == TASKS[task][1]
        np.testing.assert_array_equal(prediction[task], expected)
        assert prediction[task].dtype == expected.dtype


def test_maps_are_those_of_the_server(client, tmp_path):
    file = a_picture(tmp_path)
    pixels = pixels_of(file)
    given = {"file": file, "text": str(file), "bytes": file.read_bytes(), "pil": Image.open(file), "array": pixels}
    for kind, picture in given.items():
        found = client.predict(picture, "a")
        assert_maps(found, pixels, 1)
        assert found.name == ("street" if kind in ("file", "text") else "picture") and not found.confidence
    both = client.predict(file, ["a", "b"], ["depth", "b/seg"], confidence=True)
    assert list(both) == ["a", "b"]
    assert_maps(both["a"], pixels, 1, ["depth"])
    assert_maps(both["b"], pixels, 0, ["seg", "depth"])
    shares = TASKS["seg"][1].values(raw("seg", pixels.transpose(2, 0, 1), 0))
    np.testing.assert_array_equal(both["b"].confidence["seg"], shares.max(0))
    one = client.predict(file, ["a", "b"], ["b/seg"])  # who has none of the tasks is left out
    assert list(one) == ["b"] and list(one["b"]) == ["seg"]
    assert list(client.predict(file, ["a"])) == ["a"] and list(client.predict(file, "a")) == list(TASKS)
    written = both["b"].write(tmp_path / "maps")
    assert [f.name for f in written] == ["street_seg.png", "street_depth.png", "street_sheet.png"]


@pytest.mark.parametrize("names", [("thermal",), ("red", "green", "blue", "nir")])
def test_arrays_of_other_bands_are_sent_as_numbers(client, stub, monkeypatch, names):
    """What arrives is what the server's own reader makes of it."""
    bands, got = Bands(names=names, range=(0, 255)), []
    pixels = np.random.default_rng(1).integers(0, 256, (36, 40, len(names)), dtype=np.uint8)

    def answer(stub, data, asking):
        got.append(picture_of(data, bands, 1.0).given)
        return 422, b'{"error": "no more of it"}', ""

    monkeypatch.setattr(Stub, "answer", answer)
    for picture in (pixels[..., 0] if len(names) == 1 else pixels, pixels.astype(np.uint16)):
        with pytest.raises(DataError, match="no more of it"):
            client.predict(picture, "a")
        np.testing.assert_array_equal(got.pop(), bands.values(pixels, "picture"))


def test_a_grey_array_and_one_that_is_no_picture(client, stub):
    grey = np.random.default_rng(0).integers(0, 256, (33, 40), dtype=np.uint8)
    for picture in (grey, Image.fromarray(grey)):
        assert_maps(client.predict(picture, "b"), np.repeat(grey[..., None], 3, 2), 0)
    before = len(stub.asked)
    for wrong in ("there/is/none.png", np.array(["x"]), Image.new("RGB", (0, 3))):
        with pytest.raises(DataError):
            client.predict(wrong, "b")
    assert len(stub.asked) == before


def test_connections_are_kept_a_thread(client, stub, tmp_path):
    picture = a_picture(tmp_path).read_bytes()
    for _ in range(3):
        client.predict(picture, "a")
    assert len(stub.clients) == 1
    threads = [threading.Thread(target=client.predict, args=(picture, "a")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stub.clients) == 5
    client.close()
    assert client.bundles() == ("a", "b")


def test_bundles_come_and_go(client, stub, tmp_path):
    folder = write_bundle(tmp_path / "c", shift=2)
    with pytest.raises(ServerError, match="with the server's token") as refused:
        client.put("c", folder)
    assert refused.value.status == 401
    with Client(client.url, token=TOKEN) as owner:
        assert owner.ready() and len(owner.put("c", folder)["sha256"]) == 64
        picture = a_picture(tmp_path)
        assert_maps(owner.predict(picture, "c"), pixels_of(picture), 2)
        assert owner.bundles() == ("a", "b", "c") and owner.about("c")["bytes"] == 1000
        owner.remove("c")
        shutil.copytree(folder, tmp_path / "run" / "best")
        assert owner.put("c", tmp_path / "run")["name"] == "c"  # of a run its best
        owner.remove("c")
        with pytest.raises(
            BundleError, match=r"is not a bundle \(it holds no bundle\.json\); did you mean .*run/best\?"
        ):
            (tmp_path / "run" / "best" / "step").mkdir()
            owner.put("c", tmp_path / "run" / "best" / "step")
        with pytest.raises(UnknownBundle, match="no bundle 'c'"):
            owner.about("c")
        (folder / "bundle.json").write_text("{}")
        with pytest.raises(BundleError, match=r"bundle\.json: is damaged; save it again"):
            owner.put("c", folder)
        (folder / "weights.safetensors").unlink()
        with pytest.raises(BundleError, match=r"weights\.safetensors: cannot be read"):
            owner.put("c", folder)


def test_a_busy_server_is_asked_again(client, stub, tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    picture, stub.busy = a_picture(tmp_path), 1
    with pytest.raises(Busy, match="the queue is full") as busy:
        client.predict(picture, "a")
    assert busy.value.retry_after == 1 and not slept
    stub.busy = 2
    assert_maps(client.predict(picture, "a", retries=2), pixels_of(picture), 1)
    assert slept == [1, 1]
    with pytest.raises(UnknownBundle, match="no bundle 'other'; available: b, a"):
        client.predict(picture, "other")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://127.0.0.1", "is no address; give one like http"),
        ("127.0.0.1:8000", "is no address"),
        ("http://user:secret@host", "is no address"),
        ("http://host:many", "is no address"),
        ("http://host/?x=1", "is no address"),
    ],
)
def test_what_is_no_address_is_refused(url, says):
    with pytest.raises(OptionError, match=says):
        Client(url)


def test_other_options_that_are_refused(client):
    with pytest.raises(OptionError, match="an empty list"):
        client.predict(np.zeros((8, 8, 3), np.uint8), [])
    with pytest.raises(OptionError, match="token: has characters"):
        Client(client.url, token="a\r\nX-Other: b")
    with pytest.raises(OptionError, match="timeout"):
        Client(client.url, timeout=-1)


def test_no_server_is_one_line():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with Client(f"http://127.0.0.1:{held.getsockname()[1]}") as alone:
            assert alone.ready() is False
            with pytest.raises(ServerError, match=r"no answer .*is garnish serve running there") as error:
                alone.bundles()
            assert error.value.status is None


def test_a_connection_that_the_server_closed_is_opened_again(tmp_path):
    """As servers do with those that were idle for long."""

    class Once(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "15")
            self.end_headers()
            self.wfile.write(b'{"bundles": []}')
            self.wfile.flush()
            self.close_connection = True  # without having said so

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Once) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            for _ in range(3):
                assert client.bundles() == ()
                time.sleep(0.02)
        server.shutdown()


def other(name: str, array: np.ndarray):
    return lambda arrays: {**arrays, name: array}


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (other("a/seg", np.zeros((45, 60), np.uint8)), r"'a/seg' is \(45, 60\) uint8, where \(45, 61\) uint8 is meant"),
        (other("a/depth", np.zeros((45, 61), np.float64)), "float64, where .* float32 is meant"),
        (other("a/normals", np.zeros((45, 61), np.float32)), r"where \(3, 45, 61\) float32 is meant"),
        (other("a/seg", np.array([[{"a": 1}]], object)), "is meant|pickle|object"),
        (other("answer.json", np.frombuffer(b"[1", np.uint8)), "no garnish server's"),
        (other("answer.json", np.frombuffer(b'{"picture": 1}', np.uint8)), "no garnish server's"),
        (lambda arrays: {k: v for k, v in arrays.items() if k != "a/seg"}, "no garnish server's"),
    ],
)
def test_answers_that_are_not_as_they_say(client, stub, tmp_path, tamper, says):
    stub.tamper = tamper
    with pytest.raises(ServerError, match=says):
        client.predict(a_picture(tmp_path), "a")


def test_a_decoding_that_is_not_installed_is_named(client, stub, tmp_path):
    def strange(arrays):
        told = arrays["answer.json"].tobytes().replace(b'"SoftplusDepth"', b'"os.system"')
        return {**arrays, "answer.json": np.frombuffer(told, np.uint8)}

    stub.tamper = strange
    with pytest.raises(DataError, match=r"a/depth: unknown decoding 'os\.system'"):
        client.predict(a_picture(tmp_path), "a")


def test_a_small_archive_that_unpacks_to_gigabytes_makes_no_array(client, stub, tmp_path, monkeypatch):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (2**40,)})
        archive.writestr("answer.json.npy", head.getvalue() + b"0" * 10**6)
    monkeypatch.setattr(Stub, "answer", lambda *_: (200, bomb.getvalue(), "application/x-npz"))
    with pytest.raises(ServerError, match=r"'answer\.json' is"):
        client.predict(a_picture(tmp_path), "a")


def test_it_needs_no_torch(client, tmp_path):
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(('torch', 'torchvision', 'timm', 'lightning', 'safetensors')))\n"
        f"from garnish.client import Client\nmade = Client({client.url!r}).predict({str(a_picture(tmp_path))!r}, 'a')\n"
        f"print(len(made.write({str(tmp_path / 'maps')!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "5\n"
