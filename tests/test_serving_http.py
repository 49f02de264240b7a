"""HTTP over fakes: how a picture may come, what the answer may be, and what is refused."""

from __future__ import annotations

import base64
import email
import io
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import garnish
from garnish.serving.accepting import acceptable
from garnish.serving.answers import TYPES
from garnish.serving.http_refusals import HttpRefusal
from serving_fakes import wait_for
from serving_http_cases import TOKEN, Served, picture, png

SEEN = picture()
FILE = png(SEEN)
BOTH = {"bundle": ["street", "cracks"]}


@pytest.fixture
def served(tmp_path):
    made = Served(tmp_path)
    with made.client:
        yield made
    made.batcher.close()


@pytest.fixture
def client(served) -> TestClient:
    return served.client


def post(client, data=None, accept="application/json", **how):
    files = {"image": ("street.png", FILE, "image/png")}
    return client.post("/v1/predict", data=data or {}, files=files, headers={"Accept": accept}, **how)


def opened(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


def expected_ids(shift: int) -> np.ndarray:
    return np.roll(SEEN, shift, axis=-1).argmax(-1).astype(np.uint8)


def test_json_holds_the_files_that_predict_writes(served, tmp_path):
    answer = post(served.client, BOTH)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["picture"] == {"width": 56, "height": 40}
    assert list(told["bundles"]) == ["street", "cracks"]
    assert set(told["timings"]) == {"decode", "queue", "forward", "encode"}
    for shift, name in enumerate(told["bundles"]):
        facts = told["bundles"][name]["seg"]
        assert (opened(base64.b64decode(facts["data"])) == expected_ids(shift)).all()
        assert facts["classes"] == ["road", "sky", "tree"] and len(facts["palette"]) == 3
        assert (facts["task"], facts["nothing"], facts["media_type"]) == ("Semantic", 255, "image/png")
        depth = told["bundles"][name]["depth"]
        assert (depth["unit"], depth["scale"], depth["nothing"]) == ("m", [0.001, 0.0], 0)
        written = served.store.loaded[name].decodings["depth"]
        metres = written.decode((SEEN.astype(np.float32) / 255).mean(-1)[None])
        file = written.write(metres, tmp_path / name)
        assert (opened(base64.b64decode(depth["data"])) == np.array(Image.open(file))).all()


def test_the_picture_may_be_the_body_or_base64(client):
    form = post(client, {"bundle": "street"}).json()["bundles"]
    raw = client.post("/v1/predict", params={"bundle": "street"}, content=FILE, headers={"Content-Type": "image/png"})
    coded = client.post("/v1/predict", json={"image": base64.b64encode(FILE).decode(), "bundle": ["street"]})
    octets = client.post(
        "/v1/predict?bundle=street&tasks=seg,depth", content=FILE, headers={"Content-Type": "application/octet-stream"}
    )
    assert raw.json()["bundles"] == coded.json()["bundles"] == octets.json()["bundles"] == form


def test_tasks_are_chosen(client):
    told = post(client, BOTH | {"tasks": ["street/seg", "depth"]}).json()["bundles"]
    assert {name: sorted(tasks) for name, tasks in told.items()} == {"street": ["depth", "seg"], "cracks": ["depth"]}


def test_a_bundle_that_has_no_such_task_is_left_out(served):
    loaded = served.store.loaded
    loaded["cracks"] = replace(loaded["cracks"], decodings={"depth": loaded["cracks"].decodings["depth"]})
    told = post(served.client, BOTH | {"tasks": "seg"}).json()["bundles"]
    assert {name: list(tasks) for name, tasks in told.items()} == {"street": ["seg"]}
    refused = post(served.client, BOTH | {"tasks": ["seg", "nose"]})
    assert refused.status_code == 422 and "no bundle of those asked has a task 'nose'" in refused.json()["error"]
    assert refused.json()["error"].endswith("available: street/seg, street/depth, cracks/depth")
    refused = post(served.client, {"bundle": "cracks", "tasks": "seg"})
    assert refused.status_code == 422 and "unknown task 'seg'; available: depth" in refused.json()["error"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("street,cracks", "bundle takes one name; repeat it"), ("street/seg", "give bundle=street and tasks=seg")],
)
def test_what_no_bundle_can_be_called_is_told(client, name, says):
    refused = post(client, {"bundle": name})
    assert refused.status_code == 404 and says in refused.json()["error"]


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((40, 56, 3)), "(40, 56, 3) float64"),
        (np.zeros((3, 40, 56), np.uint8), "(3, 40, 56) uint8"),
        (np.zeros((40, 56, 4), np.uint8), "(40, 56, 4) uint8"),
    ],
    ids=["floats", "planes", "alpha"],
)
def test_an_array_where_rgb_is_asked_for_is_told_with_its_shape(client, array, says):
    np.save(data := io.BytesIO(), array)
    answer = client.post("/v1/predict?bundle=street", content=data.getvalue(), headers=OCTETS)
    line = answer.json()["error"]
    assert answer.status_code == 422 and f"is a NumPy array {says}, and RGB is asked for" in line and len(line) < 400
    code = line.partition("uint8; give ")[2].removesuffix(" where 1 is white")
    made = eval(code, {"picture": array, "numpy": np})
    assert made.shape == (40, 56, 3) and made.dtype == np.uint8  # what is advised would be taken


def test_npz_is_exact_and_carries_its_facts(client):
    answer = post(client, {"bundle": "street", "confidence": "true"}, "application/x-npz")
    found = np.load(io.BytesIO(answer.content), allow_pickle=False)
    told = json.loads(found["answer.json"].tobytes())
    assert set(found) == {"street/seg", "street/depth", "street/seg.confidence", "answer.json"}
    assert (found["street/seg"] == expected_ids(0)).all()
    assert found["street/depth"].dtype == found["street/seg.confidence"].dtype == np.float32
    assert "scale" not in told["bundles"]["street"]["depth"] and "data" not in told["bundles"]["street"]["depth"]
    scores = np.exp(SEEN.astype(np.float64) / 255)
    assert np.allclose(found["street/seg.confidence"], (scores.max(-1) / scores.sum(-1)), atol=1e-6)
    coded = post(client, {"bundle": "street", "confidence": "true"}).json()["bundles"]["street"]["seg"]["confidence"]
    packed = opened(base64.b64decode(coded["data"])) * coded["scale"][0]
    assert np.abs(packed - found["street/seg.confidence"]).max() <= 0.5 / 255 + 1e-6


def test_mixed_parts_are_read_by_another_parser(client):
    answer = post(client, BOTH, "multipart/mixed")
    head = f"Content-Type: {answer.headers['content-type']}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    assert answer.content.startswith(f"--{answer.headers['content-type'].partition('boundary=')[2]}\r\n".encode())
    parts = email.message_from_bytes(head + answer.content).get_payload()
    named = {part.get_param("name", header="content-disposition"): part for part in parts}
    assert list(named) == ["answer.json", "street/seg", "street/depth", "cracks/seg", "cracks/depth"]
    told = json.loads(named["answer.json"].get_payload(decode=True))
    assert told["bundles"]["cracks"]["seg"]["media_type"] == named["cracks/seg"].get_content_type() == "image/png"
    assert (opened(named["cracks/seg"].get_payload(decode=True)) == expected_ids(1)).all()


def test_one_file(client):
    asked = {"tasks": "street/seg", "bundle": "street"}
    image = post(client, asked, "image/png")
    tiff = post(client, asked, "image/tiff")
    assert image.headers["content-type"] == "image/png" and tiff.headers["content-type"] == "image/tiff"
    assert (opened(image.content) == opened(tiff.content)).all()
    assert (opened(image.content) == expected_ids(0)).all()
    facts = json.loads(image.headers["garnish-map"])
    assert (facts["bundle"], facts["name"], facts["classes"]) == ("street", "seg", ["road", "sky", "tree"])
    several = post(client, BOTH, "image/png")
    assert several.status_code == 406 and "4 were asked for" in several.json()["error"]
    assert post(client, BOTH, "image/png, application/json;q=0.1").status_code == 200


def test_a_map_that_fits_into_no_png_is_a_tiff(served):
    made = served.store.loaded["street"].decodings
    object.__setattr__(made["depth"], "max_metres", 100.0)
    asked = {"bundle": "street", "tasks": "depth"}
    refused = post(served.client, asked, "image/png")
    assert refused.status_code == 406 and "image/tiff" in refused.json()["error"]
    assert opened(post(served.client, asked, "image/tiff").content).dtype == np.float32
    assert post(served.client, asked).json()["bundles"]["street"]["depth"]["media_type"] == "application/x-npy"


@pytest.mark.parametrize(
    ("header", "first"),
    [
        ("", TYPES[0]),
        ("*/*", TYPES[0]),
        ("image/*", "image/png"),
        ("application/*;q=0.2, image/tiff;q=0.9", "image/tiff"),
        ("application/json;q=0, */*", "multipart/mixed"),
        ("APPLICATION/X-NPZ", "application/x-npz"),
        ("text/html, */*;q=0.1", TYPES[0]),
        ("garbage, image/png", "image/png"),
    ],
)
def test_accept(header, first):
    assert acceptable(header, TYPES)[0] == first


@pytest.mark.parametrize("header", ["text/html", "image/png;q=0", ";;;", "\x00", "application/xml, text/*;q=0.5"])
def test_accept_that_takes_nothing(header):
    with pytest.raises(HttpRefusal, match="takes none of application/json, multipart/mixed") as refused:
        acceptable(header, TYPES)
    assert refused.value.status == 406


JSON = {"Content-Type": "application/json"}
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.mark.parametrize(
    ("how", "status", "says"),
    [
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "'text/plain' is not taken"),
        ({"content": b"x"}, 415, "Content-Type is missing"),
        ({"content": b"x", "headers": OCTETS | {"Content-Encoding": "gzip"}}, 415, "Content-Encoding"),
        ({"content": b"", "headers": OCTETS}, 400, "has no bytes"),
        ({"content": b"not a picture", "headers": OCTETS, "params": {"bundle": "street"}}, 422, "picture"),
        ({"content": b"x", "headers": OCTETS, "params": {"bundel": "a"}}, 400, "did you mean 'bundle'"),
        ({"content": b"x", "headers": OCTETS, "params": {"confidence": "yes"}}, 400, "expected true or false"),
        ({"content": b"x", "headers": OCTETS, "params": [("bundle", "a"), ("bundle", "a")]}, 400, "given twice"),
        ({"content": b"[1]", "headers": JSON}, 400, "send an object"),
        ({"content": b'{"image": "a", "image": "b"}', "headers": JSON}, 400, "stands twice"),
        ({"content": b'{"image": NaN}', "headers": JSON}, 400, "not JSON"),
        ({"content": b"\xff{}", "headers": JSON}, 400, "cannot be read"),
        ({"content": b"[" * 100_000, "headers": JSON}, 400, "cannot be read"),
        ({"json": {"image": "http://127.0.0.1/x.png"}}, 400, "not base64"),
        ({"json": {"image": {"path": "/etc/passwd"}}}, 400, "no address or path"),
        ({"json": {"image": "aGk=", "url": "http://a"}}, 400, "unknown key 'url'"),
        ({"json": {"image": "aGk=", "tasks": [1]}}, 400, "key tasks"),
        ({"json": {"image": "aGk=", "tasks": []}}, 400, "key tasks: an empty list"),
        ({"json": {"image": "aGk=", "confidence": 1}}, 400, "key confidence"),
        ({"json": {"image": "aGk="}, "params": {"bundle": "street"}}, 400, "among the keys"),
        ({"files": {"picture": FILE}}, 400, "unknown form field 'picture'"),
        ({"files": {"image": FILE}, "data": {"task": "seg"}}, 400, "did you mean 'tasks'"),
        ({"files": [("image", FILE), ("image", FILE)]}, 400, "one picture a request"),
        ({"files": {"image": FILE}, "data": {"bundle": "stret"}}, 404, "stret"),
        ({"files": {"image": FILE}, "data": {"bundle": "street", "tasks": "sge"}}, 422, "sge"),
        ({"files": {"image": FILE}}, 422, "street"),
        ({"content": b"--a\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=a"}}, 400, "last boundary"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": FILE, "headers": {"Content-Type": "multipart/form-data; boundary=a"}}, 400, "cannot be read"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_line(client, how, status, says):
    answer = client.post("/v1/predict", **how)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_bytes_fields_and_pixels_are_bounded(tmp_path):
    served = Served(tmp_path, body_bytes=50_000, parts=4, field_bytes=100)
    with served.client as client:
        assert client.post("/v1/predict", content=bytes(50_001), headers=OCTETS).status_code == 413
        grown = client.post("/v1/predict", content=iter([bytes(30_000)] * 2), headers=OCTETS)  # its length is not said
        assert grown.status_code == 413
        assert post(client, {"bundle": ["a", "b", "c", "d"]}).status_code == 413
        assert post(client, {"tasks": "a" * 101}).status_code == 413
        large = png(np.zeros((1100, 1000, 3), np.uint8))
        refused = client.post("/v1/predict?bundle=street", content=large, headers=OCTETS)
        assert refused.status_code == 413 and "megapixels" in refused.json()["error"]
    served.batcher.close()


def test_one_bad_row_fails_alone_and_a_fault_is_500(client, caplog):
    ask = {"params": {"bundle": "street"}, "headers": OCTETS}
    wrong = client.post("/v1/predict", content=png(np.full((32, 32, 3), 13, np.uint8)), **ask)
    assert wrong.status_code == 422 and "not finite" in wrong.json()["error"]
    fault = client.post("/v1/predict", content=png(np.full((32, 32, 3), 66, np.uint8)), **ask)
    assert fault.status_code == 500 and "a fault in a pass" not in fault.text
    assert client.post("/v1/predict", content=FILE, **ask).status_code == 200


def test_a_full_queue_is_503_with_retry_after(tmp_path):
    served = Served(tmp_path, queue=1)
    with served.client as client:
        while client.get("/ready").status_code != 200:
            time.sleep(0.01)
        served.engine.gate.clear()
        answers = []
        ask = {"params": {"bundle": "street"}, "headers": OCTETS, "content": FILE}
        threads = [threading.Thread(target=lambda: answers.append(client.post("/v1/predict", **ask))) for _ in range(6)]
        # the second takes the one place of the queue, which it has once the first is in a pass and not before
        for thread, is_there in (
            (threads[0], lambda: served.batcher._running),
            (threads[1], lambda: served.batcher.counts().queued),
        ):
            thread.start()
            wait_for(is_there)
        for thread in threads[2:]:
            thread.start()
        wait_for(lambda: len(answers) == 4)
        assert {answer.status_code for answer in answers} == {503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        served.engine.gate.set()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503, 503]
    served.batcher.close()


def test_too_many_at_work_are_503(tmp_path):
    served = Served(tmp_path, working=1)
    with served.client as client:
        while client.get("/ready").status_code != 200:
            time.sleep(0.01)
        served.engine.gate.clear()
        ask = {"params": {"bundle": "street"}, "headers": OCTETS, "content": FILE}
        answers = []
        first = threading.Thread(target=lambda: answers.append(client.post("/v1/predict", **ask)))
        first.start()
        while not served.batcher.counts().queued and not served.batcher._running:
            time.sleep(0.01)
        refused = client.post("/v1/predict", **ask)
        served.engine.gate.set()
        first.join()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert answers[0].status_code == 200
    served.batcher.close()


def test_bundles_are_listed_put_and_removed(served, client):
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/v1/bundles").json()["bundles"] == ["cracks", "street"]
    assert client.get("/v1/bundles/street").json()["nothing"] is None  # JSON has no nan
    files = {name: (served.folder / "street" / name).read_bytes() for name in ("bundle.json", "weights.safetensors")}
    assert client.put("/v1/bundles/new", files=files, headers=right).status_code == 201
    assert client.put("/v1/bundles/new", json={"from": "cracks"}, headers=right).status_code == 200
    assert post(client, {"bundle": "new"}).status_code == 200
    assert client.delete("/v1/bundles/new", headers=right).status_code == 204
    assert client.get("/v1/bundles/new").status_code == client.delete("/v1/bundles/new", headers=right).status_code
    assert post(client, {"bundle": "new"}).status_code == 404


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"json": {"from": "../cracks"}}, 422),
        ({"json": {"form": "cracks"}}, 400),
        ({"json": {}}, 400),
        ({"files": {"bundle.json": b"{}"}}, 400),
        ({"files": {"bundle.json": b"{", "weights.safetensors": b""}}, 422),
        ({"files": {"bundle.json": b"{", "weights.safetensors": b"", "x": b""}}, 400),
        ({"content": b"x", "headers": {"Content-Type": "application/zip"}}, 415),
    ],
    ids=str,
)  # fmt: skip
def test_odd_uploads_are_refused(client, how, status):
    headers = {"Authorization": f"Bearer {TOKEN}"} | how.pop("headers", {})
    answer = client.put("/v1/bundles/new", headers=headers, **how)
    assert (answer.status_code, "error" in answer.json()) == (status, True), answer.text
    assert client.get("/v1/bundles").json()["bundles"] == ["cracks", "street"]


def test_changes_need_the_token(tmp_path, client):
    for header in ({}, {"Authorization": TOKEN}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = client.put("/v1/bundles/new", json={"from": "cracks"}, headers=header)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert client.delete("/v1/bundles/street", headers=header).status_code == 401
    served = Served(tmp_path / "none", token=None)
    with served.client as closed:
        for header in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}"}):
            refused = closed.delete("/v1/bundles/street", headers=header)
            assert refused.status_code == 403 and "--token-file" in refused.json()["error"]
    served.batcher.close()


def test_no_path_is_there_but_those_of_the_list(client):
    for path in ("/nothing", "/v1", "/v1/predict/", "/../etc/passwd", "/v1/bundles/a/b", "/%00"):
        assert client.get(path).status_code == 404, path
    refused = client.get("/v1/predict")
    assert refused.status_code == 405 and refused.headers["allow"] == "POST"
    assert refused.json() == {"error": "'/v1/predict' takes POST, not 'GET'"}
    assert client.get("/v1/bundles/..%2f..%2fetc").status_code == 404
    assert client.get("/v1/bundles?x=1").status_code == 400
    assert garnish.__version__ == client.get("/openapi.json").json()["info"]["version"]
