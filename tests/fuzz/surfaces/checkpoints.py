"""Checkpoints: a run of two steps that was stopped, resumed by ``gn.fit`` and by ``garnish train --resume``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import torch

import garnish as gn
from garnish.bundles.checkpoint import load_state
from garnish.errors import BundleError
from garnish.files.strict_yaml import parse_yaml

from ..damage_files import another_kind, any_bytes, become
from ..damage_values import damaged, dump_json, dump_yaml
from ..odd_values import Raw
from ..specimens import write_set, write_trunk
from ..surface import Damage, Surface
from ..verdicts import WrongReading
from ..worker import command
from .features import parts, seal
from .recipes import RECIPE, recipe

RUN = "run"
STATE, EARLIER, ARGS = f"{RUN}/last/state.safetensors", f"{RUN}/last/earlier.safetensors", f"{RUN}/args.yaml"
_FACTS = "garnish.facts"


class Checkpoints(Surface):
    """A run with a checkpoint at step 2 of 3, one before it, and what it ends at when nothing is damaged."""

    name: ClassVar[str] = "checkpoints"
    names_places: ClassVar[bool] = True
    share: ClassVar[float] = 1.2
    writes: ClassVar[Sequence[str]] = ("out", RUN)

    def make(self, folder: Path) -> None:
        one = folder / "one"
        write_trunk("vit", one)
        write_set(one)
        plain = recipe("vit")
        plain["train"] |= {"steps": 3, "save_every": 1, "eval_every": 1}
        (one / RECIPE).write_text(dump_yaml(plain))
        os.chdir(one)
        _cut_off(2)
        shutil.copytree(RUN, "whole")
        _resume("whole")
        tensors, _ = load_state("whole/last/state.safetensors")
        shutil.rmtree("whole")
        self._ends = {name: tensor for name, tensor in tensors.items() if name.startswith("model/")}
        os.chdir(folder)

    def damages(self) -> Sequence[tuple[float, Damage]]:
        files = lambda folder: [folder / STATE, folder / STATE, folder / EARLIER]  # noqa: E731
        all_files = lambda folder: sorted(p for p in (folder / RUN).rglob("*") if p.is_file())  # noqa: E731
        return [(2.0, any_bytes(files)), (1.0, any_bytes(all_files)), (0.5, another_kind(all_files)), (4.0, _facts),
                (1.5, _header), (1.5, _args)]  # fmt: skip

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        _resume(RUN)
        tensors, _ = load_state(STATE)
        gn.load(f"{RUN}/best")
        if (folder / "sealed").exists():
            return
        ends = {name: tensor for name, tensor in tensors.items() if name.startswith("model/")}
        same = ends.keys() == self._ends.keys() and all(torch.equal(ends[n], self._ends[n]) for n in ends)
        if not same:
            raise WrongReading("damage was taken for a checkpoint: the run ends elsewhere")


class _Stop(Exception):
    pass


def _cut_off(step: int) -> None:
    """Train, and stop without a word after a step's checkpoint."""
    from garnish.training import run_state

    save = run_state.save_state
    count = 0

    def counted(*given: Any, **options: Any) -> Path:
        nonlocal count
        made = save(*given, **options)
        count += 1
        if count > step:
            raise _Stop
        return made

    run_state.save_state = counted
    try:
        command("train", "--config", RECIPE, "--quiet", "--out", RUN)
    except _Stop:
        pass
    finally:
        run_state.save_state = save
    if not Path(EARLIER).exists():
        raise BundleError(f"{EARLIER}: there is none; cut off later")


def _resume(run: str) -> None:
    command("train", "--resume", run, "--quiet")


def _facts(draw: Random, folder: Path) -> str:
    header, facts, content = parts(folder / STATE, _FACTS)
    facts, told = damaged(draw, facts)
    seal(folder / STATE, header, content, _FACTS, dump_json(facts))
    (folder / "sealed").write_text("")
    return f"facts{told}"


def _header(draw: Random, folder: Path) -> str:
    header, facts, content = parts(folder / STATE, _FACTS)
    header, told = damaged(draw, header)
    seal(folder / STATE, header, content, _FACTS, dump_json(facts))
    (folder / "sealed").write_text("")
    return f"header{told}"


def _args(draw: Random, folder: Path) -> str:
    tree, told = damaged(draw, parse_yaml((folder / ARGS).read_text()), yaml=True)
    (folder / ARGS).write_bytes(dump_yaml(tree).encode("utf-8", "surrogatepass"))
    (folder / "sealed").write_text("")
    return f"args.yaml{told}"


def _edited(edit: Callable[[Any], object]) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        header, facts, content = parts(folder / STATE, _FACTS)
        edit(facts)
        seal(folder / STATE, header, content, _FACTS, dump_json(facts))
        (folder / "sealed").write_text("")
        return ""

    return damage


def _became(name: str, how: str) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        become(folder / name, how)
        (folder / "sealed").write_text("")
        return ""

    return damage


_LARGE, _OTHERS = (STATE, ARGS), (f"{RUN}/results.csv", f"{RUN}/best/bundle.json", f"{RUN}/.lock")

CRAFTED: dict[str, Damage] = {
    **{f"{n} is {how}": _became(n, how) for n in _LARGE for how in ("pipe", "/dev/zero", "sparse", "folder")},
    **{f"{n} is {how}": _became(n, how) for n in _OTHERS for how in ("pipe", "/dev/zero", "folder")},
    "step": _edited(lambda f: f["state"].update(step=10**12)),
    "step before": _edited(lambda f: f["state"].update(step=-1)),
    "step nan": _edited(lambda f: f["state"].update(step=float("nan"))),
    "no state": _edited(lambda f: f.pop("state")),
    "state list": _edited(lambda f: f.update(state=[])),
    "history": _edited(lambda f: f["state"].update(history=[{}])),
    "history text": _edited(lambda f: f["state"].update(history="abc")),
    "history long": _edited(lambda f: f["state"].update(history=f["state"]["history"] * 10_000)),
    "history control": _edited(lambda f: f["state"]["history"][0].update(metrics={"\x1b[2J": {"x\n": 1.0}})),
    "best": _edited(lambda f: f["state"].update(best_step=999)),
    "best score": _edited(lambda f: f["state"].update(best_score=float("inf"))),
    "seconds": _edited(lambda f: f["state"].update(seconds=1e308)),
    "stopped": _edited(lambda f: f["state"].update(stopped="\x1b[2J")),
    "optimizer": _edited(lambda f: f.update(optimizer={})),
    "optimizer list": _edited(lambda f: f.update(optimizer=[1, 2])),
    "scaler": _edited(lambda f: f.update(scaler={"_scale": "x"})),
    "options": _edited(lambda f: f.update(options={})),
    "options list": _edited(lambda f: f.update(options=[])),
    "options control": _edited(lambda f: f["options"].update(lr="\x1b[2J" * 3000)),
    "tasks": _edited(lambda f: f.update(tasks={"seg": {"name": "Semantic"}})),
    "tasks list": _edited(lambda f: f.update(tasks=["seg"])),
    "methods": _edited(lambda f: f.update(methods={"all": [1]})),
    "heads": _edited(lambda f: f.update(heads={"seg": None})),
    "data": _edited(lambda f: f.update(data={"train": {"a": 1}})),
    "data list": _edited(lambda f: f.update(data=[])),
    "world": _edited(lambda f: f.update(world=2)),
    "deep": _edited(lambda f: f.update(data={"train": Raw("[" * 500 + "]" * 500)})),
}
