"""The options that say how a label file is to be read: names, types, which kind of label each applies to."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from garnish.errors import OptionError, suggest
from garnish.tasks.semantic import Semantic
from garnish.tasks.task import IGNORE, Task

#: How numbers of a file become a target; what ``kind: auto`` is resolved to.
KINDS = ("ids", "colours", "binary", "boundaries", "depth", "normals")

#: Metres per step of a unit.
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}

_ID_OPTIONS = ("ignore", "map", "others", "offset", "packed")
_APPLIES = {
    "ids": _ID_OPTIONS,
    "colours": ("colours", "others"),
    "binary": ("ignore", "threshold", "positive"),
    "boundaries": ("from", *_ID_OPTIONS),
    "depth": ("unit", "scale", "invalid", "packed"),
    "normals": ("invalid", "flip", "axes"),
}
_EVERY_KIND = ("labels", "kind", "orientation")
_ORIENTATIONS = ("upright", "stored")
_AXES = re.compile(r"x\s+(right|left)\s*,\s*y\s+(down|up)\s*,\s*z\s+(forward|backward)")


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """How the label files of one task are found and read (see ``docs/data.md`` for the YAML).

    Attributes:
        labels: templates of the file, with ``{name}`` and ``{split}``; the first that exists is read.
        kind: one of :data:`KINDS`.
        ignore: raw ids that become 255; 255 in an id map does so as well unless ``map`` or ``positive`` lists it.
        map: raw id → id; ids it does not list become ``others``, and are an error where that is None.
        others: the id of raw ids (or colours) that are not listed; "same" keeps a raw id.
        offset: added to raw ids; what becomes negative is 255 (−1 is "reduce zero label").
        scale: metres per step of a depth file; None: floating-point files in metres, integer files refused.
        invalid: raw values (normals: of all three channels) that mean "no label"; NaN may be one.
        threshold: raw values above it are foreground.
        positive: raw ids that are foreground, all others background.
        flip: axes of normals whose sign is turned to reach x right, y down, z forward.
        colours: (R, G, B) → id.
        packed: weights of red, green and blue, whose sum is the number of a pixel; None: one number a pixel.
        orientation: "upright": labels fit the picture as it is shown, once each is turned by its own EXIF orientation;
            "stored": they fit the pixels as the picture's file holds them, and are turned as the picture is. None:
            upright, and files where picture and label differ are told.
    """

    labels: tuple[str, ...]
    kind: str
    ignore: tuple[int, ...] = ()
    map: Mapping[int, int] | None = None
    others: int | str | None = None
    offset: int = 0
    scale: float | None = None
    invalid: tuple[float, ...] = ()
    threshold: float | None = None
    positive: tuple[int, ...] | None = None
    flip: tuple[str, ...] = ()
    colours: Mapping[tuple[int, int, int], int] | None = None
    packed: tuple[float, float, float] | None = None
    orientation: str | None = None

    @property
    def exact(self) -> bool:
        """Whether a number that is off by one means something else altogether, as it does for ids."""
        by_number = self.positive is not None or self.packed is not None
        return by_number or self.kind in ("ids", "colours", "boundaries")


#: Names of the label options as they stand in YAML.
LABEL_OPTIONS = (
    *("labels", "kind", "ignore", "map", "others", "offset", "unit", "scale"),
    *("invalid", "threshold", "positive", "flip", "axes", "colours", "from", "packed", "orientation"),
)


def parse_label_options(given: Mapping[str, Any], task: Task, where: str) -> LabelOptions:
    """Check the label options of one task.

    Args:
        given: options by name, all of them in :data:`LABEL_OPTIONS`.
        task: the task whose targets are read.
        where: what the message starts with (file and task).

    Raises:
        OptionError: a missing template, a wrong type or value, or an option that does not apply to the kind.
    """
    labels = tuple(_items(given.get("labels")))
    if not labels or not all(isinstance(template, str) for template in labels):
        raise OptionError(f"{where}: option 'labels' is required, a template such as \"masks/{{split}}/{{name}}.png\"")
    for template in labels:
        if "{name}" not in template:
            raise OptionError(
                f"{where}.labels: {template!r} has no {{name}}, so every picture would have one label; write"
                " {name} where the picture's name stands"
            )
    kind = _kind(given, task, where)
    for name in given:
        if name not in _EVERY_KIND and name not in _APPLIES[kind]:
            applies = ", ".join((*_APPLIES[kind], "orientation"))
            raise OptionError(f"{where}.{name}: does not apply to labels of kind {kind}; those take: {applies}")
    readers: dict[str, Callable[[Any, str], Any]] = {
        "ignore": _ints,
        "map": _id_map,
        "others": _others,
        "offset": _int,
        "scale": _positive_number,
        "invalid": _numbers,
        "threshold": _number,
        "positive": _ints,
        "packed": _weights,
        "orientation": _orientation,
    }
    values = {
        name: read(given[name], f"{where}.{name}") for name, read in readers.items() if given.get(name) is not None
    }
    if given.get("unit") is not None:
        if "scale" in values:
            raise OptionError(f"{where}: both 'unit' and 'scale' are given; keep one")
        if given["unit"] not in UNITS:
            raise OptionError(f"{where}.unit: unknown unit {given['unit']!r}; available: {', '.join(UNITS)}")
        values["scale"] = UNITS[given["unit"]]
    if "threshold" in values and "positive" in values:
        raise OptionError(f"{where}: both 'threshold' and 'positive' are given; keep one")
    if values.get("others") == "same" and kind == "colours":
        raise OptionError(f"{where}.others: a colour that is not listed has no id to keep; write an id, or 255")
    for name, listed in (("map", values.get("map") or ()), ("positive", values.get("positive") or ())):
        if both := sorted(set(values.get("ignore", ())) & set(listed)):
            raise OptionError(f"{where}: {both[0]} stands under 'ignore' and under {name!r}; take it out of one")
    if "others" in values and kind in ("ids", "boundaries") and "map" not in values:
        raise OptionError(f"{where}.others: needs 'map', which says what the listed ids become")
    return LabelOptions(
        labels=labels,
        kind=kind,
        flip=_flip(given, where),
        colours=_colours(given.get("colours"), task, where),
        **values,
    )


def _kind(given: Mapping[str, Any], task: Task, where: str) -> str:
    source = given.get("from")
    if source not in (None, "boundaries"):
        raise OptionError(f"{where}.from: unknown source {source!r}; available: boundaries")
    kind = given.get("kind") or "auto"
    if kind not in ("auto", *KINDS):
        raise OptionError(f"{where}.kind: unknown kind {kind!r}{suggest(str(kind), ('auto', *KINDS))}")
    if task.target_kind in ("depth", "normals"):
        fitting: tuple[str, ...] = (task.target_kind,)
    elif task.channels > 1:
        fitting = ("colours", "ids") if given.get("colours") is not None else ("ids", "colours")
    else:
        fitting = ("binary", "boundaries")
        if source:
            fitting = ("boundaries",)
    if kind == "auto":
        return fitting[0]
    if kind not in fitting:
        raise OptionError(f"{where}.kind: {kind!r} does not fit {type(task).__name__}; use {' or '.join(fitting)}")
    return str(kind)


def _int(value: Any, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(r"-?\d+", str(value).strip()):
        raise OptionError(f"{at}: expected a whole number, got {value!r}")
    return int(value)


def _ints(value: Any, at: str) -> tuple[int, ...]:
    return tuple(_int(v, at) for v in _items(value))


def _number(value: Any, at: str) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float | str):
        try:
            return float(value)
        except ValueError:
            pass
    raise OptionError(f"{at}: expected a number, got {value!r}")


def _numbers(value: Any, at: str) -> tuple[float, ...]:
    return tuple(_number(v, at) for v in _items(value))


def _positive_number(value: Any, at: str) -> float:
    number = _number(value, at)
    if not (number > 0 and math.isfinite(number)):
        raise OptionError(f"{at}: expected a number above 0, got {value!r}")
    return number


def _weights(value: Any, at: str) -> tuple[float, ...]:
    weights = _numbers(value, at)
    if len(weights) != 3 or not any(weights) or not all(0 <= w < math.inf for w in weights):
        raise OptionError(
            f"{at}: expected the weights of red, green and blue such as [1, 256, 65536], finite and not all 0;"
            f" got {value!r}"
        )
    return weights


def _orientation(value: Any, at: str) -> str:
    if value not in _ORIENTATIONS:
        raise OptionError(f"{at}: unknown orientation {value!r}{suggest(str(value), _ORIENTATIONS)}")
    return str(value)


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _id_map(value: Any, at: str) -> Mapping[int, int]:
    if not isinstance(value, Mapping) or not value:
        raise OptionError(f"{at}: expected a mapping from raw id to id such as {{7: 0, 8: 1}}, got {value!r}")
    table = {_int(raw, at): _int(new, at) for raw, new in value.items()}
    for raw, new in table.items():
        if not 0 <= new <= IGNORE:
            raise OptionError(f"{at}: {raw} becomes {new}; ids are 0 to 254, and 255 is 'ignore'")
    return table


def _others(value: Any, at: str) -> int | str:
    if value == "same":
        return "same"
    number = _int(value, at)
    if not 0 <= number <= IGNORE:
        raise OptionError(f"{at}: expected an id from 0 to 255 or 'same', got {value!r}")
    return number


def _flip(given: Mapping[str, Any], where: str) -> tuple[str, ...]:
    axes, flip = given.get("axes"), given.get("flip")
    if axes is None:
        chosen = tuple(str(v) for v in _items(flip)) if flip is not None else ()
        if set(chosen) - set("xyz") or len(set(chosen)) != len(chosen):
            raise OptionError(f"{where}.flip: expected some of x, y, z, got {flip!r}")
        return chosen
    if flip is not None:
        raise OptionError(f"{where}: both 'axes' and 'flip' are given; keep one")
    match = _AXES.fullmatch(str(axes).strip().lower())
    if match is None:
        form = "x right|left, y down|up, z forward|backward"
        raise OptionError(f"{where}.axes: expected the form {form!r}, got {axes!r}; swapped axes are not supported")
    ours = ("right", "down", "forward")
    return tuple(axis for axis, word, own in zip("xyz", match.groups(), ours, strict=True) if word != own)


def _colours(value: Any, task: Task, where: str) -> Mapping[tuple[int, int, int], int] | None:
    """``{class name: [r, g, b]}`` or ``{name: [[r, g, b], …]}``; ids by the task's class names, ``ignore`` is 255."""
    if value is None:
        return None
    at = f"{where}.colours"
    if not isinstance(value, Mapping) or not value:
        raise OptionError(f"{at}: expected class name: [r, g, b], got {value!r}")
    names = class_names(task)
    if names is None:
        names = tuple(str(n) for n in value if n != "ignore")
    table: dict[tuple[int, int, int], int] = {}
    for name, colour in value.items():
        if name != "ignore" and str(name) not in names:
            raise OptionError(f"{at}: unknown class {name!r}{suggest(str(name), (*names, 'ignore'))}")
        new = IGNORE if name == "ignore" else names.index(str(name))
        if name != "ignore" and new >= task.channels:
            raise OptionError(
                f"{at}: {len(names)} classes have colours, but the task has {task.channels}; correct `classes`"
            )
        several = (
            colour if isinstance(colour, list | tuple) and colour and isinstance(colour[0], list | tuple) else [colour]
        )
        for one in several:
            rgb = _ints(one, at)
            if len(rgb) != 3 or not all(0 <= c <= 255 for c in rgb):
                raise OptionError(f"{at}: class {name!r} has {one!r}; expected three numbers from 0 to 255")
            if table.setdefault((rgb[0], rgb[1], rgb[2]), new) != new:
                raise OptionError(f"{at}: {list(rgb)} stands for two classes; give each its own colour")
    return table


def class_names(task: Task) -> tuple[str, ...] | None:
    """The class names a task was given, None where it knows only their number or has no classes."""
    return task.classes if isinstance(task, Semantic) and not isinstance(task.classes, int) else None
