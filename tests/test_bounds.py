"""Every number of every option has bounds, declared beside its type: found by the registry, tried from outside."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch

import garnish as gn
from garnish import registry
from garnish.checking.arguments import Options
from garnish.checking.bounds import MOST_SEED
from garnish.checking.plain_data import LONGEST, Within, hints_of
from garnish.comparing.compare_options import CompareOptions
from garnish.data.augment import Augment, resize_sample
from garnish.data.dataset import Sample
from garnish.data.scenes.scenes import Scenes
from garnish.data.sources import SceneOptions
from garnish.demo import run_demo
from garnish.errors import OptionError
from garnish.training.train_options import TrainOptions

#: Kinds whose classes have options; those of trunks are their families' own.
KINDS = [
    kind for kind in registry.KINDS if kind not in ("backbones", "transformers", "annotations", "checks", "foreign")
]
CLASSES: dict[str, type] = {
    **{name: cls for kind in KINDS for name, cls in registry.classes(kind).items()},
    **{cls.__name__: cls for cls in (TrainOptions, Augment, SceneOptions, CompareOptions)},
}
#: Functions of users that take numbers; a dataclass of options is named by ``taking``.
FUNCTIONS = {"fit": gn.fit, "evaluate": gn.evaluate, "check": gn.check, "Scenes": Scenes.__init__, "demo": run_demo}

#: What a class cannot be made without.
NEEDED: dict[str, dict[str, Any]] = {
    "Semantic": {"classes": 3},
    "RelativeDepth": {"larger": "nearer"},
    "UnitlessDepth": {"larger": "nearer"},
    "Fixed": {"weights": {}},
    "TrainOptions": {"steps": 1},
    **{name: {"labels": ("{name}.png",)} for name in registry.classes("readers")},
}
#: What an end of one option needs of the others, as they depend on each other.
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("Depth", "max_metres"): {"min_metres": 1e-9},
    ("SoftplusDepth", "max_metres"): {"min_metres": 1e-9},
    ("DepthReader", "scale"): {},
    ("Semantic", "f1_class"): {"classes": 255},
    ("TrainOptions", "epochs"): {"steps": None},
    ("BoundariesReader", "others"): {"map": {0: 0}},
    ("IdsReader", "others"): {"map": {0: 0}},
}
#: Options of which an end is refused by a check that depends on more than the number, with a line of its own.
OWN_LINE = {
    ("Semantic", "classes"): "Saliency is for one",
    ("Depth", "max_metres"): "min < max",
    ("Depth", "min_metres"): "min < max",
    ("SoftplusDepth", "max_metres"): "min < max",
    ("SoftplusDepth", "min_metres"): "min < max",
    ("Semantic", "class_weights"): "one per class",
    ("Semantic", "cross_entropy"): "no loss",
    ("Augment", "scale"): "low end",
    ("DeMT", "channels"): "divisible by",
    ("DeMT", "heads"): "divisible by",
    ("BinaryReader", "threshold"): "keep one",
    ("BoundariesReader", "packed"): "red, green and blue",
    ("IdsReader", "packed"): "red, green and blue",
    ("DepthReader", "packed"): "red, green and blue",
    ("RelativeDepthReader", "packed"): "red, green and blue",
    ("Saliency", "iou_threshold"): "set one of",
    ("Saliency", "f_threshold"): "set one of",
    ("TrainOptions", "epochs"): "exactly one",
    ("LoRA", "alpha"): "nothing would be learned",
}


@dataclasses.dataclass(frozen=True)
class Number:
    """A number in the annotation of an option, and how a value of the option is made of it."""

    option: str
    kind: type
    within: Within | None
    make: Any


def numbers_in(
    option: str, hint: Any, make: Any = lambda value: value, within: Within | None = None
) -> Iterator[Number]:
    """Every number in an annotation: in tuples, unions, mappings, annotations of annotations."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint in (int, float):
        yield Number(option, hint, within, make)
    elif origin is Annotated:
        own = next((one for one in hint.__metadata__ if isinstance(one, Within)), None)
        yield from numbers_in(option, inner[0], make, own)
    elif origin is tuple:
        many = len(inner) if Ellipsis not in inner else 1
        if within is not None and within.of == "lengths" and within.ends is not None:
            many = max(many, int(within.ends[0]))
        of_one = functools.partial(lambda many, value: make((value,) * many), many)
        for one in dict.fromkeys(kind for kind in inner if kind is not Ellipsis):
            yield from numbers_in(option, one, of_one)
    elif inspect.isclass(origin) and issubclass(origin, Mapping):
        yield from numbers_in(option, inner[0], lambda key: make({key: 0}))
        yield from numbers_in(option, inner[1], lambda value: make({"a" if inner[0] is str else 0: value}))
    elif origin is not Literal:
        for one in inner:
            yield from numbers_in(option, one, make)


def numbers_of(of: Any) -> list[Number]:
    return [
        number for option, hint in hints_of(of).items() if option != "return" for number in numbers_in(option, hint)
    ]


def fields_of(cls: type) -> list[Number]:
    known = {field.name for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    return [number for number in numbers_of(cls) if number.option in known]


EACH = [(name, number) for name, cls in CLASSES.items() for number in fields_of(cls)]
CASES = [pytest.param(name, number, id=f"{name}.{number.option}-{number.kind.__name__}") for name, number in EACH]


def given(name: str, option: str, value: object) -> dict[str, Any]:
    return {**NEEDED.get(name, {}), **BESIDE.get((name, option), {}), option: value}


def made(name: str, option: str, value: object) -> object:
    return CLASSES[name](**given(name, option, value))


def constructed(name: str, option: str, value: object) -> object:
    return registry.construct(CLASSES[name], given(name, option, value), where=name)


def is_raw(number: Number) -> bool:
    """Whether it is a value of label files, which may be nan or inf."""
    return number.within is not None and not number.within.finite


def beyond(number: Number) -> list[Any]:
    """Numbers just outside of its bounds, and what no option takes."""
    assert number.within is not None
    if is_raw(number):
        return [True]
    assert number.within.ends is not None
    least, most = number.within.ends
    if number.kind is int:
        near: list[Any] = [int(least) - 1, int(most) + 1, 0.5]
    else:
        near = [math.nextafter(least, -math.inf), math.nextafter(most, math.inf)]
    large = [one for one in (2**63, 10**26) if one > most]
    return [*near, *large, math.nan, math.inf, -math.inf, 10**400, True]


def ends(number: Number) -> list[Any]:
    """Numbers at the ends of its bounds, or next to them where an end is left out."""
    assert number.within is not None
    if is_raw(number):
        return [math.nan, -math.inf, 0]
    assert number.within.ends is not None
    least, most = number.within.ends
    inside = (least, most) if number.kind is int else (math.nextafter(least, math.inf), math.nextafter(most, -math.inf))
    exact = [end for end in number.within.ends if number.within.holds(end)]
    if number.option in ("size", "eval_size"):  # both sides of a picture
        return [int(least), 2**14] if most > 2**14 else [int(least), int(most)]
    return [*map(number.kind, inside), *exact]


def test_all_options_are_looked_at() -> None:
    assert len(EACH) > 110 and {"LoRA", "UPerHead", "Semantic", "Fixed", "IdsReader", "Augment"} <= {n for n, _ in EACH}
    assert all(issubclass(cls, Options) for cls in CLASSES.values())


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_number_has_bounds_that_its_default_keeps(name: str, number: Number) -> None:
    assert number.within is not None, f"{name}.{number.option}: annotate bounds, as garnish.checking.bounds has them"
    assert is_raw(number) or number.within.ends is not None


@pytest.mark.parametrize(("name", "number"), CASES)
def test_numbers_beyond_the_bounds_are_refused_in_one_line(name: str, number: Number) -> None:
    for value in beyond(number):
        for build in (made, constructed):  # in Python; from recipes and bundles
            with pytest.raises(OptionError) as error:
                build(name, number.option, number.make(value))
            text = str(error.value)
            assert text.startswith(f"{name}.{number.option}") and "expected" in text, (value, text)
            assert "\n" not in text and len(text) < 400, (value, text)


@pytest.mark.parametrize(("name", "number"), CASES)
def test_the_ends_of_the_bounds_are_taken(name: str, number: Number) -> None:
    for value in ends(number):
        try:
            made(name, number.option, number.make(value))
        except OptionError as error:  # of several options together, never of this number
            assert OWN_LINE.get((name, number.option), "?") in str(error), (value, str(error))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_of_functions_have_bounds(name: str) -> None:
    found = numbers_of(FUNCTIONS[name])
    assert found and all(number.within is not None and number.within.ends for number in found), found


@pytest.mark.parametrize("name", CLASSES)
def test_lists_mappings_and_texts_of_options_are_bounded(name: str) -> None:
    cls = CLASSES[name]
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        hint = str(hints_of(cls)[field.name])
        tries = [("letters", "x" * (LONGEST + 1))] if "str" in hint else []
        tries += [("entries", ("x",) * (LONGEST + 1))] if "tuple" in hint else []
        tries += [("entries", {str(key): 0 for key in range(LONGEST + 1)})] if "Mapping" in hint else []
        for what, value in tries:
            with pytest.raises(OptionError) as error:
                made(name, field.name, value)
            text = str(error.value)
            assert text == f"{name}.{field.name}: expected at most 65,536 {what}, got 65,537; give fewer"


def test_lists_that_cost_a_layer_each_are_short() -> None:
    with pytest.raises(OptionError, match=r"^UPerHead\.pool_scales: expected .*, 1 to 64 of them, got tuple of int$"):
        gn.UPerHead(pool_scales=(1,) * 65)
    with pytest.raises(OptionError, match=r"^LoRA\.layers: expected a list of text, at most 4,096 of them, got "):
        gn.LoRA(layers=("qkv",) * 4_097)
    with pytest.raises(OptionError, match=r"^h\.pool_scales: .*, 1 to 64 of them"):
        registry.build("heads", "UPerHead", {"pool_scales": [1] * 65}, where="h")


def test_an_entry_out_of_bounds_is_named_not_the_list() -> None:
    with pytest.raises(OptionError, match=r"^UPerHead\.pool_scales: expected a whole number from 1 to 256, got int 0$"):
        gn.UPerHead(pool_scales=(1, 0))
    with pytest.raises(OptionError, match=r"^train\.balance\.seg: expected a number from 0 to 1e\+09, got nan$"):
        TrainOptions(steps=1, balance={"seg": math.nan})


def test_a_number_that_is_none_is_told_by_its_option() -> None:
    with pytest.raises(
        OptionError, match=r"^Houlsby\.reduction: expected a number from 0\.1 to 65,536, got float nan$"
    ):
        gn.Houlsby(reduction=math.nan)
    with pytest.raises(OptionError, match=r"^LoRA\.alpha: expected a number from -1e\+06 to 1e\+06, got float nan$"):
        gn.LoRA(alpha=math.nan)
    for nothing in (0, 1e-300):
        with pytest.raises(OptionError, match=r"^LoRA\.alpha: with .* nothing would be learned; set a finite value"):
            gn.LoRA(alpha=nothing)


def test_seeds_go_where_they_are_taken() -> None:
    for seed in (0, MOST_SEED):
        torch.Generator().manual_seed(seed)
        sample = Augment(size=(4, 4))(_picture(), (seed, 0, 0))
        assert sample.image.shape == (3, 4, 4)
        assert len(Scenes(1, size=8, seed=seed)[0].name) > 4
    for name, most in (("val", MOST_SEED - 2), ("test", MOST_SEED - 2)):
        from garnish.data.sources import open_data

        assert len(open_data({"name": "scenes", "size": 8, "seed": most, name: 1}, name)) == 1
    with pytest.raises(OptionError, match=r"^data \(scenes\)\.seed: expected a whole number from 0 to"):
        open_data({"name": "scenes", "seed": MOST_SEED})


def test_the_last_seed_of_a_comparison_is_one(tmp_path, mit_weights) -> None:
    from comparing_cases import conditions

    assert conditions(tmp_path, mit_weights, train={"seed": MOST_SEED - 1}, seeds=2).seeds[-1] == MOST_SEED
    with pytest.raises(OptionError, match=r"train\.seed: 9223372036854775807, and 1 seeds? after it; set less$"):
        conditions(tmp_path, mit_weights, train={"seed": MOST_SEED}, seeds=2)


def test_steps_of_epochs_are_counted_exactly() -> None:
    most = TrainOptions(epochs=1e6, batch_size=1)
    assert most.total_steps(2**31 + 1, 1, 1) == 10**6 * (2**31 + 1)
    with pytest.raises(OptionError, match=r"^TrainOptions\.epochs: expected a number above 0 to 1e\+06"):
        TrainOptions(epochs=1e308)


def test_pictures_have_no_more_pixels_than_a_machine_holds() -> None:
    assert Augment(size=(2**14, 2**14)).size == (2**14, 2**14)
    for size in ((2**14, 2**14 + 1), (65_537, 1), (0, 64), (64, 0)):
        for make in (lambda size: Augment(size=size), lambda size: TrainOptions(steps=1, eval_size=size)):
            with pytest.raises(OptionError, match=r"size: expected height and width, each from 1 to 65,536 and .*got"):
                make(size)


def _picture() -> Sample:
    from torchvision import tv_tensors

    values = np.random.default_rng(0).integers(0, 256, (3, 24, 32), dtype=np.uint8)
    return Sample(tv_tensors.Image(torch.from_numpy(values)), {}, "a")


def test_a_picture_becomes_a_single_pixel() -> None:
    given = _picture()
    one, two = resize_sample(given, (1, 1)).image, resize_sample(given, (1, 2)).image
    assert one.shape == (3, 1, 1) and one.dtype == torch.uint8 and type(one) is type(given.image)
    assert (one.float().mean((1, 2)) - two.float().mean((1, 2))).abs().max() <= 4
    assert resize_sample(Sample(one, {}, "a"), (5, 7)).image.shape == (3, 5, 7)


def test_single_pixels_are_evaluated_and_trained_on() -> None:
    data = Scenes(2, size=8, tasks=("depth",))
    model = gn.adapt(_trunk(), gn.LoRA(rank=1), data.tasks, gn.LinearHead())
    assert set(gn.evaluate(model, data, size=(1, 1))) == {"depth"}
    done = gn.fit(
        model, data, data, steps=1, batch_size=2, eval_size=(1, 1), augment=Augment(size=(1, 1)), progress=False
    )
    assert done.steps == 1 and math.isfinite(done.metrics["depth"]["rmse"])


def _trunk() -> Any:
    import tiny

    return tiny.backbone("mit")
