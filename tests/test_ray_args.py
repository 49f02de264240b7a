"""Arguments of the application under Ray Serve: read as options of the command are, and refused in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import garnish as gn
import tiny
from garnish.errors import BundleError, GarnishError, MissingExtraError, OptionError
from garnish.serving.ray_args import read_args

CONTENT = "a-token-of-this-test"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "indoor"
    gn.save(tiny.model("vit", gn.LoRA(rank=2)), folder / "best")
    return folder


def test_what_is_not_said_is_as_for_the_command(bundle):
    plan, other = read_args({"bundles": str(bundle)}), read_args({"bundles": f"b={bundle}/best"})
    assert plan.serving.bundles == {"indoor": bundle / "best"} and other.serving.bundles == {"b": bundle / "best"}
    assert (plan.replicas, plan.spread, plan.doors, plan.cpus, plan.gpus) == (1, 8, 1, 1.0, 0.0)
    assert (plan.serving.memory, plan.serving.queue, plan.settings.working) == (2 * 10**9, 64, 80)
    assert not plan.changing and plan.settings.token is None and plan.here() == plan.serving
    assert plan.start != other.start


def test_what_is_said_is_taken_of_words_and_of_numbers(bundle, tmp_path, monkeypatch):
    (tmp_path / "token").write_text(f"{CONTENT}\n")
    monkeypatch.chdir(tmp_path)
    words = {"bundles": f"a={bundle},b={bundle}", "replicas": 3, "memory": "0.5", "gpus": 0.25, "uploads": "up"}
    plan = read_args({**words, "token-file": "token", "allow-host": "Example.com", "log": "text"})
    assert (plan.replicas, plan.serving.memory, plan.gpus, plan.as_json) == (3, 5 * 10**8, 0.25, False)
    assert plan.serving.uploads == tmp_path / "up" and "example.com" in plan.settings.hosts
    assert plan.changing and plan.settings.token == CONTENT and CONTENT not in repr(plan)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"replica": 2}, "unknown argument 'replica'; did you mean 'replicas'? available: allow-host"),
        ({"max_upload": 2}, "did you mean 'max-upload'?"),
        ({"port": 80}, "port is not taken here; Serve's http_options say where it listens"),
        ({"host": "::"}, "host is not taken here; Serve's http_options"),
        ({"replicas": "0"}, "replicas: '0' is not a whole number from 1"),
        ({"replicas": 1.5}, "replicas: '1.5' is not a whole number"),
        ({"memory": "-1"}, "memory: '-1' is not a number from 0"),
        ({"deadline": "nan"}, "deadline: 'nan' is not a number from"),
        ({"gpus": -1}, "gpus: '-1' is not a number from 0"),
        ({"runtime": "tensorrt"}, "runtime: invalid choice: 'tensorrt'"),
        ({"allow-host": "a:80"}, "give it without scheme and port"),
        ({"replicas": True}, "replicas: expected a word or a number, found True"),
        ({"bundles": ["a", "b"]}, "lists are a,b"),
        ({"bundles": ""}, "names nothing"),
        ({"bundles": None}, "expected a word or a number"),
        ({"bundles": "nowhere"}, "'nowhere' is no folder"),
        ({"token-file": "nowhere"}, "nowhere: cannot be read"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(bundle, given, says):
    with pytest.raises(GarnishError) as refused:
        read_args({"bundles": str(bundle), **given})
    assert says in str(refused.value) and len(str(refused.value)) < 500 and "\n" not in str(refused.value)


def test_without_bundles_there_is_no_trunk(tmp_path):
    with pytest.raises(OptionError, match="there is no bundle, by which the trunk would be known"):
        read_args({})


def test_a_machine_with_another_bundle_says_so(bundle, tmp_path):
    gn.save(tiny.model("vit", gn.LoRA(rank=2)), tmp_path / "b")
    plan = read_args({"bundles": str(tmp_path / "b")})
    gn.save(tiny.model("vit", gn.LoRA(rank=3)), tmp_path / "b")
    with pytest.raises(BundleError, match="on this machine is another bundle"):
        plan.here()


def test_without_ray_it_is_one_line(bundle, monkeypatch):
    from garnish.serving.ray import app

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"needs Ray Serve.*pip install 'garnish\[serve,ray\]'"):
        app({"bundles": str(bundle)})


def test_the_file_ray_hides_no_package():
    import garnish.serving.ray as ours

    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'garnish[ray]'")
    assert ray.__file__ != ours.__file__ and hasattr(ray, "init")
