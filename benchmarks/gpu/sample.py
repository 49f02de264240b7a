"""A sample of what the conformance tests hold every method to, on the device, in float32 (TF32 off) and float64.

Values are the largest difference over the largest value. Float64 says whether the same numbers are meant: nothing but
a row that saw another's tensors, say, can differ by more than its bound there. Float32 is what users run; the random
trunks magnify its rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from arms import set_levels
from torch import Tensor

import tiny
from garnish.engine.folding import merge_adapters
from garnish.errors import SiteError
from garnish.model.model import Model

#: case of the tests → whether each task owns its adapters
METHODS = {
    "LoRA": True,
    "LoRA-rank-dora": True,
    "SSF": True,
    "Mona": True,
    "VPT": False,
    "MTLoRA": False,
    "VMTAdapter": False,
    "FullFineTuning": True,
}
FAMILIES = ("dinov2", "swin", "convnext", "mit")
QUICK = (("LoRA", "dinov2"), ("MTLoRA", "swin"))
BOUNDS = {"float32": 2e-3, "float64": 1e-10}
#: at the start outputs are the bare trunk's, to rounding where a kernel of the device sums in another order
START = {"float32": 1e-4, "float64": 1e-12}


def items(device: str, quick: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """One item a method and family."""
    for method in METHODS:
        for short in FAMILIES:
            wanted = (method, short) in QUICK if quick else not tiny.refusals(method, short)
            if wanted:
                yield f"{method} on {short}", lambda method=method, short=short: sample(method, short, device)


def sample(method: str, short: str, device: str) -> dict[str, Any]:
    """All checks of one method on one family: differences by dtype, and the checks whose bound they exceed."""
    found: dict[str, Any] = {"method": method, "family": short}
    over: list[str] = []
    for dtype in (torch.float32, torch.float64):
        label = str(dtype).removeprefix("torch.")
        checks = Checks(method, short, device, dtype)
        rows = found[label] = {
            "start": checks.start(),
            "mixed rows": checks.mixed_rows(),
            "merged": checks.merged(),
            "lean": checks.gradients("lean"),
            "least": checks.gradients("least"),
            "CPU": checks.cpu(),
        }
        for name, value in rows.items():
            most = (checks.near or START[label]) if name == "start" else BOUNDS[label]
            if isinstance(value, float) and not value <= most:  # nan, too
                over.append(f"{name}, {label}: {value:.2g}")
    return {**found, "over": over}


class Checks:
    """One method on one family, in one dtype; each check gives a difference, or why it was not made."""

    def __init__(self, method: str, short: str, device: str, dtype: torch.dtype) -> None:
        self.method, self.short, self.device, self.dtype = method, short, device, dtype
        self.near = max(tiny.NEAR.get(name, 0.0) for name, _ in tiny.method_cases()[method])
        self.pictures = tiny.pictures(3, 64, 112).to(device, dtype)

    def made(self, *, own: bool = True, method: str | None = None) -> Model:
        """A tiny model, the same each time; ``own=False``: as adapters start."""
        methods = tiny.methods(method or self.method, per_task=METHODS[self.method])
        return tiny.model(self.short, methods, own=own).to(self.device, self.dtype)

    @torch.no_grad()
    def start(self) -> float:
        """Fresh adapters change nothing."""
        model, bare = self.made(own=False), self.made(own=False, method="Frozen")
        x = model.prepare(self.pictures)
        pairs = zip(model.backbone(x, model.owners[-1]), bare.backbone(x, bare.owners[-1]), strict=True)
        return max(tiny.far(got, want) for got, want in pairs)

    @torch.no_grad()
    def mixed_rows(self) -> float:
        """A batch whose pictures want different tasks gives what each picture alone does."""
        model, x = self.made(), self.pictures
        mixed, worst = model(x, tiny.MIX), 0.0
        for task, out in mixed.items():
            wanting = [i for i, tasks in enumerate(tiny.MIX) if task in tasks]
            alone = torch.cat([model(x[i : i + 1], [task])[task] for i in wanting])
            worst = max(worst, tiny.far(out, alone))
        return worst

    @torch.no_grad()
    def merged(self) -> float | str:
        """Adapters folded into the trunk's weights compute the same."""
        model = self.made()
        owner, x = model.owners[-1], model.prepare(self.pictures)
        try:
            plain = merge_adapters(model.backbone, owner)
        except SiteError:
            return "does not merge"
        return max(tiny.far(got, want) for got, want in zip(plain(x), model.backbone(x, owner), strict=True))

    def gradients(self, level: str) -> float | str:
        """Gradients of a batch of mixed rows at a level of memory against those of ``fast``."""
        if level == "lean" and not hasattr(self.made().backbone, "memory"):
            return "no trunk.memory"
        want, got = self._gradients("fast"), self._gradients(level)
        if [n for n in want if (want[n] is None) != (got[n] is None)]:
            return float("nan")
        alive = {n: g for n, g in want.items() if g is not None and bool(g.any())}
        return max((tiny.far(got[n], g) for n, g in alive.items()), default=0.0)

    def _gradients(self, level: str) -> dict[str, Tensor | None]:
        model = self.made().train()
        set_levels(model.backbone, level)
        torch.manual_seed(3)  # dropout
        loss_of(model(self.pictures, tiny.MIX)).backward()
        return {n: p.grad for n, p in model.trained_parameters().items()}

    @torch.no_grad()
    def cpu(self) -> float | str:
        """The device computes what the CPU does."""
        if self.device == "cpu":
            return "is the CPU"
        model = self.made()
        mine = model(self.pictures, tiny.MIX)
        theirs = model.to("cpu")(self.pictures.cpu(), tiny.MIX)
        return max(tiny.far(out.cpu(), theirs[task]) for task, out in mine.items())


def loss_of(outputs: dict[str, Tensor]) -> Tensor:
    """A number that depends on every output value, on each in another way."""
    terms: list[Tensor] = []
    for out in outputs.values():
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).view(out.shape)
        terms.append((len(terms) + 1) * ((out + weights) ** 2).mean())
    return torch.stack(terms).sum()
