"""The client and the page against the server itself, over an engine without a trunk."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import numpy as np
import pytest
import uvicorn

from browsing import Watched, chromium
from garnish.client import Client
from garnish.errors import BundleError, DataError, OptionError
from garnish.serving.app import make_app
from garnish.serving.batcher import Batcher
from garnish.serving.bundle_store import BundleStore
from garnish.serving.connections import ServerError
from garnish.serving.refusals import Busy, TooLarge, UnknownBundle
from garnish.serving.service import Service
from garnish.serving.settings import ServerSettings
from serving_fakes import NAMES, FakeEngine, write_bundle
from serving_stub import a_picture

TOKEN = "a-token-of-these-tests"


@contextlib.contextmanager
def running(folder, queue=64):
    """The address of a server with bundles street and cracks, and its engine."""
    engine = FakeEngine()
    store = BundleStore(engine, memory=10**6, uploads=folder / "uploads")
    for shift, name in enumerate(("street", "cracks")):
        store.add(name, write_bundle(folder / name, shift))
    batcher = Batcher(engine, queue=queue)
    app = make_app(Service(engine, store, batcher, megapixels=0.02), store, ServerSettings(token=TOKEN))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with Client(address) as client:
            while not client.ready():
                time.sleep(0.01)
        yield address, engine
        server.should_exit = True
        thread.join()
    batcher.close(drain=False)


def test_the_client_speaks_with_the_server(tmp_path):
    file = a_picture(tmp_path)
    with running(tmp_path) as (address, _), Client(address, TOKEN) as client, Client(address) as other:
        assert client.bundles() == ("cracks", "street") and list(client.about("street")["tasks"]) == ["seg", "depth"]
        found = client.predict(file, ["street", "cracks"], confidence=True)
        for shift, name in enumerate(("street", "cracks")):
            values = found[name].picture.transpose(2, 0, 1).astype(np.float32) / 255
            seg, depth = (found[name].tasks[task] for task in ("seg", "depth"))
            assert seg.names == NAMES
            scores = np.roll(values, shift, 0)
            np.testing.assert_array_equal(found[name]["seg"], seg.decode(scores))
            np.testing.assert_array_equal(found[name]["depth"], depth.decode(values.mean(0, keepdims=True)))
            np.testing.assert_array_equal(found[name].confidence["seg"], seg.values(scores).max(0))
        told = client.put("mine", write_bundle(tmp_path / "mine", 2))
        assert told["name"] == "mine" and list(client.predict(file, "mine", ["seg"]).maps) == ["seg"]
        client.remove("mine")
        for asked, kind, says in (
            (lambda: client.predict(file), DataError, "name one or more of cracks, street"),
            (lambda: client.predict(file, "mine"), UnknownBundle, "no bundle 'mine'"),
            (
                lambda: client.predict(file, tasks=["street/seg", "cracks/seg"]),
                OptionError,
                r"give bundle=\['cracks', 's",
            ),
            (lambda: client.predict(file, "street", []), OptionError, "tasks: an empty list"),
            (
                lambda: client.predict(b"text", "street"),
                DataError,
                r"^the picture: damaged or not a picture \(.*\); send another$",
            ),
            (lambda: client.predict(file, "street", ["nose"]), DataError, "unknown task 'nose'"),
            (lambda: client.predict(np.zeros((150, 150, 3), np.uint8), "street"), TooLarge, "megapixels"),
            (lambda: client.remove("mine"), UnknownBundle, "no bundle 'mine'"),
            (lambda: client.put("bad name!", tmp_path / "mine"), BundleError, "bundle name"),
            (lambda: other.remove("street"), ServerError, "Bearer TOKEN is missing"),
        ):
            with pytest.raises(kind, match=says):
                asked()


def test_a_full_queue_is_a_busy_server(tmp_path):
    picture = a_picture(tmp_path).read_bytes()
    with running(tmp_path, queue=1) as (address, engine), Client(address) as client:
        engine.gate.clear()
        others = [threading.Thread(target=client.predict, args=(picture, "street"), kwargs={"retries": 9})]
        others.append(threading.Thread(target=client.predict, args=(picture, "cracks"), kwargs={"retries": 9}))
        try:
            for other in others:  # one in a pass, which lasts, and one that waits for its turn
                other.start()
                time.sleep(0.2)
            with pytest.raises(Busy) as busy:
                client.predict(picture, "street")
        finally:
            engine.gate.set()
            for other in others:
                other.join()
        assert busy.value.retry_after >= 1
        assert client.predict(picture, "street", retries=3).maps


def test_the_page_shows_the_servers_maps(tmp_path):
    file = a_picture(tmp_path)
    with chromium() as browser, running(tmp_path) as (address, _), Client(address) as client:
        wanted = client.predict(file, "cracks", confidence=True)
        with Watched(browser, f"{address}/") as opened:
            page = opened.page
            page.get_by_text("Ready.").wait_for()
            page.locator("#file").set_input_files(file)
            page.locator("figure[data-key='cracks/depth']").wait_for()
            page.locator("#large").press("Shift+ArrowDown")
            page.get_by_text("column 30, row 32", exact=True).wait_for()
            name = NAMES[wanted["seg"][32, 30]]
            share = 100 * float(wanted.confidence["seg"][32, 30])
            seg = page.locator("dd[data-row='cracks/seg']").inner_text()
            assert seg.startswith(f"{name} ") and abs(float(seg.split()[-2]) - share) < 0.06
            depth = page.locator("dd[data-row='cracks/depth']").inner_text()
            assert abs(float(depth.removesuffix(" m")) - float(wanted["depth"][32, 30])) < 6e-4
            with page.expect_download() as waiting:
                page.get_by_role("button", name="Save the file of depth").click()
            assert waiting.value.suggested_filename == "street_cracks_depth.png"
            assert opened.troubles == []
            assert {url.split("/")[2] for url in opened.asked_for()} == {address.removeprefix("http://")}
