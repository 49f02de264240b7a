"""Counts what one block keeps for the backward pass at each level of memory, and draws it as docs/images/memory.svg.

    python tools/draw_memory.py

A training pass of a ViT-S/14 with LoRA is run at each level, and every storage that it leaves behind is counted, with
the module that made it. Nothing is typed in but the names of the parts. A unit is one stream tensor: pictures x tokens
x width.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import torch
from torch import Tensor, UntypedStorage, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import garnish as gn
from garnish.checking.recording import Recorder
from garnish.engine.blocks import Wrapper
from garnish.engine.memory import LEVELS, Level

ROOT = Path(__file__).parents[1]
DRAWING = ROOT / "docs" / "images" / "memory.svg"
#: the case of benchmarks/training, with as many blocks as feature maps; the second is counted
TRUNK, BLOCKS, COUNTED = "vit_small_patch14_dinov2", 4, 1
PICTURES, SIZE, RANK = 4, (224, 280), 8
#: part of a block, in forward order → what makes it, by the module's name in the block; "" is the block before
PARTS = {
    "": "input of the block",
    "attn.branch.norm": "norm 1, output",
    "attn.branch.layer.qkv": "q, k, v",
    "attn.branch.layer": "attention, output",
    "attn": "after attention",
    "mlp.branch.norm": "norm 2, output",
    "mlp.branch.layer.fc1": "fc1, output",
    "mlp.branch.layer.act": "GELU, output",
}
#: level → what is done, and what becomes of what is not kept
SAID: Mapping[Level, tuple[str, str]] = {
    "fast": ("what autograd keeps", ""),
    "lean": ("the default", "made again"),
    "least": ("the whole block runs again", "run again"),
}
WIDTH, MARGIN, GAP, TOP, UNIT, FOOT = 720, 12, 26, 68, 23, 62


@dataclass(frozen=True)
class Kept:
    """What one block keeps, in units.

    Attributes:
        parts: by the names of :data:`PARTS`, those that are kept.
        small: of all other tensors: statistics of norms and attention, what is as narrow as the rank.
    """

    parts: Mapping[str, float]
    small: float


class Makers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every storage that is made inside the ``with`` block, and the module that was running.

    Args:
        root: module whose parts are named.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._running = [""]
        self._made: dict[int, tuple[weakref.ref[UntypedStorage], str]] = {}
        wrapped = {module.layer for module in root.modules() if isinstance(module, Wrapper)}
        for name, module in root.named_modules():
            if module in wrapped:  # a layer with hooks of its own would not be run in one product with its adapter
                continue
            module.register_forward_pre_hook(lambda *_, name=name: self._running.append(name))
            module.register_forward_hook(lambda *_: self._leave())

    def _leave(self) -> None:
        self._running.pop()

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operation and note its outputs."""
        out = func(*args, **(kwargs or {}))
        for leaf in [] if func.is_view else tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                known = self._made.get(storage._cdata)
                if known is None or known[0]() is None:
                    self._made[storage._cdata] = weakref.ref(storage), self._running[-1]
        return out

    def alive(self) -> list[tuple[str, int]]:
        """(name of the module, bytes) of each storage that is still there."""
        return [(name, found.nbytes()) for made, name in self._made.values() if (found := made()) is not None]


def count(level: Level) -> Kept:
    """What the counted block keeps at a level, when the forward pass is over and the loss alone is held."""
    torch.manual_seed(0)
    trunk = gn.backbone(TRUNK, options={"depth": BLOCKS})
    model = gn.adapt(trunk, gn.LoRA(rank=RANK), {"task": gn.Semantic(classes=2)}).train()
    trunk.memory = level
    pictures = torch.rand(PICTURES, 3, *SIZE)
    block_of = {name: number for number, name in enumerate(_blocks(trunk))}
    makers = Makers(trunk)
    with Recorder([*trunk.parameters(), *trunk.buffers(), pictures]) as recorder, makers:
        maps = trunk(pictures, model.owner_of("task"))
        unit = PICTURES * _tokens(trunk) * maps[-1].shape[1] * maps[-1].itemsize
        loss = maps[-1].square().mean()
        del maps
        alive = makers.alive()
        assert sum(size for _, size in alive) == recorder.alive_bytes - recorder.start_bytes
    assert loss.requires_grad
    parts, small = dict.fromkeys(PARTS.values(), 0.0), 0.0
    for maker, size in alive:
        name = next((n for n in block_of if maker.startswith(f"{n}.")), None)
        if name is None:
            continue
        number, part = block_of[name], maker.removeprefix(f"{name}.")
        if part == "mlp":  # its output is the next block's input
            number, part = number + 1, ""
        if number != COUNTED:
            continue
        if size < unit / 2:
            small += size / unit
        else:
            parts[PARTS[part]] += size / unit
    return Kept({name: units for name, units in parts.items() if units}, small)


def _blocks(trunk: gn.Backbone) -> list[str]:
    """Names of the blocks, in forward order."""
    wanted = [block for stage in trunk.stages for block in stage.blocks]
    names = {module: name for name, module in trunk.named_modules()}
    return [names[block] for block in wanted]


def _tokens(trunk: gn.Backbone) -> int:
    """Tokens of a picture, the class token too."""
    grid = [side // int(trunk.multiple) for side in SIZE]
    return grid[0] * grid[1] + int(trunk.num_prefix)


def draw(found: Mapping[Level, Kept]) -> str:
    """The drawing of what was counted, as SVG."""
    whole = found["fast"].parts
    assert set(whole) == set(PARTS.values())
    tall = UNIT * sum(whole.values())
    height = TOP + tall + FOOT
    wide = (WIDTH - 2 * MARGIN - GAP * (len(LEVELS) - 1)) / len(LEVELS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
        ' aria-label="What one block keeps for the backward pass at each level of memory">',
        "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.name{font-size:18px;font-weight:600}"
        ".total{font-size:15px;font-weight:600}.quiet{fill:#4d555e}.end{text-anchor:end}"
        ".paper{fill:#fff}.kept{fill:#b9d3ee;stroke:#3d648c}"
        ".again{fill:none;stroke:#8c959f;stroke-dasharray:4 3}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}.paper{fill:#0d1117}"
        ".kept{fill:#234a70;stroke:#79aee0}.again{stroke:#8b949e}}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height:.0f}"/>',
    ]
    for number, level in enumerate(LEVELS):
        left = MARGIN + number * (wide + GAP)
        right = left + wide
        kept, (said, fate) = found[level].parts, SAID[level]
        parts += [
            _text(left, 30, level, "name"),
            _text(right, 30, f"{_units(sum(kept.values()))} kept", "total end"),
            _text(left, 54, said, "quiet"),
        ]
        y = float(TOP)
        for name, units in whole.items():
            shape, tone = ("kept", "") if name in kept else ("again", "quiet")
            assert kept.get(name, units) == units
            parts.append(
                f'<rect class="{shape}" x="{left:.1f}" y="{y + 1.5:.1f}" width="{wide:.1f}"'
                f' height="{UNIT * units - 3:.1f}" rx="3"/>'
            )
            middle = y + UNIT * units / 2 + 4.5
            parts.append(_text(left + 8, middle, name, tone))
            parts.append(_text(right - 8, middle, f"{units:g}" if name in kept else fate, f"{tone} end"))
            y += UNIT * units
    small = ", ".join(f"{found[level].small:.2f}" for level in LEVELS)
    y = TOP + tall
    parts += [
        f'<rect class="kept" x="{MARGIN}" y="{y + 13:.1f}" width="22" height="14" rx="3"/>',
        _text(MARGIN + 30, y + 25, "kept until the backward pass has used it"),
        f'<rect class="again" x="{WIDTH / 2}" y="{y + 13:.1f}" width="22" height="14" rx="3"/>',
        _text(WIDTH / 2 + 30, y + 25, "made in the backward pass, then freed", "quiet"),
        _text(MARGIN, y + 49, f"ViT-S with LoRA. Not drawn: small tensors, together {small} units.", "quiet"),
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _units(number: float) -> str:
    return f"{number:g} unit{'s' * (number != 1)}"


def _text(x: float, y: float, text: str, style: str = "") -> str:
    style = f' class="{style.strip()}"' if style.strip() else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


if __name__ == "__main__":
    DRAWING.write_text(draw({level: count(level) for level in LEVELS}), encoding="utf-8")
    print(DRAWING.relative_to(ROOT))
