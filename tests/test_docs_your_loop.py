"""docs/your-loop.md: each of its blocks runs as it stands, in the page's order, and does what the page says."""

from __future__ import annotations

import csv
import importlib.util
import re
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

import garnish as gn

PAGE = (Path(__file__).parents[1] / "docs" / "your-loop.md").read_text(encoding="utf-8")
SMP = "segmentation_models_pytorch"
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),  # few workers, few batches: advice about speed
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
]


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What all blocks of the page have made, run in its order in an empty folder."""
    folder = tmp_path_factory.mktemp("page")
    names: dict = {"__name__": "page", "__folder__": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks():
            if SMP in block:
                names["__smp__"] = block
                continue
            exec(compile(block, "your-loop.md", "exec"), names)
    return names


def test_the_blocks_run(page):
    folder = page["__folder__"]
    for bundle in ("my-tasks", "by-lightning", "best-by-lightning", "adapters"):
        assert gn.load(folder / bundle).tasks
    assert page["measured"].keys() == page["train"].tasks.keys()
    assert page["ids"].shape == (1, 48, 64) and page["logits"].shape == (2, 7, 48, 64)


def test_checkpoints_are_small(page):
    """As the page says: without the trunk, whose 3.3 M parameters are 13 MB."""
    folder = page["__folder__"]
    file = folder / "epochs" / "0.ckpt"
    whole = torch.load(file, weights_only=True)["state_dict"]
    assert whole["weigh"].keys() == page["module"].weigh.state_dict().keys() and len(whole["weigh"]) == 5
    kept = whole["model"]
    assert kept.keys() == page["fresh"]().trained_state().keys()
    of_state = 4 * sum(tensor.numel() for tensor in kept.values())
    assert (folder / "step.pt").stat().st_size < of_state + 100_000
    assert file.stat().st_size < 3 * of_state + 200_000  # AdamW's two moments beside it


def test_the_lightning_module_ends_as_a_plain_loop(page):
    """Two epochs of the page's Trainer, resumed in between, against torch alone: model, balance and schedule."""
    model = page["fresh"]().train()
    weigh = gn.Uncertainty().build(model.tasks)
    learnt = {"params": list(weigh.parameters()), "lr": 1e-3, "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([*model.parameter_groups(lr=1e-3), learnt])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2 * len(page["batches"]))
    for _ in range(2):
        for batch in page["batches"]:
            loss = weigh(gn.losses(model, model(batch.images, batch.tasks_of_rows()), batch))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
            optimizer.step()
            schedule.step()
    for name, tensor in weigh.state_dict().items():
        assert torch.equal(tensor, page["module"].weigh.state_dict()[name]) and tensor != 0, name
    ended = page["module"].model.trained_state()
    for name, tensor in model.trained_state().items():
        assert torch.equal(tensor, ended[name]), name
    start = page["fresh"]().trained_state()
    assert any(not torch.equal(start[name], tensor) for name, tensor in ended.items())


def test_the_best_epoch_comes_back(page):
    kept = torch.load(page["first"].checkpoint_callback.best_model_path, weights_only=True)["state_dict"]
    for name, tensor in page["best"].model.trained_state().items():
        assert torch.equal(tensor, kept["model"][name]), name
    for name, tensor in page["best"].weigh.state_dict().items():
        assert torch.equal(tensor, kept["weigh"][name]), name


@pytest.mark.parametrize("sanity", [0, 2])
def test_modes_of_a_loaded_model_under_lightning(page, sanity, tmp_path):
    """No hook after a validation is needed: each part has its mode in every training step."""
    module = page["Dense"](gn.load(page["__folder__"] / "my-tasks"))
    assert not module.model.training
    wanted = {name: part.training for name, part in page["fresh"]().train().named_modules()}
    assert set(wanted.values()) == {True, False}
    seen = []

    class Looks(lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, number):
            seen.append({name: part.training for name, part in module.model.named_modules()})

    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    lightning.Trainer(
        max_epochs=2, limit_train_batches=1, num_sanity_val_steps=sanity, callbacks=[Looks()], devices=1,
        enable_checkpointing=False, **quiet,
    ).fit(module, page["batches"], page["batches_of_val"])  # fmt: skip
    assert len(seen) == 2 and seen[0] == seen[1] == wanted


def test_a_validation_without_a_label_is_nan_which_early_stopping_ends(page):
    task = page["val"].tasks["seg"]
    metric = task.metric()
    metric.update(torch.zeros(1, task.channels, 4, 4), torch.full((1, 4, 4), 255))
    found = metric.compute()["miou"]
    assert found.isnan()
    for check_finite in (True, False):
        stops = EarlyStopping("val/seg/miou", mode="max", check_finite=check_finite)
        assert stops._evaluate_stopping_criteria(found)[0] == check_finite


def test_the_callback_ends_the_run(page):
    assert page["result"].stopped == "callback" and page["result"].steps == 2
    assert [step for step, _, _ in page["watch"].losses] == [1, 2]


def test_the_logger_has_the_rows(page):
    (file,) = (page["__folder__"] / "logs").rglob("metrics.csv")
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows if row["loss"]] == ["2", "4"]
    assert [row["step"] for row in rows if row["val/depth/rmse"]] == ["2", "4"]


def test_a_decoder_of_segmentation_models_pytorch(page):
    if importlib.util.find_spec(SMP) is None:
        pytest.skip(f"{SMP} is not installed")
    names = dict(page)
    exec(compile(page["__smp__"], "your-loop.md", "exec"), names)
    assert names["logits"].shape == (2, 7, 48, 64)
    names["logits"].sum().backward()
    assert all(p.grad is not None for p in names["unet"].parameters())
