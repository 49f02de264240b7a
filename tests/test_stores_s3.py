"""Places of Amazon's API, against moto's server, which is made to fail one request in twenty."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from garnish.errors import DataError
from garnish.stores.fetched import FetchedFiles
from garnish.stores.place import Place

pytest.importorskip("s3fs", reason="the extra [store] is not installed")
pytest.importorskip("moto.server", reason="moto[server] is not installed")
boto3 = pytest.importorskip("boto3", reason="moto[server] is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


class Unreliable:
    """A WSGI application that fails one request in ``every``: by status, or by half of the answer."""

    def __init__(self, app) -> None:
        self.app, self.every, self.count, self.failed = app, 0, 0, []
        self.lock = threading.Lock()

    def __call__(self, environ, start):
        with self.lock:
            self.count += 1
            number = self.count
        if not self.every or number % self.every:
            return self.app(environ, start)
        kind = ("503 Slow Down", "500 Internal Server Error", "half")[number // self.every % 3]
        self.failed.append((kind, environ["REQUEST_METHOD"]))
        if kind != "half":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start(kind, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{kind[4:].replace(' ', '')}</Code></Error>".encode()]
        held = []
        body = b"".join(self.app(environ, lambda *a: held.append(a)))  # done, and the answer is lost on its way
        start(*held[0])

        def half() -> Iterator[bytes]:
            yield body[: len(body) // 2]
            raise ConnectionError("as asked")

        return half()


@pytest.fixture(scope="module")
def server():
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, *args) -> None:
            pass

    app = Unreliable(DomainDispatcherApplication(create_backend_app))
    made = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Silent)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield app, f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    app, url = server
    app.every = 0
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "GARNISH_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    name = f"b{app.count}"
    client.create_bucket(Bucket=name)
    return app, client, name


def objects(client, name: str) -> dict[str, bytes]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=name)
    keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
    return {key: client.get_object(Bucket=name, Key=key)["Body"].read() for key in keys}


def test_a_place_of_s3_is_what_boto3_sees(bucket, tmp_path):
    _, client, name = bucket
    place = Place.of(f"s3://{name}/prefix/")
    place.write("a/b.png", b"123")
    client.put_object(Bucket=name, Key="prefix/c d.txt", Body=b"45")
    client.put_object(Bucket=name, Key="prefixed/e", Body=b"6")
    client.put_object(Bucket=name, Key="prefix/folder/", Body=b"")
    assert place.names() == ["a/b.png", "c d.txt"] and place.names("a/*") == ["a/b.png"]
    assert place.facts("c d.txt") == place.listed()["c d.txt"] and place.facts("a") is None
    assert place.facts("c d.txt").version == client.head_object(Bucket=name, Key="prefix/c d.txt")["ETag"].strip('"')
    assert place.read("c d.txt", most=9) == b"45" and place.read_part("a/b.png", 1, 3) == b"23"
    place.fetch("a/b.png", tmp_path / "x")
    (tmp_path / "big").write_bytes(np.random.default_rng(0).bytes(70 * 2**20))  # in parts, both ways
    place.send(tmp_path / "big", "big")
    place.fetch("big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()
    place.remove("big")
    assert objects(client, name) == {
        "prefix/a/b.png": b"123",
        "prefix/c d.txt": b"45",
        "prefixed/e": b"6",
        "prefix/folder/": b"",
    }
    assert place.retries == 0
    with pytest.raises(DataError, match=r"s3://nowhere-[a-z0-9]*: .*check the address, and that its bucket exists"):
        Place.of(f"s3://nowhere-{name}").write("x", b"1")
    with pytest.raises(DataError, match="check the address"):
        Place.of(f"s3://nowhere-{name}").names()


def test_a_store_that_fails_one_request_in_twenty(bucket, caplog, tmp_path):
    app, client, name = bucket
    place, cache = Place.of(f"s3://{name}/x"), FetchedFiles(tmp_path / "c", 10**6)
    app.count, app.every, app.failed[:] = 0, 20, []
    data = {f"{number:03}.bin": np.random.default_rng(number).bytes(500) for number in range(100)}
    with caplog.at_level(logging.INFO, "garnish"):
        for key, value in data.items():
            place.write(key, value)
        for key, value in data.items():
            with cache.file(place, key) as file:
                assert file.read_bytes() == value
        assert place.names() == sorted(data)
    failed, app.every = len(app.failed), 0
    assert failed > 10 and {kind for kind, _ in app.failed} == {"503 Slow Down", "500 Internal Server Error", "half"}
    assert place.retries == failed  # each was tried again once, by one layer alone
    assert objects(client, name) == {f"x/{key}": value for key, value in data.items()}
    assert sum("is tried again" in record.getMessage() for record in caplog.records) == 1


def test_many_names_are_listed_in_pages(bucket):
    app, client, name = bucket
    for number in range(1500):
        client.put_object(Bucket=name, Key=f"k/{number:04}", Body=b"")
    app.count, app.every = 0, 2  # each second page fails
    assert len(Place.of(f"s3://{name}/k").names()) == 1500
    with pytest.raises(DataError, match="more than 1,200 files"):
        Place.of(f"s3://{name}").names(most=1200)
    app.every = 0


def test_a_right_that_lacks_is_not_tried_again(bucket, monkeypatch):
    _, _, name = bucket
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    place = Place.of(f"s3://{name}")
    with pytest.raises(DataError, match="credentials") as found:
        place.write("x", b"1")
    assert place.retries == 0 and len(str(found.value)) < 400


def test_predict_and_train_in_shards_over_a_store_that_fails(bucket, tmp_path, monkeypatch):
    import tarfile

    import garnish as gn
    from garnish.cli import main
    from garnish.data.loader import StepBatches
    from garnish.data.sources import open_data
    from test_stores_predict import made_bundle

    app, client, name = bucket
    monkeypatch.chdir(tmp_path)
    made_bundle()
    for number in range(30):
        held = io.BytesIO()
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)).save(held, "PNG")
        client.put_object(Bucket=name, Key=f"in/{number:02}.png", Body=held.getvalue())
    app.count, app.every, app.failed[:] = 0, 20, []
    assert main(["predict", "bundle", f"s3://{name}/in/", "--out", f"s3://{name}/maps/", "--write", "maps"]) == 0
    assert app.failed
    app.every = 0
    maps = {key for key in objects(client, name) if key.startswith("maps/")}
    assert maps == {f"maps/{number:02}_seg.png" for number in range(30)}

    for shard in range(3):
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w") as tar:
            for k in range(4):
                for ending, values in (("png", (16, 16, 3)), ("seg.png", (16, 16))):
                    file = io.BytesIO()
                    Image.fromarray(np.random.default_rng(k).integers(0, 2, values, np.uint8)).save(file, "PNG")
                    info = tarfile.TarInfo(f"{shard}{k}.{ending}")
                    info.size = file.tell()
                    tar.addfile(info, io.BytesIO(file.getvalue()))
        client.put_object(Bucket=name, Key=f"shards/{shard:03}.tar", Body=held.getvalue())
    app.count, app.every = 0, 5
    tasks = {"seg": {"task": "Semantic", "labels": "{name}.seg.png", "classes": 2}}
    data = open_data({"shards": f"s3://{name}/shards/{{000..002}}.tar", "images": "{name}.png", "tasks": tasks})
    assert len(data) == 12
    batches = list(StepBatches(data, 4, seed=1, workers=2).batches(0, 4))
    app.every = 0
    again = list(StepBatches(data, 4, seed=1).batches(0, 4))
    assert [one.names for one in batches] == [one.names for one in again]
    assert gn.check(data).errors == ()
