"""Training with kept trunk features: the numbers of training without, and what keeps the folder sound."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

import garnish as gn
from garnish.data.dataset import Sample
from garnish.engine.trunk_start import TrunkState
from garnish.errors import OptionError
from garnish.model.model import Model
from garnish.training import feature_cache as room
from garnish.training.feature_cache import can_cache
from garnish.training.feature_file import read_features
from test_trunk_prefix import METHODS, made, passes_of
from training_cases import PARTIAL, QUIET, TASKS, Blobs, every, gn_augment, tensors_of, tiny


class Keyed(Blobs):
    """Blobs that know what identifies them."""

    def key(self, index: int) -> str | None:
        return f"{self.seed}-{index}-{self.sizes[index % len(self.sizes)]}-{self.labelled[index]}"


pytestmark = pytest.mark.usefixtures("one_thread")


def trained(model: Model, train=None, val=None, **options):
    """A short run; returns the model's tensors and the result."""
    quiet = QUIET | {"augment": gn_augment()} | {"steps": 5, "batch_size": 3, "lr": 3e-3, "variants": 1, "seed": 5}
    result = gn.fit(model, train or Keyed(every(6)), val, check_pictures=0, **(quiet | options))
    return tensors_of(model), result


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


CASES = [
    *(("vit", m, "stage") for m in METHODS),
    ("dinov3", "LoRA", "stage"),
    ("dinov3", "SideTuning", "stage"),
    ("swin", "Partial", "merged"),
    ("mit", "LoRA per task", "stage"),
    ("convnext", "Frozen", "merged"),
    ("cnn", "Partial", "stage"),
]


@pytest.mark.parametrize(("short", "method", "taps"), CASES)
def test_the_same_numbers_as_without(tmp_path, short, method, taps):
    runs = {}
    for which, cache in (("without", None), ("cold", tmp_path), ("warm", tmp_path)):
        runs[which], result = trained(made(short, method, taps, TASKS).train(), cache=cache)
        assert result.warnings == []
    start = tensors_of(made(short, method, taps, TASKS))
    way = sum(float((runs["without"][n] - start[n]).norm()) for n in start)
    apart = sum(float((runs["without"][n] - runs["cold"][n]).norm()) for n in start)
    assert way > 0.1 and apart < 5e-3 * way
    for name, tensor in runs["cold"].items():
        assert torch.equal(runs["warm"][name], tensor), name
    assert len(files(tmp_path)) == 6


def test_the_trunk_runs_in_the_first_epoch_only(tmp_path):
    model = made("vit", "Frozen", tasks=TASKS).train()
    calls = passes_of(model.backbone)
    trained(model, Keyed(every(6)), Keyed(every(2), seed=9), steps=8, eval_every=2, cache=tmp_path)
    probes = 1  # of check_sites
    assert calls.count(0) == calls.count(4) // 2 == 6 + 2 + probes  # two residuals a block
    assert len(files(tmp_path)) == 8


def test_only_what_is_changed_runs_on(tmp_path):
    model = made("vit", "Partial", tasks=TASKS).train()
    calls = passes_of(model.backbone)
    trained(model, steps=6, cache=tmp_path)
    assert calls.count(0) == calls.count(3) // 2 == 6 + 1
    assert calls.count(4) == 2 * (6 + 1)  # both residuals of the last block, in every step


def test_partial_labels_accumulation_variants_and_workers(tmp_path):
    runs = {}
    for which, more in (
        ("without", {}),
        ("cold", {"cache": tmp_path}),
        ("warm", {"cache": tmp_path}),
        ("workers", {"cache": tmp_path / "other", "workers": 1}),
    ):
        torch.manual_seed(0)
        data = Keyed(PARTIAL), Keyed(every(3), seed=1)
        options = {"variants": 2, "accumulate": 2, "batch_size": 4, "steps": 6, "eval_every": 3}
        runs[which], result = trained(late(), *data, **options, **more)
        runs[which] |= {f"{t}/{n}": torch.tensor(v) for t, m in result.metrics.items() for n, v in m.items()}
    for name, tensor in runs["without"].items():
        torch.testing.assert_close(runs["cold"][name], tensor, atol=1e-3, rtol=1e-2, equal_nan=True)
        for which in ("warm", "workers"):
            torch.testing.assert_close(runs[which][name], runs["cold"][name], atol=0, rtol=0, equal_nan=True)
    assert len(files(tmp_path)) == 2 * (2 * 16 + 3)


def late() -> Model:
    """Dropout and batch norm, LoRA in the last block."""
    return tiny(gn.LoRA(rank=2, dropout=0.1, layers=("stages.3.blocks.0.attn.qkv",)), head=gn.SegFormerHead(channels=8))


def test_runs_of_other_seeds_share_what_is_kept(tmp_path):
    for seed in (0, 1):
        model = made("vit", "Frozen", tasks=TASKS)
        calls = passes_of(model.backbone)
        trained(model, variants=2, steps=4, seed=seed, cache=tmp_path)
        assert calls.count(0) == 1 + (12 if seed == 0 else 0)
    assert len(files(tmp_path)) == 12


@pytest.mark.parametrize(
    "change",
    [
        {"train": Keyed(every(6), seed=3)},
        {"train": Keyed([["seg"]] * 6)},
        {"augment": None},
        {"short": "dinov2"},
        {"method": "Partial"},
        {"precision": "bf16-mixed"},
    ],
    ids=["seed", "labels", "augment", "family", "method", "precision"],
)
def test_what_a_state_depends_on_names_it(tmp_path, change):
    def start(short="vit", method="Frozen", train=None, **options):
        tasks = {n: t for n, t in TASKS.items() if train is None or n in train.labelled[0]}
        trained(made(short, method, tasks=tasks), train, steps=2, cache=tmp_path, **options)

    start()
    assert len(files(tmp_path)) == 6
    start(**change)
    assert len(files(tmp_path)) == 12


def test_a_kept_picture_is_what_was_augmented(tmp_path):
    data = Keyed(every(6))
    trained(made("vit", "SideTuning", tasks=TASKS), data, variants=2, steps=4, cache=tmp_path)
    wanted = {}
    for index in range(6):
        for variant in range(2):
            sample = gn_augment()(data[index], (variant, index))
            wanted[sample.image.numpy().tobytes()] = sample
    found = [read_features(file, data.tasks) for file in files(tmp_path)]
    assert len(found) == len(wanted) == 12
    for sample in found:
        other = wanted[sample.image.numpy().tobytes()]
        assert sample.name == other.name and type(sample.image) is type(other.image)
        for task, target in other.targets.items():
            assert type(sample.targets[task]) is type(target) and sample.targets[task].dtype == target.dtype
            assert torch.equal(sample.targets[task], target)
        assert isinstance(sample, Sample) and isinstance(sample.start, TrunkState)
        assert len({id(x) for _, x in sample.start.named()}) < len(list(sample.start.named()))  # kept once


def test_a_full_folder_says_so_once_and_computes_the_rest(tmp_path):
    whole, _ = trained(made("vit", "Frozen", tasks=TASKS), steps=6, cache=tmp_path / "whole")
    size = files(tmp_path / "whole")[0].stat().st_size
    room_for_two = (2.2 * size + room._HEADER) / 1e9
    folder = tmp_path / "small"
    found, result = trained(made("vit", "Frozen", tasks=TASKS), steps=6, cache=folder, cache_gb=room_for_two)
    (line,) = result.warnings
    assert "full" in line and "of 6 pictures 2 fit" in line and "\n" not in line
    assert len(files(folder)) == 2 and sum(f.stat().st_size for f in files(folder)) <= room_for_two * 1e9
    assert all(torch.equal(found[n], whole[n]) for n in whole)
    (folder / "other").write_bytes(b"0" * size)  # what lies there counts, whatever it is
    files(folder)[0].unlink()
    _, result = trained(made("vit", "Frozen", tasks=TASKS), steps=2, cache=folder, cache_gb=room_for_two)
    assert "of 6 pictures 1 fit" in result.warnings[0]


@pytest.mark.parametrize("damage", ["cut", "byte", "text", "empty"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    whole, _ = trained(made("vit", "Frozen", tasks=TASKS), cache=tmp_path)
    file = files(tmp_path)[2]
    good = file.read_bytes()
    bad = bytearray(good)
    bad[-1000] ^= 1
    file.write_bytes({"cut": good[: len(good) // 2], "byte": bytes(bad), "text": b"no tensors", "empty": b""}[damage])
    found, result = trained(made("vit", "Frozen", tasks=TASKS), cache=tmp_path)
    assert all(torch.equal(found[n], whole[n]) for n in whole)
    assert file.read_bytes() == good and result.warnings == [] and len(files(tmp_path)) == 6


def test_a_full_disk_is_said_once_and_training_goes_on(tmp_path, monkeypatch):
    whole, _ = trained(made("vit", "Frozen", tasks=TASKS), cache=tmp_path / "whole")
    tried = []

    def refuse(path, data):
        tried.append(path)
        if len(tried) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    write = room.write_file
    monkeypatch.setattr(room, "write_file", refuse)
    found, result = trained(made("vit", "Frozen", tasks=TASKS), cache=tmp_path / "disk")
    (line,) = result.warnings
    assert "cannot be written to (No space left on device)" in line
    assert len(tried) == 3 and len(files(tmp_path / "disk")) == 2
    assert all(torch.equal(found[n], whole[n]) for n in whole)


def test_killed_and_resumed_is_as_if_unbroken(tmp_path):
    def run(cache, train, **where):
        options = {"variants": 2, "accumulate": 2, "batch_size": 2, "steps": 8, "eval_every": 4, "save_every": 1}
        model = late()
        return trained(model, train, Keyed(every(3), seed=1), cache=cache, **options, **where)

    whole, _ = run(tmp_path / "a", Keyed(PARTIAL), out=tmp_path / "whole")
    cut = Keyed(PARTIAL)
    cut.kill_at = 14
    with pytest.raises(SystemExit):
        run(tmp_path / "b", cut, out=tmp_path / "cut")
    kept = len(files(tmp_path / "b"))
    assert 0 < kept < len(files(tmp_path / "a"))
    found, result = run(tmp_path / "b", Keyed(PARTIAL), resume=tmp_path / "cut")
    assert result.steps == 8 and all(torch.equal(found[n], whole[n]) for n in whole)
    moved, _ = run(tmp_path / "c", Keyed(PARTIAL), out=tmp_path / "moved")  # in another folder, from nothing
    assert all(torch.equal(moved[n], whole[n]) for n in whole)
    with pytest.raises(OptionError, match=r"was started with train\.cache"):
        run(None, Keyed(PARTIAL), resume=tmp_path / "cut")


def test_the_folder_may_move_before_a_run_is_resumed(tmp_path):
    cut = Keyed(every(6))
    cut.kill_at = 9
    with pytest.raises(SystemExit):
        trained(late(), cut, variants=3, cache=tmp_path / "a", out=tmp_path / "run")
    (tmp_path / "a").rename(tmp_path / "b")
    found, _ = trained(late(), variants=3, cache=tmp_path / "b", cache_gb=1.0, resume=tmp_path / "run")
    whole, _ = trained(late(), variants=3, cache=tmp_path / "c")
    assert all(torch.equal(found[n], whole[n]) for n in whole)


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_what_cannot_be_kept_is_refused_in_one_line(tmp_path):
    for model, data, options, said in (
        (tiny(), Keyed(every(6)), {}, r"train\.cache: LoRA changes stages\.0\.blocks\.0\.attn, .* leave cache out"),
        (late(), Keyed(every(6)), {"variants": None}, r"train\.cache: .* set train\.variants"),
        (late(), Blobs(every(6)), {}, r"train\.cache: blobs does not say what identifies its pictures"),
        (late(), Keyed(every(6)), {"cache_gb": 0}, r"cache_gb: expected a number above 0 to 1e\+09, got int 0"),
        (
            late(),
            Keyed(every(6)),
            {"variants": 0},
            r"variants: expected a whole number from 1 to 1,000,000 or None, got int 0",
        ),
    ):
        with pytest.raises(OptionError, match=said) as refused:
            trained(model, data, **({"cache": tmp_path / "cache"} | options))
        assert "\n" not in str(refused.value)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OptionError, match=r"train\.cache: .*choose another folder"):
        trained(late(), cache=file / "inside")
    with pytest.raises(OptionError, match="one process keeps it, not 2"):
        room.FeatureCache(tmp_path, 1.0, print, processes=2)


def test_can_cache_says_why_not():
    assert can_cache(late()) == ""
    assert can_cache(made("swin", "SideTuning", tasks=TASKS)) == ""
    assert can_cache(tiny()).startswith("LoRA changes stages.0.blocks.0.attn")
    model = tiny()
    model.add(gn.Frozen(), {"edges": gn.Edges()}, freeze_others=True)
    assert can_cache(model) == ""  # tasks that are not trained have no say
    model.compile(backend="eager")
    assert "compiled" in can_cache(model)


def test_a_new_task_on_frozen_adapters_is_trained_from_kept_maps(tmp_path):
    model = tiny(gn.LoRA(rank=2))
    model.frozen_tasks.add("depth")
    model.add(gn.Frozen(), {"more": gn.Semantic(classes=3)}, freeze_others=True)
    with torch.no_grad():
        before = tensors_of(model)

    class More(Keyed):
        tasks = {"more": gn.Semantic(classes=3)}  # noqa: RUF012

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return Sample(sample.image, {"more": sample.targets["seg"]}, sample.name)

    val = Keyed(every(2), seed=1)  # whose tasks are the frozen ones too
    assert val.tasks.keys() == {"seg", "depth"}
    found, _ = trained(model, More(every(6)), More(every(2), seed=1), cache=tmp_path)
    assert len(files(tmp_path)) == 8
    changed = {name.split(".")[1] for name in found if not torch.equal(found[name], before[name])}
    assert changed == {"more"}
