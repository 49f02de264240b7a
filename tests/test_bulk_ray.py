"""Bulk prediction on real clusters of this machine: the command, several nodes, and kills at random moments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bulk_cases as made

pytest.importorskip("ray", reason="pip install 'garnish[ray]'")

SHORT = Path("/tmp")  # sockets of Ray have names that must be short


@pytest.fixture
def place(tmp_path_factory):
    """A short folder, for Ray's sockets lie below it."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="gb-", dir=os.environ.get("TMPDIR", SHORT)))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def typed(words: list[str], place: Path, **env: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "RAY_TMPDIR": str(place), "OMP_NUM_THREADS": "1", **env}
    command = [sys.executable, "-m", "garnish", "predict", *words]
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_the_command_on_a_cluster_of_this_machine(place):
    bundle = made.save_small(place / "bundle")
    made.put_pictures(place / "in", 12, broken=1)
    made.put_tar(place / "in/s.tar", {f"{n}.png": made.picture_bytes(50 + n) for n in range(3)})
    plain = typed([bundle, str(place / "in"), "--out", str(place / "plain")], place)
    assert plain.returncode == 1, plain.stderr
    words = ["--on", "ray", "--workers", "1", bundle, str(place / "in"), "--out", str(place / "out")]
    first = typed(words, place)
    assert first.returncode == 1, first.stderr
    assert "1 of 16 pictures not predicted:" in first.stderr and "0012.png: damaged or not a picture" in first.stderr
    truth, found = made.maps_of(place / "plain"), made.maps_of(place / "out")
    assert {name: data for name, data in found.items() if not name.startswith("s/")} == truth
    assert {name for name in found if name.startswith("s/")} == {
        f"s/{n}_{what}.png" for n in range(3) for what in ("seg", "depth", "sheet")
    }
    for name in list(found)[:2]:
        (place / "out" / name).unlink()
    (place / "in/d0/0012.png").write_bytes(made.picture_bytes(12))
    again = typed([*words, "--json"], place)
    assert again.returncode == 0, again.stderr
    counts = json.loads((place / "out/.garnish-predict/manifest.json").read_bytes())
    assert (counts["pictures"], counts["predicted"], counts["left_out"], counts["failed"]) == (16, 2, 14, 0)
    assert made.maps_of(place / "out").items() >= found.items()
    assert len(json.loads(again.stdout)) == 16
    other = typed([*words, "--flip"], place)
    assert other.returncode == 2 and "was begun with flip False, not True" in other.stderr


@pytest.mark.slow
def test_a_cluster_elsewhere_by_its_client_server_and_with_a_token(place):
    import ray

    ray_command = str(Path(sys.executable).with_name("ray"))
    token = place / "token"
    token.write_text("0123456789abcdef" * 4)
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_TMPDIR": str(place)}
    ports = ["--port=26390", "--ray-client-server-port=26391", "--include-dashboard=false"]
    words = [ray_command, "start", "--head", "--num-cpus=1", f"--temp-dir={place}", "--block", *ports]
    with (place / "head.log").open("wb") as log:
        head = subprocess.Popen(words, env=env, stdout=log, stderr=log, start_new_session=True)
    bundle = made.save_small(place / "bundle")
    made.put_pictures(place / "in", 3)
    command = ["--on", "ray://127.0.0.1:26391", bundle, str(place / "in"), "--out", str(place / "out")]
    try:
        given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        for _ in range(5):  # until the head listens
            done = typed(command, place, **given)
            if done.returncode == 0:
                break
        assert done.returncode == 0, (ray.__version__, done.stderr)
        assert len(made.maps_of(place / "out")) == 9
        wrong = place / "wrong"
        wrong.write_text("f" * 64)
        command[-1] = str(place / "other")
        refused = typed(command, place, **{**given, "RAY_AUTH_TOKEN_PATH": str(wrong)})
        assert refused.returncode == 2 and "token" in refused.stderr and refused.stderr.count("\n") == 1
        assert "f" * 64 not in refused.stderr
    finally:
        import signal

        os.killpg(head.pid, signal.SIGTERM)
        head.wait(60)


@pytest.mark.slow
def test_kills_at_random_moments(place):
    from bulk_kills import BulkKills

    harness = BulkKills(place, seed=0)
    try:
        while sum(harness.kills.values()) < 20:
            found = harness.session(5)
            assert not found["faults"], found
    finally:
        harness.close()
