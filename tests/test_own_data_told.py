"""What people who hold their data in Python are told: in their words, once, and before it costs them a run."""

from __future__ import annotations

import re
import traceback

import numpy as np
import pytest

import garnish as gn
import tiny
from garnish.errors import DataError, OptionError
from garnish.training.run_folder import how_to_go_on

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (32, 32, 3), np.uint8)
MASK = RNG.integers(0, 3, (32, 32)).astype(np.uint8)
SEG = gn.Semantic(classes=3)
DEPTH = gn.Depth(max_metres=10)
METRES = np.full((32, 32), 2.0, np.float32)


class Items:
    def __init__(self, make, count=6):
        self.make, self.count = make, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError(index)
        return self.make(index)


def test_a_key_that_only_later_items_have_is_a_label_of_these():
    def item(index):
        return {"image": PICTURE, "seg": MASK, **({"depth": METRES} if index == 5 else {})}

    data = gn.dataset(Items(item), {"seg": SEG, "depth": DEPTH})
    assert set(data[0].targets) == {"seg"} and set(data[5].targets) == {"seg", "depth"}
    with pytest.raises(DataError, match=r"none of 4 items has 'depth'.*or give 'depth' as None"):
        gn.dataset(Items(item, 4), {"seg": SEG, "depth": DEPTH})


def test_ids_that_count_from_1_are_told_so_first():
    with pytest.raises(DataError, match=r"write `offset: -1` if ids count from 1, else `ignore: 3`"):
        gn.dataset([(PICTURE, MASK + 1)], {"seg": SEG})
    off = MASK + 1
    off[0, 0] = 0
    with pytest.raises(DataError) as told:
        gn.dataset([(PICTURE, off)], {"seg": SEG})
    assert "offset" not in str(told.value)
    assert len(gn.dataset([(PICTURE, MASK + 1)], {"seg": SEG}, labels={"seg": {"offset": -1}})) == 1


def test_ranges_are_asked_for_as_they_were_written():
    with pytest.raises(DataError, match=r"state bands=gn\.Bands\(range=\[LOW, HIGH\]\)") as told:
        gn.dataset([(np.ones((8, 8, 5), np.float32), MASK[:8, :8])], {"seg": SEG}, bands=gn.Bands(names=tuple("abcde")))
    assert "channels" not in str(told.value)


def test_an_error_in_the_middle_of_a_run_keeps_its_place():
    def item(index):
        if index == 5:
            raise ValueError("no such tile")
        return PICTURE, MASK

    data = gn.dataset(Items(item), {"seg": SEG})
    line = item.__code__.co_firstlineno + 2
    told = rf"Items\[5\]: reading it fails: ValueError no such tile \({re.escape(__file__)}:{line}\); mend"
    model = tiny.model("mit", gn.LoRA(rank=2), tasks=("seg",))
    with pytest.raises(DataError, match=told) as error:
        gn.fit(model, gn.dataset(Items(item), {"seg": model.tasks["seg"]}), steps=1, batch_size=1, progress=False)
    assert "no such tile" in "".join(traceback.format_exception(error.value)).partition("The above")[0]
    assert isinstance(error.value.__cause__, ValueError)
    assert any(re.search(r"no such tile", one) for one in gn.check(data).errors)


def test_check_tells_items_that_change_and_tasks_without_labels():
    seen = [0]

    def item(index):
        seen[0] += 1
        return {"image": PICTURE + (seen[0] % 2 if index == 5 else 0), "seg": MASK, "depth": None}

    data = gn.dataset(Items(item), {"seg": SEG, "depth": DEPTH})
    told = gn.check(data).warnings
    assert any("Items: item 5 is another each time it is read (image differs)" in line for line in told)
    assert any("none of its 6 pictures has a label of task 'depth'" in line for line in told)
    assert not any(
        "another each" in line for line in gn.check(gn.dataset([(PICTURE, MASK)] * 6, {"seg": SEG})).warnings
    )


def test_a_run_on_data_held_in_python_is_resumed_in_python(tmp_path):
    assert "garnish train --resume r" in how_to_go_on(
        tmp_path.relative_to(tmp_path.parent).with_name("r"), by_command=True
    )
    model = tiny.model("mit", gn.LoRA(rank=2), tasks=("seg",))
    data = gn.dataset([(PICTURE, MASK)] * 2, {"seg": model.tasks["seg"]})
    run = tmp_path / "run"
    gn.fit(model, data, steps=1, batch_size=1, out=run, progress=False, log=())
    with pytest.raises(OptionError, match=r"resume needs the options that .*args\.yaml under train"):
        gn.fit(model, data, resume=run, progress=False)
    from garnish.cli import main

    assert "train --resume" not in (run / "index.html").read_text()
    assert main(["train", "--resume", str(run)]) == 2


def test_identify_may_be_any_function_where_nothing_is_sent():
    data = gn.dataset([(PICTURE, MASK)] * 2, {"seg": SEG}, identify=lambda index: f"row {index}")
    assert data.key(0) != data.key(1)
    with pytest.raises(OptionError, match=r"cannot be sent to other processes \(identify: "):
        data.__getstate__()


class Paths:
    """Two splits whose items say themselves what they are."""

    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return PICTURE, MASK

    def path(self, index):
        return self.names[index]


def test_a_bound_method_identifies_the_items_of_each_split():
    splits = {name: Paths([f"{name}/0.png", f"{name}/1.png"]) for name in ("train", "val")}
    train, val = (gn.dataset(mine, {"seg": SEG}, identify=mine.path) for mine in splits.values())
    assert len({train.key(0), train.key(1), val.key(0), val.key(1)}) == 4
    train.__getstate__()
