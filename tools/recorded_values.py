"""What ``tools/record_outputs.py`` records of one model, and the process that does it for one source tree.

The process reads a line of JSON a case and answers with one; it imports whatever ``garnish`` stands first on its path.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import sys
import tempfile
import traceback
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import recorded_cases
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import garnish as gn
from garnish import errors

#: pictures of most passes, and of the one that must be padded
SIZE, ODD = (64, 64), (50, 70)


def main() -> None:
    """Answer cases until there is no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cases = recorded_cases.cases()
    first = {"tree": str(Path(gn.__file__).resolve().parents[2]), "torch": str(torch.__version__), "cases": list(cases)}
    print(json.dumps(first), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        found = recorded(cases[asked["case"]])
        if asked["values"] is not None:
            save_file({key: value for key, value in found.items() if isinstance(value, Tensor)}, asked["values"])
        print(json.dumps({key: told(value) for key, value in found.items()}), file=answers, flush=True)
        gc.collect()  # models hold themselves in circles


def told(value: Tensor | str) -> str:
    """Text as it is; of a tensor its shape, the start of a SHA-256 of its bytes, its sum and its largest value."""
    if isinstance(value, str):
        return value
    array = value.numpy()
    wide = array.astype(np.float64)
    digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
    shape = "x".join(map(str, array.shape)) or "1"
    return f"{shape} {digest} sum {wide.sum():.9g} max {abs(wide).max(initial=0.0):.9g}"


def recorded(case: recorded_cases.Case) -> dict[str, Tensor | str]:
    """Everything about one case by name; where the package refuses it, or breaks, what it said."""
    try:
        model = case.build()
        return _values(model, case)
    except errors.GarnishError as error:
        return {"refused": _said(error)}
    except Exception as error:  # whatever it is, it is an outcome that the other tree must share
        traceback.print_exc()
        return {"broken": _said(error)}


def _said(error: Exception, folder: str = "") -> str:
    """The text of an error, without the name of a temporary folder, which is another one each time."""
    text = f"{type(error).__name__}: {error}"
    return text.replace(folder, "FOLDER") if folder else text


def _values(model: gn.Model, case: recorded_cases.Case) -> dict[str, Tensor | str]:
    found: dict[str, Tensor | str] = {f"start/{name}": _kept(t) for name, t in model.own_tensors().items()}
    found["trained"] = " ".join(model.trained_parameters())
    found |= {f"report/{name}": _plain(value) for name, value in model.report(size=SIZE).items()}
    found["told"] = repr(model)
    push(model)
    names = list(model.tasks)
    mix = mix_of(names)
    model.eval()
    with torch.no_grad():
        found |= _outputs("eval", model(pictures(3)))
        found |= _outputs("eval_mix", model(pictures(len(mix)), mix))
        odd = (pictures(2, ODD) * 255).to(torch.uint8)
        found |= _outputs("eval_one", model(odd, names[-1:]))
    if case.merges:
        found |= _merged(model, names[0])
    model.backbone.checkpointing = case.checkpointing
    model.train()
    for label, count, asked in (("train", 3, None), ("train_mix", len(mix), mix)):
        model.zero_grad()
        torch.manual_seed(3)  # of dropout and drop-path
        outputs = model(pictures(count), asked)
        found |= _outputs(label, outputs)
        _loss(outputs).backward()
        for name, parameter in model.trained_parameters().items():
            found[f"{label}_grad/{name}"] = "none" if parameter.grad is None else _kept(parameter.grad)
    moved = {n: t for n, t in model.own_tensors().items() if not isinstance(t, torch.nn.Parameter)}
    return found | {f"after/{name}": _kept(t) for name, t in moved.items()}


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _outputs(label: str, outputs: dict[str, Tensor]) -> dict[str, Tensor | str]:
    return {f"{label}/{name}": _kept(value) for name, value in outputs.items()}


def _merged(model: gn.Model, task: str) -> dict[str, Tensor | str]:
    """The merged checkpoint (all of it one value) and what the model made of it says, or why there is none."""
    with tempfile.TemporaryDirectory() as place:
        try:
            gn.merge(model, f"{place}/merged", task=task)
        except errors.GarnishError as error:
            return {"merged/refused": _said(error, place)}
        with safe_open(f"{place}/merged/backbone.safetensors", "pt") as file:
            names = sorted(file.keys())
            whole = torch.cat([file.get_tensor(name).flatten().to(torch.float32) for name in names])
        with torch.no_grad():
            outputs = gn.load(f"{place}/merged")(pictures(2))
    return {"merged/names": " ".join(names), "merged/checkpoint": whole} | _outputs("merged", outputs)


@torch.no_grad()
def push(model: gn.Model) -> None:
    """Move every trained tensor away from its start, each by noise that its name stands for: zeros hide what is behind.

    Frozen tasks' too, and tensors of a trunk that is tuned in place.
    """
    own = {n: t for n, t in model.own_tensors().items() if isinstance(t, torch.nn.Parameter)}
    for name, parameter in own.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
        parameter.add_(torch.randn(parameter.shape, generator=generator) * (0.5 / math.sqrt(fan_in)))


def pictures(count: int, size: tuple[int, int] = SIZE) -> Tensor:
    """(count, 3, *size) float32 in [0, 1], the same ones every time."""
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(2))


def mix_of(names: Sequence[str]) -> list[list[str]]:
    """What pictures ask for: of two tasks [a], [b] and [a, b]; of more, also some of them and all."""
    mix = [[names[0]], [names[-1]], [names[0], names[-1]]] if len(names) > 1 else [[names[0]]] * 3
    return [*mix, list(names[1::2]), list(names)] if len(names) > 2 else mix


def _loss(outputs: dict[str, Tensor]) -> Tensor:
    """A number that depends on every output value, on each in another way."""
    total = torch.zeros(())
    for number, name in enumerate(sorted(outputs), start=1):
        out = outputs[name]
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
        total = total + number * ((out + weights) ** 2).mean()
    return total


if __name__ == "__main__":
    main()
