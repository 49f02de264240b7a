"""Bundles are fetched from a Hub that may refuse, break off or hold what a stranger put there."""

from __future__ import annotations

import json
import pickle
import re
import time
from pathlib import Path

import pytest
import torch

import garnish as gn
import hub_server
from garnish.bundles.bundle_json import read_bundle_json
from garnish.bundles.given_bundle import given_bundle
from garnish.bundles.origin import origin_of
from garnish.cli import main
from garnish.errors import BundleError, GarnishError, HubError, OptionError
from garnish.exporting.fed_export import bundle_name
from garnish.hub.address import HubAddress
from garnish.serving.named_folders import named_folders
from garnish.serving.starting import Serving, start_serving
from hub_cases import NAMES, changed, files_of, save_bundle
from hub_server import READER, WRITER, asking, serving

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("hub") / "bundle")


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def hub(monkeypatch, tmp_path, bundle):
    with serving() as server:
        asking(monkeypatch, server, tmp_path / "cache")
        server.add("alice/rooms", {**files_of(bundle), "README.md": b"---\n---\n", ".gitattributes": b""})
        yield server


def blobs(tmp_path: Path) -> list[Path]:
    """What the cache holds of contents, whole or half."""
    return [file for file in (tmp_path / "cache").rglob("*") if file.is_file() and "blobs" in file.parts]


def refused(kind: type[GarnishError], match: str, address: str = "hub:alice/rooms") -> str:
    with pytest.raises(kind, match=match) as error:
        gn.load(address)
    text = re.sub(r"/\S*/models--", "models--", str(error.value))  # however deep the cache lies
    assert len(text) < 400, text
    assert "\n" not in text
    return text


# ---- what goes well -------------------------------------------------------------------------------------------------


def test_the_model_is_the_one_that_was_saved(hub, bundle):
    picture = torch.rand(1, 3, 45, 38)
    with torch.no_grad():
        assert torch.equal(gn.load("hub:alice/rooms")(picture)["seg"], gn.load(bundle)(picture)["seg"])


def test_addresses_join_with_folders_and_are_added(hub, bundle, tmp_path):
    other = save_bundle(tmp_path / "other", "more")
    model = gn.load(["hub:alice/rooms", other])
    assert list(model.tasks) == ["seg", "more"]
    assert model.load("hub:alice/rooms@main", names={"seg": "third"}) == ("third",)


def test_what_is_in_the_large_store_is_followed(hub, bundle, tmp_path):
    hub.repositories["alice/rooms"].large.add("weights.safetensors")
    folder = gn.pull("alice/rooms")
    assert files_of(folder) == files_of(bundle)


@pytest.mark.parametrize(
    "revision", ["v2", *(pytest.param(r, marks=pytest.mark.slow) for r in ("refs/pr/1", "commit"))]
)
def test_a_revision_is_one_state(hub, tmp_path, revision):
    repository = hub.repositories["alice/rooms"]
    other = files_of(save_bundle(tmp_path / "other", "later"))
    commit = repository.commit(other, "main" if revision == "commit" else revision)
    repository.branches["main"] = next(iter(repository.commits))
    asked = commit if revision == "commit" else revision
    found = given_bundle(f"hub:alice/rooms@{asked}")
    assert found == given_bundle(str(HubAddress.parse("alice/rooms").at(asked)))
    assert (found.name, list(read_bundle_json(found)["tasks"])) == (commit, ["later"])
    assert list(read_bundle_json(given_bundle("hub:alice/rooms"))["tasks"]) == ["seg"]


def test_a_bundle_may_lie_in_a_folder(hub, bundle):
    hub.add("alice/many", {f"indoor/rooms/{name}": data for name, data in files_of(bundle).items()})
    folder = gn.pull("hub:alice/many/indoor/rooms")
    assert files_of(folder) == files_of(bundle)
    assert str(origin_of(folder, read_bundle_json(folder))).startswith("hub:alice/many/indoor/rooms@")
    assert "in its folder indoor/rooms" in refused(HubError, "is no bundle", "hub:alice/many")


def test_a_commit_in_the_cache_asks_nobody(hub):
    commit = gn.pull("alice/rooms").name
    hub.asked.clear()
    gn.load(f"hub:alice/rooms@{commit}")
    assert hub.asked == []


def test_offline_the_cache_is_enough(hub, monkeypatch, tmp_path, capsys):
    folder = gn.pull("alice/rooms")
    asking(monkeypatch, None, tmp_path / "cache")
    assert gn.pull("alice/rooms") == folder
    assert main(["info", "hub:alice/rooms"]) == 0
    assert f"hub:alice/rooms@{folder.name}" in capsys.readouterr().out
    text = refused(HubError, "is not in the local cache, and HF_HUB_OFFLINE is set", "hub:alice/others")
    assert "unset it once" in text
    text = refused(HubError, "unset it once", f"hub:alice/rooms@{folder.name[:7]}")
    assert f"cached of it: @main, @{folder.name}" in text


def test_a_commit_needs_all_its_digits(hub):
    refused(HubError, "no such revision; a commit needs all 40 digits", "hub:alice/rooms@97e521a")


def test_bundles_that_cannot_be_joined_are_named_by_their_addresses(hub, bundle):
    hub.add("bob/rooms", files_of(bundle))
    with pytest.raises(BundleError) as error:
        gn.load(["hub:alice/rooms", "hub:bob/rooms"])
    text = str(error.value)
    assert re.match(r"hub:bob/rooms@\w{40}: task 'seg' is in hub:alice/rooms@\w{40} too", text)
    assert "names={'seg': " in text and len(text) < 400


@pytest.mark.slow
def test_commands_take_addresses(hub, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    from PIL import Image

    Image.new("RGB", (40, 30)).save(picture)
    assert main(["predict", "hub:alice/rooms", str(picture), "--out", str(tmp_path / "maps")]) == 0
    assert list((tmp_path / "maps").rglob("*.png"))
    assert main(["merge", "hub:alice/rooms", "--out", str(tmp_path / "merged")]) == 0
    assert (tmp_path / "merged" / "bundle.json").is_file()
    capsys.readouterr()


def test_a_server_names_bundles_as_their_repositories(hub):
    found = named_folders(["hub:alice/rooms", "indoor=hub:alice/rooms@main"])
    assert set(found) == {"rooms", "indoor"}
    assert bundle_name(str(found["rooms"])) == "rooms"


def test_a_request_never_reaches_the_hub(hub, bundle):
    started = start_serving(Serving(bundles={"rooms": bundle}))
    try:
        for name in ("hub:alice/rooms", "alice/rooms", "hub:alice/rooms@main"):
            with pytest.raises(GarnishError), started.store.using([name]):
                pass
    finally:
        started.close()
    assert hub.asked == []


def test_pull_copies_whole_or_not_at_all(hub, bundle, tmp_path, capsys):
    out = tmp_path / "copy"
    assert main(["pull", "hub:alice/rooms", "--out", str(out)]) == 0
    assert files_of(out) == files_of(bundle)
    facts = read_bundle_json(out)
    commit = hub.repositories["alice/rooms"].branches["main"]
    assert origin_of(out, facts) == f"hub:alice/rooms@{commit}"
    told = json.loads((out / "hub.json").read_text())
    assert told == {"from": f"hub:alice/rooms@{commit}", "weights_sha256": facts["sha256"]}
    assert main(["pull", "hub:alice/rooms", "--out", str(out), "--json"]) == 0  # an earlier bundle is replaced
    save_bundle(out, "new")  # which is no longer the Hub's, though hub.json stays beside it
    assert origin_of(out, read_bundle_json(out)) is None
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text").write_text("mine")
    hub.asked.clear()
    capsys.readouterr()
    assert main(["pull", "hub:alice/rooms", "--out", str(tmp_path / "mine")]) == 2
    assert "is not a bundle, so it is not replaced" in capsys.readouterr().err
    assert hub.asked == []


def test_a_bad_hub_json_tells_nothing(hub, tmp_path):
    out = gn.pull("alice/rooms", out=tmp_path / "copy")
    for text in (b"[]", b"{", b"\xff", b"[" * 100_000, b'{"from": 3}'):
        (out / "hub.json").write_bytes(text)
        assert origin_of(out, read_bundle_json(out)) is None


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ((401, {"X-Error-Message": "Invalid credentials in Authorization header"}), "token.*hf auth login"),
        ((401, {"X-Error-Code": "RepoNotFound"}), "no such repository, or a private one.*hf auth login"),
        ((402, {}), "quota"),
        ((403, {}), "not allow.*hf auth login"),
        ((403, {"X-Error-Code": "GatedRepo"}), "is gated; accept its terms"),
        ((404, {"X-Error-Code": "RepoNotFound"}), "no such repository"),
        ((404, {"X-Error-Code": "RevisionNotFound"}), "no such revision"),
        ((418, {}), "otherwise than expected"),
        ((429, {}), "too many requests"),
        ((500, {}), "a fault of its own .HTTP 500"),
        ((503, {}), "a fault of its own .HTTP 503"),
    ],
)
@pytest.mark.parametrize(
    "where",
    ["GET /api/models", *(pytest.param(w, marks=pytest.mark.slow) for w in ("HEAD .*resolve", "GET .*resolve"))],
)
def test_a_refusal_is_one_line_with_its_remedy(hub, tmp_path, fault, match, where):
    hub.faults.status[where] = fault
    refused(HubError, match)
    assert blobs(tmp_path) == []
    assert len(hub.asked) < 30


def test_a_fault_that_passes_is_tried_again(hub):
    hub.faults.status["HEAD .*resolve"] = (503, {})
    hub.faults.times["HEAD .*resolve"] = 2
    assert list(gn.load("hub:alice/rooms").tasks) == ["seg"]


def test_nothing_private_or_gated_without_a_token(hub, bundle, monkeypatch, tmp_path):
    hub.add("alice/hidden", files_of(bundle), private=True)
    hub.add("alice/gated", files_of(bundle), gated=True)
    for token in (None, READER):
        asking(monkeypatch, hub, tmp_path / "cache", token)
        refused(HubError, "gated; accept its terms", "hub:alice/gated")
        if token is None:
            refused(HubError, "private one", "hub:alice/hidden")
    asking(monkeypatch, hub, tmp_path / "cache", "hf_old")
    refused(HubError, "token", "hub:alice/hidden")
    asking(monkeypatch, hub, tmp_path / "cache", WRITER)
    gn.load(["hub:alice/hidden"])
    gn.load(["hub:alice/gated"])


def test_nobody_there_and_nobody_answering(hub, monkeypatch, tmp_path):
    from huggingface_hub import constants

    from garnish.hub import download

    monkeypatch.setattr(download, "PATIENCE", 0.2)
    hub.faults.silent = "GET /api/models"
    refused(HubError, "did not answer in time.*HF_HUB_OFFLINE=1")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused(HubError, "cannot be reached.*HF_HUB_OFFLINE=1")


def test_a_download_that_breaks_off_leaves_nothing(hub, tmp_path):
    hub.faults.cut["weights.safetensors"] = 0
    refused(HubError, "connection broke")
    assert [file for file in blobs(tmp_path) if "incomplete" in file.name] == []
    hub.faults.cut.clear()
    gn.load("hub:alice/rooms")


def test_a_download_that_breaks_off_a_few_times_goes_on(hub, bundle):
    hub.faults.cut["weights.safetensors"] = 20_000
    hub.faults.times["weights.safetensors"] = 3
    assert files_of(gn.pull("alice/rooms")) == files_of(bundle)


def test_more_bytes_than_announced_end_the_download(hub, tmp_path):
    hub.faults.endless["weights.safetensors"] = 2**28
    refused(HubError, "has more than")
    assert sum(file.stat().st_size for file in blobs(tmp_path)) < 2**20


@pytest.mark.parametrize("size", [5, 10**9])
def test_headers_that_lie_are_found(hub, tmp_path, size):
    hub.faults.headed["weights.safetensors"] = size
    refused(HubError, "bytes|Consistency|connection broke|failed")
    assert all(file.stat().st_size < 10**6 for file in blobs(tmp_path))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("bundle.json", 2**30),
        ("SHA256SUMS", 2**30),
        ("weights.safetensors", 10**6),
        ("weights.safetensors", 2**50),
        ("bundle.json", None),
        ("bundle.json", -1),
        ("bundle.json", "large"),
    ],
)
def test_what_is_announced_too_large_is_not_downloaded(hub, tmp_path, name, size):
    hub.faults.announced[name] = size
    refused(HubError, "bytes, more than|does not say how large")
    assert not any(f"GET /alice/rooms/resolve/main/{name}" in line for line in hub.asked)
    assert not any(line.startswith("GET") and "weights" in line for line in hub.asked)


def test_a_file_that_changed_its_size_is_forgotten(hub, tmp_path):
    hub.faults.announced["SHA256SUMS"] = 7
    refused(HubError, "has more than the 7|were announced")


class _Touch:
    """A pickle that would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_other_files_are_left_alone(hub, bundle, tmp_path, capsys):
    ran = tmp_path / "ran"
    strange = [
        "../../evil",
        "/etc/passwd",
        "a/../../b",
        "bad\udcff".encode("utf-8", "replace").decode(),
        "x\x1b[31m",
        "C:\\x",
    ]
    files = {
        **files_of(bundle),
        "weights.pkl": pickle.dumps(_Touch(ran)),
        "pytorch_model.bin": pickle.dumps(_Touch(ran)),
    }
    hub.add("eve/traps", files)
    hub.faults.listed = [*strange, *(f"file{n}" for n in range(3000))]
    assert main(["pull", "hub:eve/traps", "--out", str(tmp_path / "copy")]) == 0
    out = capsys.readouterr().out
    assert "left alone: 3,008 files" in out or "left alone: 3008 files" in out
    assert "\x1b" not in out
    assert sorted(entry.name for entry in (tmp_path / "copy").iterdir()) == sorted([*NAMES, "hub.json"])
    assert not ran.exists()
    names = {line.rpartition("/")[2] for line in hub.asked if "resolve" in line}
    assert names == set(NAMES)
    assert len(blobs(tmp_path)) == 3


def _other_size(facts: dict) -> None:
    facts["sizes"]["weights_bytes"] = 2**60


def _other_trunk(facts: dict) -> None:
    facts["backbone"] |= {"name": "mit_b0", "weights_source": "eve/trunk"}


def _other_names(facts: dict) -> None:
    facts["tasks"]["../x"] = facts["tasks"].pop("seg")


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        (_other_size, GarnishError, "bytes"),
        (_other_names, BundleError, "described once"),
        (_other_trunk, BundleError, "eve/trunk"),
    ],
)
def test_a_description_that_lies_is_refused(hub, bundle, tmp_path, change, kind, match):
    hub.add("eve/lies", changed(files_of(bundle), change))
    refused(kind, match, "hub:eve/lies")


def test_a_trunk_of_the_hub_is_asked_for_there(hub, bundle):
    hub.add("eve/trunk", {"model.safetensors": b"no weights"})
    hub.add("eve/lies", changed(files_of(bundle), _other_trunk))
    refused(BundleError, "cannot be built from eve/trunk", "hub:eve/lies")
    assert "GET /api/models/eve/trunk" in hub.asked


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bundle.json", b"../../../etc/passwd"),  # as git stores a link
        ("bundle.json", b"\x80\x04N."),
        ("bundle.json", b"{}"),
        ("bundle.json", b""),
        ("weights.safetensors", b"../../../etc/passwd"),
        ("weights.safetensors", pickle.dumps([1])),
        ("SHA256SUMS", b"0" * 64 + b"  bundle.json\n"),
        ("SHA256SUMS", b"\xff"),
    ],
)
def test_damaged_files_are_refused_and_nothing_is_written(hub, bundle, tmp_path, name, data, capsys):
    hub.add("eve/damaged", {**files_of(bundle), name: data})
    assert main(["pull", "hub:eve/damaged", "--out", str(tmp_path / "copy")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".copy*"))


@pytest.mark.parametrize("missing", ["bundle.json", "weights.safetensors"])
def test_a_repository_without_a_bundle_is_told(hub, bundle, missing):
    hub.add("alice/other", {name: data for name, data in files_of(bundle).items() if name != missing})
    assert missing in refused(HubError, "is no bundle", "hub:alice/other")


def test_an_older_bundle_without_sums_is_read(hub, bundle):
    hub.add("alice/old", {name: data for name, data in files_of(bundle).items() if name != "SHA256SUMS"})
    assert list(gn.load("hub:alice/old").tasks) == ["seg"]


def test_a_branch_that_moves_meanwhile_is_fetched_anew(hub, tmp_path, monkeypatch):
    repository = hub.repositories["alice/rooms"]
    later = files_of(save_bundle(tmp_path / "later", "later"))
    told = hub_server._Handler.info
    moved: list[str] = []

    def info(self, name, revision="main"):
        told(self, name, revision)
        if not moved:
            moved.append(repository.commit(later))

    monkeypatch.setattr(hub_server, "_ROUTES", [(p, info if m is told else m) for p, m in hub_server._ROUTES])
    assert list(gn.load("hub:alice/rooms").tasks) == ["later"]


def test_a_wrong_address_is_a_wrong_option(hub):
    refused(OptionError, "no name of the Hub", "hub:../x")
    assert hub.asked == []
