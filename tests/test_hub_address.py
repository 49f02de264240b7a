"""Addresses of the Hub are read strictly, and without one nothing asks the network."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

import garnish as gn
from garnish.cli import main
from garnish.errors import BundleError, OptionError
from garnish.hub.address import HubAddress, cached_address, is_hub
from garnish.recipes.paths import relocated
from garnish.serving.named_folders import named_folders
from hub_cases import save_bundle

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hub:alice/rooms", ("alice/rooms", "", None)),
        ("alice/rooms", ("alice/rooms", "", None)),
        ("hub:a/b@v1.2", ("a/b", "", "v1.2")),
        (f"hub:a/b@{COMMIT}", ("a/b", "", COMMIT)),
        ("hub:a/b@refs/pr/1", ("a/b", "", "refs/pr/1")),
        ("hub:a/b/best/_2@main", ("a/b", "best/_2", "main")),
        ("hub:A_1/b.c-d", ("A_1/b.c-d", "", None)),
    ],
)
def test_an_address_is_read(text, parts):
    found = HubAddress.parse(text)
    assert (found.repository, found.folder, found.revision) == parts
    assert HubAddress.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "hub:", "hub:a", "hub:/b", "hub:a/", "hub://a/b", "hub:a//b", "hub:../b", "hub:a/..", "hub:a/b/..",
        "hub:a/b/../c", "hub:a/b@", "hub:a/b@../x", "hub:a/b@x..y", "hub:a/b@x y", "hub:a/b@-x", "hub:a/b@x/",
        "hub:a/b@x\n", "hub:a/b?x", "hub:a/b\n", "hub:a/é", "hub:a/b.git", "hub:a--c/b", "hub:a/b/.git",
        "hub:a/" + "b" * 97, "hub:a/b@" + "x" * 201, "hub:a/b/" + "/".join("c" * 9), "hub: a/b", "https://a/b",
        "hub:a/b,c", "HUB:a/b", "hub:-a/b",
    ],
)  # fmt: skip
def test_another_text_is_refused_in_one_line(text):
    with pytest.raises(OptionError) as error:
        HubAddress.parse(text)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_only_the_prefix_makes_an_address(tmp_path):
    assert is_hub("hub:a/b")
    assert is_hub(Path("hub:a/b"))
    assert not any(map(is_hub, ["a/b", "./hub:a/b", "Hub:a/b", "", 3, tmp_path]))


def test_a_name_that_is_no_folder_may_be_one_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, asked in (("carol/open5", "hub:carol/open5"), ("carol/open5@v1", "hub:carol/open5@v1")):
        with pytest.raises(BundleError, match=rf"no such bundle.*, or {asked} for one on the Hub"):
            gn.load(name)
    for name in ("open5", "./open5", "runs/a/best", str(tmp_path / "open5"), "../open5"):
        with pytest.raises(BundleError, match="no such bundle") as error:
            gn.load(name)
        assert "hub:" not in str(error.value)
    with pytest.raises(BundleError, match=r"is no folder.*hub:carol/open5"):
        named_folders(["carol/open5"])


def test_two_revisions_do_not_go_together():
    assert HubAddress.parse("a/b").at("v1").revision == "v1"
    assert HubAddress.parse("a/b@v1").at("v1").revision == "v1"
    with pytest.raises(OptionError, match="already"):
        HubAddress.parse("a/b@v1").at("v2")


def test_a_folder_of_the_cache_tells_where_it_came_from(tmp_path):
    place = tmp_path / "models--alice--rooms" / "snapshots" / COMMIT
    assert str(cached_address(place)) == f"hub:alice/rooms@{COMMIT}"
    assert str(cached_address(place / "best")) == f"hub:alice/rooms/best@{COMMIT}"
    for other in (tmp_path, place.parent, tmp_path / "models--a--b" / "snapshots" / "main"):
        assert cached_address(other) is None


def test_a_recipe_keeps_an_address(tmp_path):
    given = {"onto": ["hub:alice/rooms", "runs/a"]}
    assert relocated(given, tmp_path, "recipe")["onto"][0] == "hub:alice/rooms"


def test_without_an_address_nothing_asks_the_network(tmp_path, monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    folder = save_bundle(tmp_path / "bundle")
    model = gn.load([folder, save_bundle(tmp_path / "other", "b")])
    model.load(folder, names={"seg": "again"})
    assert model.predict(torch.zeros(3, 32, 32, dtype=torch.uint8))["again"] is not None
    assert main(["info", str(folder)]) == 0
    assert main(["push", str(folder), "alice/rooms", "--dry-run"]) == 0
    assert main(["info", "alice/rooms"]) == 2
    assert "alice/rooms: no such bundle" in capsys.readouterr().err


def test_a_model_is_not_saved_to_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = gn.load(save_bundle(tmp_path / "bundle"))
    with pytest.raises(gn.errors.BundleError, match="push"):
        model.save("hub:alice/rooms")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]
