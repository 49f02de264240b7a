"""The page of an export in a browser: its maps are those of ``garnish.runtime``, and nothing leaves the machine."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import exported_folders as made
from browsing import Watched, chromium
from garnish.decodings.classes import Classes
from garnish.decodings.softplus_depth import SoftplusDepth
from garnish.errors import MissingExtraError
from garnish.files.pictures import read_picture
from garnish.page.files import export_page_files
from garnish.runtime import Session

PIXELS = """canvas => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [canvas.height, canvas.width, btoa(String.fromCharCode(...data))];
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def files():
    try:
        return export_page_files()
    except MissingExtraError as error:
        pytest.skip(str(error))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def end_headers(self):
        if self.path.startswith("/isolated"):  # as threads need it
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def served(browser, files, tmp_path_factory):
    """Folders by name, and the address that they are served at."""
    root = tmp_path_factory.mktemp("served")
    made.merged(root / "merged")
    made.merged(root / "isolated")
    made.with_inputs(root / "inputs")
    for name, decoding, slot in (("depths", SoftplusDepth(), 0), ("classes", Classes(names=("a", "b", "c")), 1)):
        made.add_bundle(root / "inputs", name, "map", decoding, made.bundle_tensors(slot, 2, decoding, slot), slot)
    made.reseal(root / "inputs")
    made.merged(root / "stranger")
    facts = json.loads((root / "stranger" / "export.json").read_text())
    facts["tasks"]["depth"]["decoding"] = {"name": "<b>Signed</b>", "options": {}}
    (root / "stranger" / "export.json").write_text(json.dumps(facts))
    for folder in root.iterdir():
        for name, data in files.items():
            (folder / name).write_bytes(data)
    handler = functools.partial(_Quiet, directory=os.fspath(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield root, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def pixels(canvas) -> np.ndarray:
    height, width, data = canvas.evaluate(PIXELS)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3]


def painted(opened, task: str) -> np.ndarray:
    return pixels(opened.page.locator(f"figure[data-task={task}] canvas"))


def choose(opened, picture: Path) -> None:
    opened.page.locator("#file:enabled").wait_for(state="attached")
    opened.page.locator("#file").set_input_files(picture)
    finished(opened, picture)


def finished(opened, picture: Path) -> None:
    opened.page.wait_for_function(
        "name => document.querySelector('#status').textContent.startsWith(name + ':') "
        "|| !document.querySelector('#problem').hidden",
        arg=picture.name,
    )


def a_picture(folder: Path, name: str = "street.png", size: tuple[int, int] = (45, 61)) -> Path:
    values = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / name)
    return folder / name


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (375, "light"), (375, "dark")])
def test_maps_are_those_of_the_runtime(browser, served, tmp_path, width, scheme):
    root, address = served
    picture = a_picture(tmp_path)
    with Watched(browser, f"{address}/merged/", width, scheme) as opened:
        choose(opened, picture)
        assert opened.page.locator("#problem").is_hidden() and opened.troubles == []
        assert (pixels(opened.page.locator("figure canvas").first) == read_picture(picture)).all()
        expected = Session(root / "merged").predict(picture).painted()
        for task, colours in expected.items():
            assert (painted(opened, task) != colours).any(-1).mean() < 2e-3
        assert opened.page.evaluate("document.documentElement.scrollWidth") == width
        assert f"{address}/merged/model.onnx" in opened.asked_for()  # those of the worker as well
        assert {url.split("/")[2] for url in opened.asked_for()} == {address.removeprefix("http://")}
        red = int(opened.background().removeprefix("rgb(").split(",")[0])
        assert red > 240 if scheme == "light" else red < 40
        legend = opened.page.locator("figure[data-task=seg] .legend .label").all_inner_texts()
        assert set(legend) <= set(made.DECODINGS["seg"].names) and legend


def test_a_dropped_photograph_is_turned_upright(browser, served, tmp_path):
    _, address = served
    smooth = np.add.outer(np.arange(40) * 3, np.arange(64) * 2)[..., None].repeat(3, 2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth).save(tmp_path / "photo.jpg", quality=95, exif=exif)
    data = base64.b64encode((tmp_path / "photo.jpg").read_bytes()).decode()
    with Watched(browser, f"{address}/merged/") as opened:
        opened.page.locator("#file:enabled").wait_for(state="attached")
        opened.page.evaluate(
            """data => {
              const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), given = new DataTransfer();
              given.items.add(new File([bytes], "photo.jpg", {type: "image/jpeg"}));
              dispatchEvent(new DragEvent("drop", {dataTransfer: given, cancelable: true}));
            }""",
            data,
        )
        finished(opened, tmp_path / "photo.jpg")
        shown = pixels(opened.page.locator("figure canvas").first)
        upright = read_picture(tmp_path / "photo.jpg")
        assert shown.shape == upright.shape == (64, 40, 3)
        assert np.abs(shown.astype(int) - upright).max() <= 2 and opened.troubles == []


def test_an_isolated_page_has_threads(browser, served, tmp_path):
    root, address = served
    picture = a_picture(tmp_path)
    with Watched(browser, f"{address}/isolated/") as opened:
        assert opened.page.evaluate("() => crossOriginIsolated")
        choose(opened, picture)
        expected = Session(root / "isolated").predict(picture).painted()["depth"]
        assert (painted(opened, "depth") != expected).any(-1).mean() < 2e-3 and opened.troubles == []
        assert len(opened.page.workers) > 1 or opened.page.evaluate("() => navigator.hardwareConcurrency") == 1


def test_another_bundle_and_a_smaller_size_are_chosen(browser, served, tmp_path):
    root, address = served
    picture, session = a_picture(tmp_path, size=(600, 30)), Session(root / "inputs")
    with Watched(browser, f"{address}/inputs/") as opened:
        choose(opened, picture)
        assert opened.page.locator("#bundle option").all_inner_texts() == ["classes", "depths"]
        assert (painted(opened, "map") != session.predict(picture, "classes").painted()["map"]).any(-1).mean() < 2e-3
        opened.page.locator("#bundle").select_option("depths")
        opened.page.locator("figure[data-task=map] .scale").wait_for()
        assert (painted(opened, "map") != session.predict(picture, "depths").painted()["map"]).any(-1).mean() < 2e-3
        opened.page.locator("#size").select_option("512")
        opened.page.get_by_text("made smaller: 30×600 to 26×512").wait_for()
        assert painted(opened, "map").shape == (512, 26, 3) and opened.troubles == []


def test_what_the_page_does_not_know_is_told(browser, served, tmp_path):
    _, address = served
    with Watched(browser, f"{address}/stranger/") as opened:
        choose(opened, a_picture(tmp_path))
        told = opened.page.locator(".empty").all_inner_texts()
        assert told == ["depth: this page does not know the decoding <b>Signed</b>"]
        assert opened.page.locator("figure[data-task]").count() == 3
        (tmp_path / "text.png").write_text("no picture")
        opened.page.locator("#file").set_input_files(tmp_path / "text.png")
        opened.page.locator("#problem:visible").wait_for()
        said = opened.page.locator("#problem").inner_text()
        assert said == "text.png: is no picture that this browser reads; give PNG, JPEG or WebP"


def test_opened_from_the_disk_it_says_how_to_serve_it(browser, served):
    root, _ = served
    with Watched(browser, (root / "merged" / "index.html").as_uri()) as opened:
        assert "python -m http.server" in opened.page.locator("#served").inner_text()
        assert opened.page.locator("#drop").is_hidden()
