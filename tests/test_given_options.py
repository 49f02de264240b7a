"""What is given as an option: numbers of numpy, lists for tuples, and classes of options that others wrote."""

from dataclasses import InitVar, dataclass

import numpy as np
import pytest
import yaml

import garnish as gn
from garnish import registry
from garnish.data.augment import Augment
from garnish.engine.adapter import Method, Plan
from garnish.errors import OptionError
from garnish.training.train_options import TrainOptions


def test_numbers_of_numpy_are_pythons(tmp_path):
    method = gn.LoRA(rank=np.int64(2), alpha=np.float32(4), rs=np.bool_(True), layers=[np.str_("attn.q")])
    assert method == gn.LoRA(rank=2, alpha=4.0, rs=True, layers=("attn.q",))
    assert [type(v) for v in (method.rank, method.alpha, method.rs, method.layers[0])] == [int, float, bool, str]
    tasks = {"depth": gn.Depth(max_metres=np.float32(10), weight=np.float64(1))}
    model = gn.adapt(gn.backbone("garnish_b0", drop_path=np.float64(0)), method, tasks)
    model.save(tmp_path / "bundle")
    assert [o.methods for o in gn.load(tmp_path / "bundle").owners] == [o.methods for o in model.owners]
    options = {
        "steps": np.int64(1), "batch_size": np.int64(2), "lr": np.float64(1e-3), "weight_decay": np.float32(0.1),
        "eval_size": list(np.array([64, 64])), "log": ["csv"], "balance": {"depth": np.float64(2)},
        "augment": Augment(flip=np.float32(0.5), scale=[np.float64(1), 1]),
    }  # fmt: skip
    data = gn.Scenes(np.int64(2), size=64, seed=1, tasks=["depth"])
    out = gn.fit(model, data, data, out=tmp_path / "run", progress=False, **options).out
    written = (out / "args.yaml").read_text()
    assert "numpy" not in written and yaml.safe_load(written)["train"]["eval_size"] == [64, 64]
    again = gn.adapt(gn.backbone("garnish_b0"), method, tasks)
    assert gn.fit(again, data, data, resume=out, progress=False, **options).steps == 1
    with pytest.raises(OptionError, match=r"rank: expected a whole number from 1 to 65,536, got float 2\.5"):
        gn.LoRA(rank=np.float64(2.5))


def test_lists_for_tuples_are_tuples():
    listed = gn.Semantic(classes=["a", "b"], class_weights=[1.0, 2])
    known = gn.Semantic(classes=("a", "b"), class_weights=(1.0, 2.0))
    assert listed == known and hash(listed) == hash(known) and listed.class_weights == (1.0, 2.0)
    assert hash(TrainOptions(steps=1, log=["csv"])) == hash(TrainOptions(steps=1, log=("csv",)))


@dataclass(frozen=True)
class ByPlace(Method):
    width: int = 3

    def plan(self, backbone):
        return Plan()


@dataclass(frozen=True, kw_only=True)
class Begun(Method):
    width: InitVar[int]
    double: int = 0

    def __post_init__(self, width: int) -> None:
        object.__setattr__(self, "double", 2 * width)

    def plan(self, backbone):
        return Plan()


class Own(Method):
    def __init__(self, width: int, *more: int) -> None:
        super().__init__(per_task=False)
        object.__setattr__(self, "width", width + sum(more))

    def plan(self, backbone):
        return Plan()


@dataclass(frozen=True, kw_only=True)
class Odd(Method):
    width: "3 +" = 3  # type: ignore  # noqa

    def plan(self, backbone):
        return Plan()


def test_classes_of_others_are_called_as_python_calls_them():
    assert ByPlace(np.int64(5)).width == 5 and type(ByPlace(np.int64(5)).width) is int
    assert ByPlace(5) == ByPlace(width=5) != ByPlace()
    assert Begun(width=4).double == 8
    assert vars(Own(4))["width"] == vars(Own(width=4))["width"] == 4 and vars(Own(1, 2))["width"] == 3
    assert Odd(width=4).width == 4
    assert registry.construct(Odd, {"width": 4}, where="adapter") == Odd(width=4)
    for wrong, told in (
        (lambda: ByPlace("5"), r"ByPlace\.width: expected a whole number, got str '5'"),
        (lambda: ByPlace(5, True), "options are given by name"),
        (lambda: ByPlace(5, width=5), "'width' is given twice"),
        (lambda: Begun(width="4"), r"Begun\.width: expected a whole number"),
        (lambda: Begun(), "option 'width' is required"),
        (lambda: Odd(widht=4), "unknown option 'widht'"),
    ):
        with pytest.raises(OptionError, match=told):
            wrong()
