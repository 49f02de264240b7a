"""Links that a stranger left where garnish writes: nothing outside of the folder is written, emptied or removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from garnish.comparing.store import Store
from garnish.errors import BundleError
from garnish.files.atomic import write_file, write_folder
from garnish.files.links import check_links
from garnish.training.run_folder import STATE, check_run


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes").write_text("mine")
    (folder / "a").write_text("mine too")
    return folder


@pytest.mark.parametrize("name", ["results.csv", ".results.csv.writing"])
@pytest.mark.parametrize("synced", [True, False])
def test_a_file_takes_the_place_of_a_link(name: str, synced: bool, mine: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(mine / "notes")
    before = snapshot(mine)
    write_file(run / "results.csv", b"ours", synced=synced)
    assert snapshot(mine) == before and not (run / "results.csv").is_symlink()
    assert (run / "results.csv").read_bytes() == b"ours" and [p.name for p in run.iterdir()] == ["results.csv"]


def test_what_a_folder_is_written_by_is_no_way_out(mine: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".best.writing").symlink_to(mine)
    before = snapshot(mine)
    write_folder(run / "best", {"a": b"1", "notes": b"2"})
    assert snapshot(mine) == before and snapshot(run) == {"best/a": b"1", "best/notes": b"2"}


def test_links_out_of_a_run_or_a_store_are_refused(mine: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / STATE).parent.mkdir(parents=True)
    (run / STATE).write_bytes(b"")
    (run / "loop").symlink_to(run / "loop")
    (run / "latest").symlink_to(Path("last"))
    check_run(run)  # links inside, and those that lead nowhere, stay
    (run / "best").symlink_to(mine)
    for reads in (check_run, check_links, Store):
        with pytest.raises(BundleError, match=r"run/best: is a link out of .*run; put a copy"):
            reads(run)
    (tmp_path / "store").symlink_to(mine)  # a link of the user's own, to a larger disk
    Store(tmp_path / "store")
    Store(tmp_path / "none")
