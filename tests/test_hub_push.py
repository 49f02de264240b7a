"""A bundle is pushed whole, with a card of what it says, or nothing is."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

import garnish as gn
from garnish.bundles.bundle_json import read_bundle_json
from garnish.bundles.licences_told import licences_told
from garnish.cli import main
from garnish.engine.stated_licences import StatedLicences
from garnish.errors import BundleError, GarnishError, HubError, OptionError
from garnish.sharing.card import card_text
from garnish.sharing.licences import stated_licence
from hub_cases import NAMES, changed, files_of, save_bundle
from hub_server import READER, WRITER, asking, serving

RECIPE = {
    "data": {"path": "/home/alice/secret/rooms.yaml"},
    "train": {"eval_size": [96, 128], "eval_limit": 50, "seed": 7, "steps": 400, "batch_size": 4, "balance": "Fixed"},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("hub") / "bundle")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving() as server:
        asking(monkeypatch, server, tmp_path / "cache")
        yield server


def main_files(hub, name: str = "alice/rooms", revision: str = "main") -> dict[str, bytes]:
    repository = hub.repositories[name]
    return repository.commits[repository.resolve(revision)]


def writes(hub) -> list[str]:
    return [line for line in hub.asked if line.startswith(("POST", "PUT"))]


# ---- pushing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [pytest.param("regular", marks=pytest.mark.slow), "lfs"])
def test_what_was_pushed_is_pulled(hub, bundle, tmp_path, mode):
    hub.mode = mode
    made = gn.push(bundle, "alice/rooms")
    assert set(main_files(hub)) == {*NAMES, "README.md", ".gitattributes"}
    assert gn.push(bundle, "hub:alice/rooms").commit == made.commit
    assert (made.commit, made.changed) == (hub.repositories["alice/rooms"].branches["main"], True)
    assert made.url.endswith(made.commit)
    assert len(hub.repositories["alice/rooms"].messages) == 2  # the repository's own and ours
    assert len(hub.uploads) == (1 if mode == "lfs" else 0)
    folder = gn.pull("alice/rooms", out=tmp_path / "copy")
    assert files_of(folder) == files_of(bundle)
    again = gn.push(bundle, "alice/rooms")
    assert (again.commit, again.changed) == (made.commit, False)
    assert len(hub.uploads) == (1 if mode == "lfs" else 0)


def test_an_interrupted_push_goes_on(hub, bundle):
    hub.mode = "lfs"
    hub.faults.status["POST .*commit"] = (500, {})
    with pytest.raises(HubError, match="fault of its own"):
        gn.push(bundle, "alice/rooms")
    assert set(main_files(hub)) == {".gitattributes"}
    hub.faults.status.clear()
    assert gn.push(bundle, "alice/rooms").changed
    assert len(hub.uploads) == 1


def test_a_model_is_pushed_as_its_bundle(hub, bundle):
    model = gn.load(bundle)
    made = gn.push(model, "alice/rooms", metrics={"seg": {"miou": 0.25}}, message="From Python")
    assert hub.repositories["alice/rooms"].messages[-1] == "From Python"
    picture = torch.rand(1, 3, 40, 33)
    with torch.no_grad():
        assert torch.equal(gn.load("hub:alice/rooms")(picture)["seg"], model(picture)["seg"])
    assert ModelCard(made.card).data.eval_results[0].metric_value == 0.25


def test_metrics_of_the_same_weights_are_kept(hub, bundle, tmp_path, caplog):
    gn.push(bundle, "alice/rooms", licence="mit")
    again = gn.push(gn.load("hub:alice/rooms"), "alice/rooms", licence="apache-2.0")
    assert read_bundle_json(gn.pull("alice/rooms"))["metrics"]["seg"]["miou"] == 0.4321
    assert "0.4321" in again.card
    assert again.metrics_lost == () and not again.private
    assert len(repr(again)) < 200 and "alice/rooms@" in repr(again) and "public" in repr(again)
    other = gn.load(bundle)
    with torch.no_grad():
        next(iter(other.own_tensors().values())).add_(1.0)
    assert gn.push(other, "alice/rooms").metrics_lost == ("seg",)
    assert "alice/rooms: had metrics of seg" in caplog.text


def test_a_run_is_its_best(hub, bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "run" / "best")
    gn.push(tmp_path / "run", "alice/rooms")
    assert main_files(hub)["weights.safetensors"] == (bundle / "weights.safetensors").read_bytes()


def test_nothing_beside_the_bundle_is_sent(hub, bundle, tmp_path):
    folder = tmp_path / "merged"
    shutil.copytree(bundle, folder)
    for name in ("merged.safetensors", "trunk.pth", "notes.txt", "hub.json"):
        (folder / name).write_bytes(b"mine")
    gn.push(folder, "alice/rooms")
    assert set(main_files(hub)) == {*NAMES, "README.md", ".gitattributes"}


@pytest.mark.slow
def test_branches_pull_requests_and_privacy(hub, bundle, tmp_path):
    gn.push(bundle, "alice/rooms", private=True)
    assert hub.repositories["alice/rooms"].private
    other = save_bundle(tmp_path / "other", "later")
    gn.push(other, "alice/rooms", revision="v2")
    assert b"later" in main_files(hub, revision="v2")["bundle.json"]
    assert b"later" not in main_files(hub)["bundle.json"]
    made = gn.push(other, "alice/rooms", create_pr=True)
    assert made.url.endswith("/discussions/1")
    assert b"later" not in main_files(hub)["bundle.json"]
    assert list(read_bundle_json(gn.pull("alice/rooms@refs/pr/1"))["tasks"]) == ["later"]
    hub.add("alice/open", {".gitattributes": b""})
    with pytest.raises(HubError, match="is public"):
        gn.push(bundle, "alice/open", private=True)
    with pytest.raises(HubError, match="no such repository"):
        gn.push(bundle, "alice/none", create_pr=True)
    assert set(main_files(hub, "alice/open")) == {".gitattributes"}


@pytest.mark.parametrize(
    ("token", "fault", "match"),
    [
        (None, None, "needs a token.*hf auth login"),
        (READER, None, "does not allow it"),
        ("hf_old", None, "token"),
        (WRITER, ("POST .*commit", (412, {})), "changed by somebody else"),
        pytest.param(WRITER, ("POST .*commit", (403, {})), "not allow", marks=pytest.mark.slow),
        pytest.param(WRITER, ("POST .*commit", (413, {})), "quota", marks=pytest.mark.slow),
        pytest.param(WRITER, ("POST .*preupload", (429, {})), "too many", marks=pytest.mark.slow),
        (WRITER, ("POST .*validate", (400, {})), "failed|refuses"),
        (WRITER, ("PUT /lfs", (500, {})), "fault|failed"),
        (WRITER, ("POST /api/repos", (402, {})), "quota"),
    ],
)
def test_a_refusal_is_one_line_and_changes_nothing(hub, bundle, monkeypatch, tmp_path, token, fault, match, capsys):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.mode = "lfs"
    if fault is None or "repos" not in fault[0]:
        hub.add("alice/rooms", {".gitattributes": b""})
    asking(monkeypatch, hub, tmp_path / "cache", token)
    if fault is not None:
        hub.faults.status[fault[0]] = fault[1]
    assert main(["push", str(bundle), "alice/rooms"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert len(err) < 420
    assert re.search(match, err), err
    if "alice/rooms" in hub.repositories:
        assert set(main_files(hub)) == {".gitattributes"}
    assert len(hub.asked) < 40


def test_a_repository_of_something_else_is_left_alone(hub, bundle):
    hub.add("alice/bert", {"model.safetensors": b"x", "config.json": b"{}", "README.md": b""})
    with pytest.raises(HubError, match=r"holds other files.*config\.json"):
        gn.push(bundle, "alice/bert")
    assert writes(hub) == []


def test_pushing_needs_no_xet(hub, bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "hf_xet", None)
    hub.mode = "lfs"
    assert gn.push(bundle, "alice/rooms").changed


def test_what_cannot_be_pushed_asks_nobody(hub, bundle, tmp_path, monkeypatch):
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    (damaged / "weights.safetensors").write_bytes(bytes(48_836))
    random = tmp_path / "random"
    random.mkdir()
    changes = changed(files_of(bundle), lambda facts: facts["backbone"].update(weights_source="random"))
    for name, data in changes.items():
        (random / name).write_bytes(data)
    cases: list[tuple[object, type[GarnishError], str]] = [
        (tmp_path, BundleError, "is not a bundle"),
        (tmp_path / "none", BundleError, "no such bundle"),
        (damaged, BundleError, "weights.safetensors"),
        (random, BundleError, "random weights"),
        ("hub:alice/rooms", OptionError, "lies on the Hub already"),
    ]
    for given, kind, match in cases:
        with pytest.raises(kind, match=match):
            gn.push(given, "alice/rooms")
    monkeypatch.chdir(bundle.parent)
    for swapped in (str(bundle), bundle.name):
        with pytest.raises(OptionError, match=r"is a bundle, and there is no folder 'carol/rooms5'; the bundle comes"):
            gn.push("carol/rooms5", swapped)
    with pytest.raises(OptionError, match=r"write user/name$"):
        gn.push(bundle, "rooms5")
    for repository in ("rooms", "alice/rooms/best", "alice/rooms@v1", "../rooms", "alice/ro oms"):
        with pytest.raises(OptionError):
            gn.push(bundle, repository)
    with pytest.raises(OptionError, match="message"):
        gn.push(bundle, "alice/rooms", message="two\nlines")
    with pytest.raises(OptionError, match="metrics"):
        gn.push(bundle, "alice/rooms", metrics={"seg": {"miou": 1.0}})
    assert hub.asked == []


def test_a_dry_run_prints_card_and_files(hub, bundle, capsys):
    assert main(["push", str(bundle), "alice/rooms", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert 'gn.load("hub:alice/rooms")' in out
    assert "weights.safetensors (" in out
    assert out.endswith("nothing was sent\n")
    assert hub.asked == []
    assert main(["push", str(bundle), "alice/rooms", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commit"] is None


# ---- licences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "trunk", "data", "identifier", "name", "forbids"),
    [
        (None, "apache-2.0", None, "unknown", None, False),
        (None, "apache-2.0", "Apache-2.0", "apache-2.0", None, False),
        (None, "apache-2.0", "mit", "unknown", None, False),
        (None, "not stated", "not stated", "unknown", None, False),
        (None, "cc-by-nc-4.0", None, "cc-by-nc-4.0", None, True),
        (None, "apache-2.0", "CC BY-NC-SA 3.0", "other", "non-commercial", True),
        (None, "NVIDIA Source Code License (non-commercial)", "mit", "other", "non-commercial", True),
        ("apache-2.0", "mit", "CC BY 4.0", "apache-2.0", None, False),
        ("CC-BY-NC-4.0", "research only", None, "cc-by-nc-4.0", None, True),
        ("other:My Licence, v2", "mit", None, "other", "my-licence-v2", False),
        ("LicenseRef-Mine", "mit", None, "other", "mine", False),
        ("Apache 2.0", "mit", None, "apache-2.0", None, False),
        ("unknown", "mit", None, "unknown", None, False),
    ],
)
def test_licences_bind(asked, trunk, data, identifier, name, forbids):
    found = stated_licence(asked, trunk, data, flagged=False)
    assert (found.identifier, found.name, found.non_commercial) == (identifier, name, forbids)


@pytest.mark.parametrize(
    ("trunk", "data", "flagged", "why"),
    [
        ("cc-by-nc-4.0", None, False, "the backbone's weights forbid"),
        ("apache-2.0", "for research only", False, "the training pictures forbid"),
        ("unclear", None, True, "the backbone's weights forbid"),
        ("cc-by-nc-4.0", "non-commercial use", False, "the backbone's weights and the training pictures forbid"),
    ],
)
def test_a_permissive_licence_on_bound_weights_is_refused(trunk, data, flagged, why):
    for asked in ("apache-2.0", "mit", "cc-by-4.0", "unknown"):
        with pytest.raises(OptionError, match=why):
            stated_licence(asked, trunk, data, flagged=flagged)


def test_the_card_says_what_binds(hub, bundle, capsys):
    words = ["push", str(bundle), "alice/rooms", "--data-licence", "CC BY-NC-SA 3.0"]
    assert main([*words, "--licence", "mit"]) == 2
    assert hub.asked == []
    assert main(words) == 0
    assert "warning: not for commercial use" in capsys.readouterr().out
    card = ModelCard(main_files(hub)["README.md"].decode())
    assert (card.data.license, card.data.license_name) == ("other", "non-commercial")
    assert "**Not for commercial use**: the licence of the training pictures" in card.text
    assert "carries the same terms" in card.text


@pytest.mark.parametrize(("asked", "meant"), [("apache", "apache-2.0"), ("cc-by-nc", "cc-by-nc-2.0"), ("My Own", None)])
def test_a_licence_that_is_no_identifier_is_refused(asked, meant):
    with pytest.raises(OptionError, match=f"did you mean {meant}" if meant else "other:NAME") as error:
        stated_licence(asked, "mit", None, flagged=False)
    assert len(str(error.value)) < 400


def test_licences_go_where_the_bundle_goes(hub, bundle, tmp_path, capsys):
    gn.push(bundle, "alice/rooms", licence="cc-by-4.0", data_licence="CC BY 4.0")
    copy = gn.pull("alice/rooms", out=tmp_path / "copy")
    assert read_bundle_json(copy)["extra"]["licences"] == {"bundle": "cc-by-4.0", "data": "CC BY 4.0"}
    assert gn.push(copy, "bob/rooms").licence.text == "cc-by-4.0"
    assert "extra" not in read_bundle_json(bundle)  # what was pushed from is not changed

    gn.push(bundle, "alice/bound", data_licence="CC BY-NC 4.0")
    copy = gn.pull("alice/bound", out=tmp_path / "bound")
    saved = gn.load(copy).save(tmp_path / "saved")
    joined = gn.load([save_bundle(tmp_path / "more", "more"), saved]).save(tmp_path / "joined")
    merged = tmp_path / "merged"
    gn.merge(copy, merged)
    for given in (copy, gn.load("hub:alice/bound"), saved, joined, merged):
        with pytest.raises(OptionError, match=r"the training pictures.* forbid .*CC BY-NC 4\.0"):
            gn.push(given, "bob/rooms", licence="mit", dry_run=True)
    with pytest.raises(OptionError, match="forbid"):  # another text does not lift it
        gn.push(copy, "bob/rooms", licence="mit", data_licence="CC0-1.0", dry_run=True)
    both = gn.push(copy, "bob/rooms", data_licence="CC0-1.0", dry_run=True).licence
    assert (both.data, both.text) == ("CC BY-NC 4.0; CC0-1.0", "non-commercial")
    capsys.readouterr()
    assert main(["info", str(copy)]) == 0
    out = capsys.readouterr().out
    assert "CC BY-NC 4.0" in out and "warning: not for commercial use" in out


def test_a_strangers_licences_are_texts(bundle):
    for told in (3, [], {"data": 3, "bundle": ["x"]}, {"data": "  "}):
        facts = described(bundle, lambda facts, told=told: facts.update(extra={"licences": told}))
        assert licences_told(facts) == StatedLicences()
    facts = described(bundle, lambda facts: facts.update(extra={"licences": {"data": "x\x1b\n" * 10**5}}))
    assert "\x1b" not in licences_told(facts).data and len(licences_told(facts).data) <= 2000


# ---- the card -------------------------------------------------------------------------------------------------------


def described(bundle: Path, change=lambda facts: None) -> dict:
    facts = json.loads(json.dumps(read_bundle_json(bundle)))
    change(facts)
    return facts


LICENCE = stated_licence(None, "apache-2.0", None, flagged=False)


def test_the_front_matter_is_the_hubs(bundle):
    def run(facts: dict) -> None:
        facts["extra"] = {"recipe": RECIPE, "step": 300}

    card = ModelCard(card_text(described(bundle, run), "alice/rooms", LICENCE))
    data = card.data
    assert (data.library_name, data.license, data.pipeline_tag) == ("garnish", "unknown", "image-segmentation")
    assert {"garnish", "lora", "semantic"} <= set(data.tags)
    (result,) = data.eval_results  # of a single class there is none
    assert (result.dataset_name, result.dataset_split, result.task_type) == ("rooms", "val", "image-segmentation")
    assert (result.metric_type, result.metric_value) == ("miou", 0.4321)
    assert "base_model" not in yaml.safe_load(card.content.split("---")[1])
    for told in (
        "resized to `[96, 128]`",
        "at most `50`, evenly spaced",
        "seed: `7`",
        "`400`",
        "`300`, the best of the run",
    ):
        assert told in card.text
    assert "secret" not in card.content
    assert "1 values of single classes" in card.text or "1 value of single classes" in card.text


def test_results_stand_under_their_own_task(bundle):
    def several(facts: dict) -> None:
        seg = facts["tasks"].pop("seg")
        kinds = {"edges": "Edges", "normals": "Normals", "depth": "Depth", "seg": "Semantic"}
        for name, kind in kinds.items():
            facts["tasks"][name] = {**seg, "name": kind, "options": seg["options"] if name == "seg" else {}}
        facts["metrics"] = {
            "edges": {"ods_f": 0.7, "best_threshold": 0.31},
            "normals": {"mean_angle": 11.25},
            "depth": {"rmse": 0.5},
            "seg": {"miou": 0.4},
        }

    text = card_text(described(bundle, several), "alice/rooms", LICENCE, None, "Rooms")
    (index,) = yaml.safe_load(text.split("---")[1])["model-index"]
    found = {result["task"]["name"]: [metric["type"] for metric in result["metrics"]] for result in index["results"]}
    assert found == {"edges": ["ods_f"], "normals": ["mean_angle"], "depth": ["rmse"], "seg": ["miou"]}
    assert {result["dataset"]["name"] for result in index["results"]} == {"Rooms"}
    assert ModelCard(text).data.pipeline_tag == "image-segmentation"
    assert "depth-estimation" in ModelCard(text).data.tags
    assert "best_threshold" in text  # in the card's own table
    assert "Measured on `Rooms`, as who pushed it says" in text


def test_the_card_says_who_trained(bundle):
    def fitted(facts: dict) -> None:
        facts["extra"] = {"recipe": {"train": RECIPE["train"]}, "step": 300}

    assert "As `gn.fit` measured" in card_text(described(bundle, fitted), "alice/rooms", LICENCE)
    named = card_text(described(bundle, fitted), "alice/rooms", LICENCE, None, "Rooms of mine")
    assert "As `gn.fit` measured them on the split `val` of `Rooms of mine`" in named


def test_a_trunk_of_the_hub_is_the_base_model(bundle):
    def trunk(facts: dict) -> None:
        facts["backbone"] |= {"name": "vit_small_patch14_dinov2", "weights_source": "timm/vit_small_patch14_dinov2"}

    card = ModelCard(card_text(described(bundle, trunk), "alice/rooms", LICENCE))
    assert card.data.base_model == "timm/vit_small_patch14_dinov2"
    assert "are fetched from `timm/vit_small_patch14_dinov2`" in card.text
    assert "--weights" not in card.text


def test_a_trunk_of_a_file_is_to_be_passed(bundle):
    def trunk(facts: dict) -> None:
        facts["backbone"]["weights_source"] = "/home/alice/vit.pth"

    facts = described(bundle, trunk)
    card = ModelCard(card_text(facts, "alice/rooms", LICENCE))
    assert card.data.base_model is None
    assert 'gn.load("hub:alice/rooms", weights="backbone.safetensors")' in card.text
    assert "/home/alice" not in card.content
    named = ModelCard(card_text(facts, "alice/rooms", LICENCE, "org/vit"))
    assert named.data.base_model == "org/vit"
    assert 'weights="org/vit"' in named.text


def test_paths_that_the_world_would_read_are_told(hub, bundle, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    files = changed(files_of(bundle), lambda facts: facts.update(extra={"recipe": RECIPE, "step": 300}))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    assert main(["push", str(folder), "alice/rooms", "--dry-run"]) == 0
    assert "tells the world these paths: /home/alice/secret/rooms.yaml" in capsys.readouterr().out


STRANGE = [
    "---\nlicense: mit\n---",
    "x](https://evil.example) [y",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "`` ` `code` **bold** | cell | _x_ \\",
    "# heading\n\n- item\n\n```\nfence",
    "https://evil.example www.evil.example a@evil.example",
    "\x1b[31mred\u202e\u2028",
    "!!python/object:os.system {a: [b]} &x *x",
    "| --- |",
]


@pytest.mark.parametrize("text", STRANGE)
def test_text_of_strangers_is_only_shown(bundle, text):
    def strange(facts: dict) -> None:
        task = facts["tasks"]["seg"]
        task["labels"] = task["options"]["classes"] = [text, "road"]
        facts["backbone"] |= {"licence": text, "weights_source": text}
        facts["metrics"]["seg"] = {text.replace("/", "-"): 0.5}
        facts["extra"] = {"recipe": {"data": {"name": text}, "train": {"seed": text, "balance": text}}, "step": text}

    licence = stated_licence(None, text, text, flagged=False)
    plain = card_text(described(bundle), "alice/rooms", LICENCE)
    card = card_text(described(bundle, strange), "alice/rooms", licence, "org/vit")
    told = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    assert set(told) <= {
        "library_name", "license", "license_name", "base_model", "base_model_relation", "pipeline_tag", "tags",
        "model-index",
    }  # fmt: skip
    assert told["license"] == "unknown"
    assert ModelCard(card).data.eval_results[0].metric_value == 0.5
    assert not {"\x1b", "\u202e", "\u2028"} & set(card)

    def kinds(text: str) -> list[str]:
        tokens = MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(text.split("\n---\n", 1)[1])
        return [inner.type for token in tokens for inner in (token, *(token.children or []))]

    found = kinds(card)
    assert not {"link_open", "image", "html_inline", "html_block", "strong_open", "em_open"} & set(found)
    for kind in ("heading_open", "fence", "table_open"):
        assert found.count(kind) == kinds(plain).count(kind), kind


def test_every_field_of_what_was_pushed_is_described():
    from garnish.sharing.push import Pushed

    assert all(f"{field.name}:" in (Pushed.__doc__ or "") for field in dataclasses.fields(Pushed))
