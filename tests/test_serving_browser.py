"""The server's page in a browser: values under the cursor are those of the client, and nothing is asked of another."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

import serving_stub
from browsing import Watched, chromium
from garnish.client import Client
from garnish.serving.page_files import page_files
from serving_fakes import write_bundle
from serving_stub import TOKEN, Stub, a_picture, serving


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def stub():
    made = Stub("rooms", "streets")
    made.pages = {"/" + name.replace("index.html", ""): file for name, file in page_files().items()}
    return made


@pytest.fixture
def address(stub):
    with serving(stub) as found:
        yield found


def opened(browser, address, width=1440, scheme="light", **more):
    watched = Watched(browser, f"{address}/", width, scheme, **more)
    watched.page.get_by_text("Ready.").wait_for()
    return watched


def choose(page, picture) -> None:
    page.locator("#file").set_input_files(picture)
    finished(page, picture.name)


def finished(page, name: str) -> None:
    page.wait_for_function(
        "name => !document.body.hasAttribute('aria-busy') && (document.querySelector('#status').textContent"
        ".startsWith(name + ':') || !document.querySelector('#problem').hidden)",
        arg=name,
    )


def point(page, x: int, y: int, size: tuple[int, int], at: str = "#large") -> None:
    page.locator(at).evaluate("one => one.scrollIntoView({block: 'center'})")
    box = page.locator(at).bounding_box()
    page.mouse.move(box["x"] + (x + 0.5) / size[1] * box["width"], box["y"] + (y + 0.5) / size[0] * box["height"])
    page.get_by_text(f"column {x}, row {y}", exact=True).wait_for()


def told(page) -> dict[str, str]:
    page.evaluate("() => new Promise(requestAnimationFrame)")
    return {one.get_attribute("data-row"): one.inner_text() for one in page.locator("#values dd").all()}


def expected(prediction, bundle: str, x: int, y: int) -> dict[str, str]:
    """What the client's numbers are called at a pixel."""
    seg, normal = prediction["seg"][y, x], prediction["normals"][:, y, x].astype(float)
    tilt = np.degrees(np.arccos(np.clip(-normal[2] / np.linalg.norm(normal), -1, 1)))
    values = {
        "seg": f"{prediction.tasks['seg'].names[seg]} {100 * float(prediction.confidence['seg'][y, x]):.1f} %",
        "depth": f"{prediction['depth'][y, x]:.3f} m",
        "normals": f"{tilt:.1f}° from the camera · {normal[0]:.2f} {normal[1]:.2f} {normal[2]:.2f}",
        "edges": f"{prediction['edges'][y, x]:.3f}",
    }
    return {f"{bundle}/{task}": text for task, text in values.items()}


def assert_same_values(found: dict[str, str], wanted: dict[str, str]) -> None:
    """Words equal, numbers to half of their last digit, which the two languages round in their own ways."""
    number = r"-?\d+(?:\.\d+)?"
    for key, text in wanted.items():
        assert re.split(number, found[key]) == re.split(number, text), (key, found[key], text)
        for ours, theirs in zip(re.findall(number, found[key]), re.findall(number, text), strict=True):
            digits = len(theirs.partition(".")[2])
            assert abs(float(ours) - float(theirs)) < 1.01 * 10**-digits, (key, found[key], text)


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (375, "light"), (320, "dark")])
def test_values_under_the_cursor_are_those_of_the_client(browser, stub, address, tmp_path, width, scheme):
    picture = a_picture(tmp_path)
    with Client(address) as client, opened(browser, address, width, scheme) as watched:
        page, size = watched.page, (45, 61)
        prediction = client.predict(picture, "rooms", confidence=True)
        choose(page, picture)
        for x, y in ((0, 0), (30, 20), (60, 44), (7, 41)):
            point(page, x, y, size)
            found = told(page)
            assert_same_values(found, expected(prediction, "rooms", x, y))
            assert found["picture"] == " ".join(str(v) for v in prediction.picture[y, x])
            captions = page.locator("figure [data-value]").all_inner_texts()
            assert captions == [found[key] for key in found if key != "picture"]
        point(page, 12, 33, size, "figure[data-key='rooms/depth'] canvas")
        assert_same_values(told(page), expected(prediction, "rooms", 12, 33))
        assert watched.troubles == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert {url.split("/")[2] for url in watched.asked_for()} == {address.removeprefix("http://")}
        red = int(watched.background().removeprefix("rgb(").split(",")[0])
        assert red > 240 if scheme == "light" else red < 40


def test_by_keyboard_alone(browser, address, tmp_path):
    picture = a_picture(tmp_path)
    with Client(address) as client, opened(browser, address) as watched:
        page = watched.page
        choose(page, picture)
        prediction = client.predict(picture, "rooms", confidence=True)
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "large":
                break
        assert page.evaluate("document.activeElement.matches('#large:focus-visible')")
        page.keyboard.press("ArrowRight")
        page.get_by_text("column 31, row 22", exact=True).wait_for()
        for key in ("ArrowDown", "Shift+ArrowLeft", "+", "+", "+", "Shift+ArrowLeft", "ArrowLeft"):
            page.keyboard.press(key)
        page.get_by_text("column 10, row 23", exact=True).wait_for()
        assert page.locator("#fit").inner_text() == "338 %"
        assert_same_values(told(page), expected(prediction, "rooms", 10, 23))
        page.wait_for_function(
            "() => document.querySelector('#spoken').textContent.includes('column 10, row 23: seg ')"
        )
        page.keyboard.press("0")
        page.wait_for_function("() => document.querySelector('#fit').textContent === '100 %'")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "handle"
        page.keyboard.press("End")
        assert page.locator("#handle").get_attribute("aria-valuenow") == "100"
        page.get_by_role("checkbox", name="streets", exact=True).focus()
        page.keyboard.press("Space")
        page.locator("figure[data-key='streets/edges']").wait_for()
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "streets"
        named = "one => (one.getAttribute('aria-label') || one.labels?.[0]?.textContent || one.textContent).trim()"
        assert all(one.evaluate(named) for one in page.locator("input, select, button").all())
        assert watched.troubles == []


def colour_at(page, x: int, y: int, size: tuple[int, int], at: str = "#large") -> list[int]:
    """What a canvas shows of a pixel of the picture; the cursor's lines lie elsewhere."""
    return page.locator(at).evaluate(
        """async (canvas, [x, y]) => {
          for (let n = 0; n < 2; n++) await new Promise(requestAnimationFrame);
          const place = [x * canvas.width, y * canvas.height].map(Math.floor);
          return [...canvas.getContext("2d").getImageData(...place, 1, 1).data];
        }""",
        [(x + 0.5) / size[1], (y + 0.5) / size[0]],
    )[:3]


def near(found: list[int], wanted, most: int = 2) -> bool:
    return bool(np.abs(np.array(found) - np.array(wanted)).max() <= most)


def test_sides_opacity_zoom_and_classes(browser, address, tmp_path):
    picture, size = a_picture(tmp_path), (45, 61)
    with Client(address) as client, opened(browser, address) as watched:
        page, maps = watched.page, client.predict(picture, "rooms")
        choose(page, picture)
        painted = maps.painted()
        assert near(colour_at(page, 10, 10, size), maps.picture[10, 10])  # left of the border
        assert near(colour_at(page, 50, 10, size), painted["seg"][10, 50])
        page.locator("#right").select_option("rooms/depth")
        assert near(colour_at(page, 50, 10, size), painted["depth"][10, 50])
        page.locator("#opacity").fill("50")
        mean = (painted["depth"][10, 50].astype(int) + maps.picture[10, 50]) / 2
        assert near(colour_at(page, 50, 10, size), mean)
        page.locator("#opacity").fill("100")
        page.locator("#large").evaluate("one => one.scrollIntoView({block: 'center'})")
        box = page.locator("#handle").bounding_box()
        large = page.locator("#large").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(large["x"] + large["width"] * 0.9, box["y"] + 40, steps=3)
        page.mouse.up()
        assert page.locator("#handle").get_attribute("aria-valuenow") == "90"
        assert near(colour_at(page, 50, 10, size), maps.picture[10, 50])
        page.locator("#right").select_option("rooms/seg")
        page.locator("#handle").press("Home")
        button = page.locator("figure[data-key='rooms/seg'] .legend button").first
        shown = button.locator(".label").inner_text()
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        kept, names = maps["seg"], maps.tasks["seg"].names
        for x, y in ((20, 20), (21, 20), (22, 20), (20, 22)):
            wanted = painted["seg"] if names[kept[y, x]] == shown else maps.picture
            assert near(colour_at(page, x, y, size), wanted[y, x])
        point(page, 40, 30, size)
        page.mouse.wheel(0, -400)
        page.wait_for_function("() => parseInt(document.querySelector('#fit').textContent) > 200")
        assert page.locator("#place").inner_text() == "column 40, row 30"
        before = page.locator("#fit").inner_text()
        page.mouse.down()
        large = page.locator("#large").bounding_box()
        page.mouse.move(large["x"] + 30, large["y"] + 30, steps=4)
        page.mouse.up()
        assert page.locator("#fit").inner_text() == before
        assert [text for text in watched.troubles if "readback" not in text] == []  # of this test's own looks


def test_a_second_bundle_asks_for_what_is_missing_and_is_compared(browser, stub, address, tmp_path):
    picture, size = a_picture(tmp_path), (45, 61)
    with Client(address) as client, opened(browser, address) as watched:
        page = watched.page
        choose(page, picture)
        page.locator("#difference-mode").click(force=True)
        assert "No difference: choose a map on each side." in page.locator("#large-legend").inner_text()
        page.get_by_role("checkbox", name="edges of rooms").uncheck()
        finished(page, "street.png")
        assert page.locator("figure[data-key]").count() == 3
        page.get_by_role("checkbox", name="streets", exact=True).check()
        page.locator("figure[data-key='streets/edges']").wait_for()
        sent = [query for method, path, query in stub.asked if path == "/v1/predict"]
        assert [one["bundle"] for one in sent] == [["rooms"], ["streets"]]
        assert sent[1]["tasks"] == [f"streets/{task}" for task in serving_stub.TASKS]
        both = client.predict(picture, ["rooms", "streets"], confidence=True)
        ids = [both[name]["seg"] for name in ("rooms", "streets")]
        page.locator("#left").select_option("rooms/seg")
        page.locator("#right").select_option("streets/seg")
        page.locator("#difference-mode").click(force=True)
        share = 100 * float((ids[0] != ids[1]).mean())
        assert f"{share:.1f} %" in page.locator("#large-legend li").first.inner_text()
        names = both["rooms"].tasks["seg"].names
        for x, y in ((3, 4), (33, 21), (60, 44)):
            point(page, x, y, size)
            wanted = "same" if ids[0][y, x] == ids[1][y, x] else f"{names[ids[0][y, x]]} → {names[ids[1][y, x]]}"
            assert told(page)["difference"] == wanted
        page.locator("#left").select_option("rooms/depth")
        page.locator("#right").select_option("streets/depth")
        page.locator("#difference-mode").click(force=True)
        gap = abs(float(both["rooms"]["depth"][44, 60]) - float(both["streets"]["depth"][44, 60]))
        assert_same_values(told(page), {"difference": f"{gap:.3f} m"})
        assert (
            page.locator("#answers tr").count() == 2 and "4 tasks of 1 bundle" in page.locator("#status").inner_text()
        )
        assert watched.troubles == []


def test_a_bundle_is_sent_and_tried(browser, stub, address, tmp_path):
    folder, picture = write_bundle(tmp_path / "mine", shift=2), a_picture(tmp_path)
    files = [folder / "bundle.json", folder / "weights.safetensors"]
    with Client(address) as client, opened(browser, address) as watched:
        page = watched.page
        choose(page, picture)
        page.locator("#trying summary").click()
        page.locator("#bundle-files").set_input_files(files[:1])
        assert "weights.safetensors missing" in page.locator("#sent").inner_text()
        page.locator("#bundle-files").set_input_files(files)
        page.locator("#bundle-name").fill("mine")
        page.locator("#token").fill("wrong")
        page.locator("#send").click()
        page.get_by_text("bundles are changed with the server's token").wait_for()
        page.locator("#token").fill(TOKEN)
        page.locator("#send").click()
        page.locator("figure[data-key='mine/depth']").wait_for()
        point(page, 20, 30, (45, 61))
        assert_same_values(told(page), expected(client.predict(picture, "mine", confidence=True), "mine", 20, 30))
        assert [text for text in watched.troubles if "401" not in text] == []
        assert TOKEN not in json.dumps([query for _, _, query in stub.asked])


def test_a_map_is_saved_as_the_server_writes_it(browser, address, tmp_path):
    picture = a_picture(tmp_path)
    with Client(address) as client, opened(browser, address) as watched:
        choose(watched.page, picture)
        with watched.page.expect_download() as waiting:
            watched.page.get_by_role("button", name="Save the file of depth").click()
        saved = waiting.value
        assert saved.suggested_filename == "street_rooms_depth.png"
        painted = np.asarray(Image.open(io.BytesIO(saved.path().read_bytes())))
        assert (painted == client.predict(picture, "rooms").painted()["depth"]).all() and watched.troubles == []


def test_errors_are_one_line_and_a_busy_server_is_asked_again(browser, stub, address, tmp_path):
    picture = a_picture(tmp_path)
    with opened(browser, address) as watched:
        page, stub.busy = watched.page, 1
        page.locator("#file").set_input_files(picture)
        page.get_by_text("The server is busy; asking again in 1 s.").wait_for()
        finished(page, "street.png")
        assert page.locator("figure[data-key]").count() == 4 and page.locator("#problem").is_hidden()
        del stub.bundles["streets"]
        page.get_by_role("checkbox", name="streets", exact=True).focus()
        page.keyboard.press("Space")
        page.locator("#problem:visible").wait_for()
        assert page.locator("#problem").inner_text() == "no bundle 'streets'"
        assert not page.get_by_role("checkbox", name="streets", exact=True).is_checked()
        stub.tamper = lambda arrays: {name: array for name, array in arrays.items() if name != "rooms/seg"}
        page.locator("#file").set_input_files(a_picture(tmp_path, "other.png", (40, 50)))
        page.get_by_text("rooms/seg: the server's answer lacks its map; ask again").wait_for()


def test_a_decoding_that_the_page_lacks_is_told(browser, stub, address, tmp_path, monkeypatch):
    def strange(arrays):
        told = arrays["answer.json"].tobytes().replace(b'"SoftplusDepth"', b'"<b>Signed</b>"')
        return {**arrays, "answer.json": np.frombuffer(told, np.uint8)}

    stub.tamper = strange
    with opened(browser, address) as watched:
        choose(watched.page, a_picture(tmp_path))
        assert (
            watched.page.locator(".empty").inner_text() == "depth: this page does not know the decoding <b>Signed</b>"
        )
        point(watched.page, 5, 6, (45, 61))
        assert re.fullmatch(r"\d\.\d+", told(watched.page)["rooms/depth"]) and watched.troubles == []


def test_fingers_tap_pinch_and_move(browser, address, tmp_path):
    picture = a_picture(tmp_path)
    with opened(browser, address, 375) as watched:
        page = watched.page
        choose(page, picture)
        page.locator("#large").evaluate("one => one.scrollIntoView({block: 'center'})")
        box, session = page.locator("#large").bounding_box(), watched.context.new_cdp_session(page)

        def touch(kind: str, *shares: tuple[float, float]) -> None:
            places = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in shares]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

        touch("touchStart", (0.25, 0.5))
        touch("touchEnd")
        page.get_by_text("column 15, row 22", exact=True).wait_for()
        touch("touchStart", (0.65, 0.5), (0.75, 0.5))
        for apart in (0.08, 0.1, 0.15):
            touch("touchMove", (0.7 - apart, 0.5), (0.7 + apart, 0.5))
        touch("touchEnd")
        page.wait_for_function("() => document.querySelector('#fit').textContent === '300 %'")
        assert page.locator("#place").inner_text() == "column 15, row 22"
        touch("touchStart", (0.7, 0.5))
        touch("touchEnd")
        page.get_by_text("column 42, row 22", exact=True).wait_for()  # 0.7 of the picture is where it was
        touch("touchStart", (0.2, 0.5))
        for x in (0.3, 0.4, 0.5):
            touch("touchMove", (x, 0.5))
        touch("touchEnd")
        touch("touchStart", (0.7, 0.5))
        touch("touchEnd")
        page.get_by_text("column 36, row 22", exact=True).wait_for()  # 0.3 of the third that is seen
        assert watched.troubles == []


def test_files_of_a_bundle_that_are_dropped_go_to_the_form(browser, stub, address):
    with opened(browser, address) as watched:
        page = watched.page
        page.evaluate(
            """() => {
              const given = new DataTransfer();
              for (const name of ["bundle.json", "weights.safetensors"]) given.items.add(new File(["{}"], name));
              dispatchEvent(new DragEvent("drop", {dataTransfer: given, cancelable: true}));
            }"""
        )
        page.get_by_text("bundle.json and weights.safetensors: 0.0 MB, ready to send").wait_for()
        assert page.locator("#trying").get_attribute("open") is not None and page.locator("#send").is_enabled()
        assert not [one for one in stub.asked if one[1] == "/v1/predict"] and watched.troubles == []
