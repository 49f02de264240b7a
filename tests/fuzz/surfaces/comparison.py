"""The store of ``garnish compare``: a finished comparison whose files are damaged, then asked for again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from ..damage_files import another_kind, any_bytes, become
from ..damage_values import damaged, dump_json, dump_yaml
from ..specimens import write_trunk
from ..surface import Damage, Surface
from ..verdicts import WrongReading
from ..worker import command
from .features import parts, seal
from .recipes import RECIPE, scenes

OUT, STORE = "compared", "compared/.store"
_FACTS = "garnish.facts"
#: In results.json, what is of the clock and of the machine.
_TIMES = {"created", "wall_seconds", "seconds", "step_seconds", "step_ratio", "command", "environment"}


class Comparison(Surface):
    """Two arms on two scenes; what is read again must give the same report."""

    name: ClassVar[str] = "comparison"
    share: ClassVar[float] = 0.6
    writes: ClassVar[Sequence[str]] = ("out", OUT)

    def make(self, folder: Path) -> None:
        one = folder / "one"
        write_trunk("mit", one)
        plain = scenes()
        plain["train"].pop("epochs")
        plain["compare"] |= {"adapters": "LoRA(rank=2)", "out": OUT, "reference_rates": [1e-4]}
        (one / RECIPE).write_text(dump_yaml(plain))
        os.chdir(one)
        self._results = _compared()
        os.chdir(folder)

    def damages(self) -> Sequence[tuple[float, Damage]]:
        return [(3.0, any_bytes(_files)), (0.7, another_kind(_files)), (4.0, _structure), (1.5, _facts)]

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        found = _compared()
        if not (folder / "sealed").exists() and found != self._results:
            raise WrongReading(f"damage was taken for results: {_difference(self._results, found)}")
        for arm in found["arms"]:
            if arm["status"] == "done" and not all(values for values in arm["metrics"].values()):
                raise WrongReading(f"{arm['name']} is done and has no metrics")


def _compared() -> Any:
    command("compare", "--config", RECIPE, "--quiet")
    return _without_times(json.loads(Path(OUT, "results.json").read_text()))


def _without_times(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _without_times(value) for key, value in found.items() if key not in _TIMES}
    return [_without_times(value) for value in found] if isinstance(found, list) else found


def _difference(one: Any, other: Any, place: str = "") -> str:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return next((d for key in one if (d := _difference(one[key], other[key], f"{place}.{key}"))), "")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return next(
            (d for i, (a, b) in enumerate(zip(one, other, strict=True)) if (d := _difference(a, b, f"{place}.{i}"))), ""
        )
    return "" if one == other else f"{place} {one!r:.60} became {other!r:.60}"


# ---- damage -----------------------------------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / STORE).rglob("*") if p.is_file() and p.stat().st_size and "locks" not in p.parts)


def _seal_json(file: Path, text: str) -> None:
    text = f'{{"sha256": "{"0" * 64}", {text[1:]}' if text.startswith("{") and len(text) > 2 else text
    data = text.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(data).hexdigest().encode()
    file.write_bytes(data.replace(b"0" * 64, digest, 1))
    (file.parents[[p.name for p in file.parents].index(OUT) + 1] / "sealed").write_text("")


def _structure(draw: Random, folder: Path) -> str:
    file = draw.choice([p for p in _files(folder) if p.suffix == ".json"])
    tree = json.loads(file.read_text())
    tree.pop("sha256", None)
    tree, told = damaged(draw, tree)
    _seal_json(file, dump_json(tree))
    return f"{file.relative_to(folder / STORE)}{told}"


def _facts(draw: Random, folder: Path) -> str:
    held = []
    for file in _files(folder):
        if file.suffix == ".safetensors" and _FACTS.encode() in file.read_bytes()[:4000]:
            held.append(file)
    if not held:
        return _structure(draw, folder)
    file = draw.choice(held)
    header, facts, content = parts(file, _FACTS)
    if draw.random() < 0.5:
        facts, told = damaged(draw, facts)
    else:
        header, told = damaged(draw, header)
    seal(file, header, content, _FACTS, dump_json(facts))
    (folder / "sealed").write_text("")
    return f"{file.relative_to(folder / STORE)}{told}"


def _edited(kind: str, edit: Callable[[Any], Any]) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        for file in [p for p in _files(folder) if p.match(kind)]:
            tree = json.loads(file.read_text())
            tree.pop("sha256", None)
            changed = edit(tree)
            _seal_json(file, dump_json(tree if changed is None else changed))
        return ""

    return damage


def _became(kind: str, how: str) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        file = next((p for p in _files(folder) if p.match(kind)), None)
        if file is not None:
            become(file, how)
        return ""

    return damage


_KINDS = ("result.json", "measures/*.json", "*.safetensors", "costs/*.json")

CRAFTED: dict[str, Damage] = {
    "no history": _edited("runs/*/result.json", lambda t: t.update(history=[])),
    "history of others": _edited("runs/*/result.json", lambda t: t.update(history=[1])),
    "history nan": _edited("runs/*/result.json", lambda t: t["history"][0].update(score=float("nan"))),
    "no tasks": _edited("runs/*/result.json", lambda t: t["history"][0].update(metrics={})),
    "best": _edited("runs/*/result.json", lambda t: t.update(best_step=99)),
    "a list": _edited("runs/*/result.json", lambda t: [1]),
    "no metrics": _edited("measures/*.json", lambda t: t.update(metrics={})),
    "other metrics": _edited("measures/*.json", lambda t: t.update(metrics={"seg": {"x": 1.0}})),
    "metrics list": _edited("measures/*.json", lambda t: t.update(metrics=[])),
    "pictures": _edited("measures/*.json", lambda t: t.update(num_pictures=-1)),
    "costs": _edited("costs/*.json", lambda t: dict.fromkeys(t)),
    "costs of others": _edited("costs/*.json", lambda t: dict.fromkeys(t, "x")),
    "costs huge": _edited("costs/*.json", lambda t: dict.fromkeys(t, 1e308)),
    **{f"{kind} is {how}": _became(kind, how) for kind in _KINDS for how in ("pipe", "/dev/zero", "folder", "sparse")},
}
