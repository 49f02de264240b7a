"""The key of a picture: the same for the same files and options, another for anything that changes a target."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from garnish.data.folder import folder
from garnish.data.joined import join
from garnish.data.scenes.scenes import Scenes
from garnish.data.subset import Subset, thinned
from training_cases import Blobs, every

SEG = {"task": "Semantic", "labels": "seg/{name}.png", "classes": 3}


@pytest.fixture
def root(tmp_path):
    for name in "ab":
        for kind, shape in (("rgb", (6, 8, 3)), ("seg", (6, 8))):
            file = tmp_path / kind / f"{name}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full(shape, ord(name) % 2, np.uint8)).save(file)
    return tmp_path


def opened(root, **seg):
    return folder({"images": "rgb/*.png", "tasks": {"seg": SEG | seg}}, root=root)


def test_a_folder_opened_again_has_the_same_keys(root):
    first = [opened(root).key(i) for i in range(2)]
    assert first == [opened(root).key(i) for i in range(2)]
    assert None not in first and len(set(first)) == 2


def test_a_moved_folder_keeps_its_keys(root):
    before = [opened(root).key(i) for i in range(2)]
    moved = root.with_name("moved")
    root.rename(moved)
    assert [opened(moved).key(i) for i in range(2)] == before


@pytest.mark.parametrize("kind", ["rgb", "seg"])
def test_a_changed_file_changes_the_key_of_its_picture_alone(root, kind):
    data = opened(root)
    before = [data.key(i) for i in range(2)]
    file = root / kind / "a.png"
    Image.fromarray(np.full((6, 8, 3) if kind == "rgb" else (6, 8), 2, np.uint8)).save(file)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert data.key(0) != before[0]
    assert data.key(1) == before[1]


@pytest.mark.parametrize("option", [{"ignore": 0}, {"map": {0: 1, 1: 0}}, {"classes": 4}])
def test_how_labels_are_read_is_part_of_the_key(root, option):
    assert opened(root, **option).key(0) != opened(root).key(0)


def test_the_weight_of_a_loss_is_not(root):
    assert opened(root, weight=2).key(0) == opened(root).key(0)


def test_a_task_more_or_less_changes_the_key(root):
    more = {"images": "rgb/*.png", "tasks": {"seg": SEG, "border": {"task": "Edges", "labels": "seg/{name}.png"}}}
    more["tasks"]["border"]["from"] = "boundaries"
    both = folder(more, root=root)
    assert both.key(0) != folder(more, tasks=["seg"], root=root).key(0)
    assert folder(more, tasks=["seg"], root=root).key(0) == opened(root).key(0)


def test_joined_and_partial_sets_delegate(root):
    data, scenes = opened(root), Scenes(5, size=16)
    joined = join(data, Scenes(5, size=16, tasks=("depth",)), Blobs(every(1)))
    assert [joined.key(i) for i in range(2)] == [data.key(i) for i in range(2)]
    assert joined.key(3) == Scenes(9, size=(16, 16), tasks=("depth",)).key(1)
    assert joined.key(7) is None
    assert thinned(scenes, every=2).key(1) == scenes.key(2)
    assert Subset(scenes, [4, 1], ["depth"]).key(1) == f"{scenes.key(1)}:depth"


def test_scenes_tell_their_parameters_apart():
    keys = [
        Scenes(4, size=16).key(1),
        Scenes(4, size=16).key(2),
        Scenes(4, size=24).key(1),
        Scenes(4, size=16, seed=1).key(1),
        Scenes(4, size=16, style="pretrain").key(1),
        Scenes(4, size=16, tasks=("seg",)).key(1),
    ]
    assert len(set(keys)) == len(keys)
    with pytest.raises(IndexError):
        Scenes(4).key(4)


def test_a_set_that_says_nothing_has_no_keys():
    assert Blobs(every(2)).key(0) is None
