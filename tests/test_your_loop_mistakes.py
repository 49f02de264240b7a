"""What people who come with a loop of their own get wrong: each is one line that says what to give instead."""

from __future__ import annotations

import lightning
import pytest
import torch
from lightning.fabric.loggers import CSVLogger
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import garnish as gn
from garnish.data.subset import Subset as OurSubset
from garnish.errors import BundleError, GarnishError, OptionError
from training_cases import PARTIAL, QUIET, Blobs, every, tensors_of, tiny

SHORT = QUIET | {"steps": 1, "batch_size": 2, "check_pictures": 0}


class Watch(gn.Callback):
    """Keeps which moments it was told of."""

    def __init__(self):
        self.told = []

    def on_start(self, now):
        self.told.append("start")

    def on_step(self, now):
        self.told.append("step")

    def on_end(self, now):
        self.told.append("end")


class Logger:
    def __init__(self):
        self.rows, self.status = [], None

    def log_metrics(self, metrics, step):
        self.rows.append(step)

    def finalize(self, status):
        self.status = status


class Lit(lightning.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.net = model


@pytest.fixture(scope="module")
def model():
    return tiny()


def refused(kind, said, run):
    with pytest.raises(kind) as caught:
        run()
    line = str(caught.value)
    assert said in line and len(line) < 400 and "\n" not in line, line


# ---- arguments ------------------------------------------------------------------------------------------------------


def arguments():
    """What is given to fit → what is said."""
    plain = TensorDataset(torch.zeros(2, 3, 4, 4))
    return {
        "a class": ({"callbacks": [Watch]}, "give an object of the class: Watch(…)"),
        "one callback": ({"callbacks": Watch()}, "give a list of it"),
        "EarlyStopping": ({"callbacks": [Watch(), EarlyStopping("x")]}, "patience=…"),
        "a logger's class": ({"log": CSVLogger}, "log holds the class CSVLogger"),
        "a Subset": ({"train": Subset(plain, [0])}, "wrap it: gn.dataset(yours, tasks=…)"),
        "a Subset of ours": ({"train": Subset(Blobs(every(2)), [0])}, "garnish.data.subset.Subset(data, indices)"),
        "a DataLoader": ({"val": DataLoader(plain)}, "give its data set"),
    }


@pytest.mark.parametrize("name", arguments())
def test_arguments_of_fit(model, name):
    given, said = arguments()[name]
    refused(OptionError, said, lambda: gn.fit(model, **{"train": Blobs(every(2)), **SHORT, **given}))


def test_a_lightning_module_in_place_of_its_model(model, tmp_path):
    lit = Lit(model)
    refused(OptionError, "the garnish model that it holds, .net", lambda: gn.fit(lit, Blobs(every(2)), **SHORT))
    refused(OptionError, "the garnish model that it holds, .net", lambda: gn.save(lit, tmp_path / "x"))
    with pytest.raises(OptionError) as caught:
        gn.save(nn.Linear(1, 1), tmp_path / "x")
    assert "holds" not in str(caught.value)


def test_one_of_several_data_sets():
    ours, theirs = Blobs(every(2)), Subset(TensorDataset(torch.zeros(2)), [0])
    refused(OptionError, "wrap it", lambda: gn.join([ours, theirs]))
    assert len(OurSubset(ours, [1])) == 1  # what the message names


def test_options_in_place_of_a_balance(model):
    refused(OptionError, "gn.Fixed(…).build(model.tasks)", lambda: gn.Fixed()({"seg": torch.tensor(1.0)}))


def test_a_trainers_checkpoint_in_place_of_a_bundle(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    refused(BundleError, "then model.save(folder)", lambda: gn.load(tmp_path / "last.ckpt"))


def test_one_logger_without_a_list(model):
    logger = Logger()
    gn.fit(model, Blobs(every(2)), **{**SHORT, "log": logger})
    assert logger.rows == [1] and logger.status == "success"


# ---- callbacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hook", "ours"),
    [
        ("on_validation_end", "on_evaluation"),
        ("on_evaluate", "on_evaluation"),
        ("on_train_batch_end", "on_step"),
        ("on_step_end", "on_step"),
        ("on_train_start", "on_start"),
        ("on_train_begin", "on_start"),
        ("on_fit_end", "on_end"),
        ("on_exception", ""),
    ],
)
def test_hooks_of_other_libraries_are_refused(hook, ours):
    said = f".{hook}: fit calls no such method" + (f"; did you mean {ours!r}?" if ours else "; a gn.Callback has")
    refused(OptionError, said, lambda: type("Mine", (gn.Callback,), {hook: lambda self, now: None}))
    mixin = type("Mixin", (), {hook: lambda self, now: None})
    refused(OptionError, said, lambda: type("Mine", (mixin, Watch), {}))


def test_what_is_no_hook_is_left_alone():
    class Mine(Watch):
        on_gpu = True

        def _on_validation_end(self):
            pass

    assert Mine().told == []


def test_a_finished_run_says_so_when_it_is_resumed(tmp_path, capsys):
    data, logger, watch = Blobs(every(2)), Logger(), Watch()
    options = {**SHORT, "log": ["csv"]}
    gn.fit(tiny(), data, out=tmp_path / "run", **options)
    assert "already" not in capsys.readouterr().err
    again = gn.fit(tiny(), data, resume=tmp_path / "run", callbacks=[watch], **{**options, "log": ["csv", logger]})
    lines = [line for line in capsys.readouterr().err.splitlines() if "finished already, at step 1" in line]
    assert len(lines) == 1 and again.stopped == "finished" and again.steps == 1
    assert watch.told == ["start", "end"] and logger.rows == [] and logger.status == "success"


# ---- states and batches ---------------------------------------------------------------------------------------------


def states(model):
    """What is given as a state → what is said."""
    ours = model.trained_state()
    under = {f"net.{name}": tensor for name, tensor in ours.items()}
    whole = Lit(model).state_dict()
    return {
        "prefix": (under, "its names begin with 'net.'"),
        "whole": ({"epoch": 1, "state_dict": under}, 'give its ["state_dict"]'),
        "all": (whole, f"it has {next(iter(whole))[:20]!r}"[:-1]),
        "empty": ({}, "it is empty"),
    }


@pytest.mark.parametrize("name", ["prefix", "whole", "all", "empty"])
def test_states_of_other_names(model, name):
    before = tensors_of(model)
    state, said = states(model)[name]
    refused(BundleError, said, lambda: model.load_trained_state(state))
    assert all(torch.equal(tensor, before[key]) for key, tensor in tensors_of(model).items())


def test_the_line_that_takes_the_prefix_off_works(model):
    state, _ = states(model)["prefix"]
    with pytest.raises(BundleError) as caught:
        model.load_trained_state(state)
    expression = str(caught.value).rpartition(": give ")[2]
    model.load_trained_state(eval(expression, {"state": state | {"weigh.s": torch.tensor(0.0)}}))


def test_a_metric_takes_outputs_of_the_labelled_pictures(model):
    batch = gn.collate([Blobs(PARTIAL)[index] for index in range(6)])
    with torch.inference_mode():
        outputs = model.eval()(batch.images)
    for name, output in outputs.items():
        metric, rows = model.tasks[name].metric(), batch.where[name]
        assert len(rows) < len(output)
        said = f"outputs of 6 pictures, targets of {len(rows)}"
        refused(OptionError, said, lambda m=metric, o=output, n=name: m.update(o, batch.targets[n]))
        refused(GarnishError, "batch.tasks_of_rows()", lambda m=metric, o=output, n=name: m.update(o, batch.targets[n]))
        metric.update(output[rows], batch.targets[name])
        assert all(value.ndim == 0 for value in metric.compute().values())


def test_a_loader_without_collate_fn_makes_the_same_batches():
    data = Blobs(PARTIAL[:6])
    for one, other in zip(DataLoader(data, 3), DataLoader(data, 3, collate_fn=gn.collate), strict=True):
        assert isinstance(one, gn.data.dataset.Batch) and one.names == other.names and one.where == other.where
        assert all(torch.equal(x, y) for x, y in zip(one.tensors(), other.tensors(), strict=True))
