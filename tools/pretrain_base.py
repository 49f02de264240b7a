"""Train the bundled backbone ``garnish_b0`` (a MiT-B0) on procedural scenes, and probe how well it transfers.

    python tools/pretrain_base.py render  --out CACHE --count 16000
    python tools/pretrain_base.py teach   --out CACHE --teacher VIT_SMALL.safetensors
    python tools/pretrain_base.py train   --cache CACHE --objective both --steps 12000 --out garnish_b0.safetensors
    python tools/pretrain_base.py probe   --weights garnish_b0.safetensors

Scenes are those of style "pretrain"; the probe freezes the trunk and trains linear heads on style "demo", whose shapes,
textures, palette and light are others. Objectives: "supervised" (ids, depth, normals, edges), "distill" (the last
feature map of a teacher ViT, cosine distance), or "both".
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import garnish as gn
from garnish import registry
from garnish.data.dataset import collate
from garnish.data.scenes.render import CLASSES, render
from garnish.data.scenes.scenes import Scenes

SIDE = 128
SMALL_SIDE = 96  # most batches are shrunk to this: twice as many pictures a second
TEACHER_SIDE = 126  # nine patches of 14 pixels
FIELDS = ("image", "ids", "depth", "normals", "edges", "saliency")


def command_render(args: argparse.Namespace) -> None:
    """Draw the pool of scenes once."""
    kept: dict[str, list[np.ndarray]] = {name: [] for name in FIELDS}
    start = time.perf_counter()
    for index in range(args.start, args.start + args.count):
        scene = render(args.seed, index, SIDE, "pretrain")
        kept["image"].append(scene.image)
        kept["ids"].append(scene.ids)
        kept["depth"].append(scene.depth.astype(np.float16))
        kept["normals"].append(np.round(scene.normals * 127).astype(np.int8))
        kept["edges"].append(scene.edges)
        kept["saliency"].append(scene.saliency)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, arrays in kept.items():
        np.save(args.out / f"{name}_{args.start:06d}.npy", np.stack(arrays))
    print(f"{args.count} scenes, {args.count / (time.perf_counter() - start):.0f} a second")


def load_pool(cache: Path, name: str) -> list[np.ndarray]:
    """The parts of one field, memory-mapped."""
    parts = sorted(cache.glob(f"{name}_[0-9]*.npy"))
    if not parts:
        raise SystemExit(f"{cache} holds no {name}_*.npy; run this tool's 'render' (and 'teach') first")
    return [np.load(p, mmap_mode="r") for p in parts]


def command_teach(args: argparse.Namespace) -> None:
    """Store the teacher's last feature map of every scene and of its mirror image."""
    teacher = gn.backbone("vit_small_patch14_dinov2", str(args.teacher))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (teacher.mean, teacher.std))
    for part in sorted(args.out.glob("image_[0-9]*.npy")):
        target = part.with_name(part.name.replace("image_", "teacher_"))
        if target.exists():
            continue
        pool, found = np.load(part, mmap_mode="r"), []
        for at in range(0, len(pool), 64):
            x = torch.from_numpy(np.array(pool[at : at + 64])).permute(0, 3, 1, 2).float() / 255
            x = F.interpolate(x, (TEACHER_SIDE, TEACHER_SIDE), mode="bilinear", align_corners=False, antialias=True)
            both = torch.cat([x, x.flip(-1)])
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                maps = teacher((both - mean) / std)[-1].float()
            maps = F.layer_norm(maps.permute(0, 2, 3, 1), (maps.shape[1],)).half()
            found.append(torch.stack(maps.chunk(2), dim=1).numpy())
        np.save(target, np.concatenate(found))
        print(target.name, flush=True)


class Pool:
    """Random batches of the rendered scenes: mirrored, recoloured, in part cropped."""

    def __init__(self, cache: Path, objective: str, seed: int) -> None:
        self.fields = {name: load_pool(cache, name) for name in FIELDS}
        self.teacher = load_pool(cache, "teacher") if objective != "supervised" else None
        self.sizes = [len(a) for a in self.fields["image"]]
        if self.teacher is not None and len(self.teacher) != len(self.sizes):
            raise SystemExit(
                f"{cache}: {len(self.sizes)} parts of scenes, {len(self.teacher)} taught; run 'teach' again"
            )
        self.rng = np.random.default_rng(seed)

    def draw(self, batch_size: int) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """(B, 3, H, W) pictures in [0, 1], targets by task, and the teacher's maps (B, C, 9, 9)."""
        part = int(self.rng.integers(len(self.sizes)))
        at = np.sort(self.rng.choice(self.sizes[part], batch_size, replace=False))
        take = {name: torch.from_numpy(np.array(parts[part][at])) for name, parts in self.fields.items()}
        mirror = bool(self.rng.random() < 0.5)
        image = take["image"].permute(0, 3, 1, 2).float() / 255
        normals = F.normalize(take["normals"].permute(0, 3, 1, 2).float(), dim=1)
        if mirror:
            normals[:, 0] = -normals[:, 0]
        targets = {
            "seg": take["ids"].long(),
            "depth": take["depth"].float()[:, None],
            "normals": normals,
            "edges": take["edges"].float()[:, None],
            "saliency": take["saliency"].float()[:, None],
        }
        if mirror:
            image = image.flip(-1)
            targets = {name: t.flip(-1) for name, t in targets.items()}
        taught = None
        if self.teacher is not None:
            taught = torch.from_numpy(np.array(self.teacher[part][at][:, int(mirror)])).float().permute(0, 3, 1, 2)
        # colour: gain a channel, gamma, and sometimes grey, so that the trunk does not lean on the palette
        gain = torch.from_numpy(self.rng.uniform(0.6, 1.4, (batch_size, 3, 1, 1))).float()
        gamma = torch.from_numpy(self.rng.uniform(0.7, 1.4, (batch_size, 1, 1, 1))).float()
        image = (image * gain).clamp(0, 1) ** gamma
        side = SMALL_SIDE if self.rng.random() < 0.75 else SIDE
        if side != SIDE:
            image = F.interpolate(image, (side, side), mode="bilinear", align_corners=False, antialias=True)
            targets = {name: _nearest(t, side) for name, t in targets.items()}
        grey = torch.from_numpy(self.rng.random((batch_size, 1, 1, 1)) < 0.15)
        image = torch.where(grey, image.mean(1, keepdim=True).expand_as(image), image)
        return image, targets, taught


def _nearest(target: Tensor, side: int) -> Tensor:
    flat = target[:, None].float() if target.ndim == 3 else target
    small = F.interpolate(flat, (side, side), mode="nearest")
    return small[:, 0].to(target.dtype) if target.ndim == 3 else small


class Student(nn.Module):
    """Projects the trunk's maps to the teacher's channels and grid, summed."""

    def __init__(self, channels: list[int], out: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, c) for c in channels)
        self.projections = nn.ModuleList(nn.Conv2d(c, out, 1) for c in channels)

    def forward(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Four maps → (B, out, *size)."""
        parts = zip(maps, self.norms, self.projections, strict=True)
        return sum(F.interpolate(p(n(m)), size, mode="bilinear", align_corners=False) for m, n, p in parts)  # type: ignore[return-value]


def tasks_of(style: str) -> dict[str, gn.Task]:
    """The five tasks of a style."""
    return {
        "seg": registry.build("tasks", "Semantic", {"classes": list(CLASSES[style])}),
        "depth": registry.build("tasks", "Depth", {"max_metres": 10.0}),
        "normals": registry.build("tasks", "Normals"),
        "edges": registry.build("tasks", "Edges"),
        "saliency": registry.build("tasks", "Saliency"),
    }


#: relative to the literature's weights, which suit other heads: all terms within a factor of about three of each other
WEIGHTS = {"seg": 1.0, "depth": 0.5, "normals": 3.0, "edges": 10.0, "saliency": 1.0}


def command_train(args: argparse.Namespace) -> None:
    """Train the trunk and write its weights at float16."""
    torch.manual_seed(args.seed)
    pool = Pool(args.cache, args.objective, args.seed)
    backbone = gn.backbone("mit_b0")
    tasks = tasks_of("pretrain")
    model = gn.adapt(backbone, gn.FullFineTuning(), tasks, gn.SegFormerHead(channels=32))
    model.train()
    width = 0 if pool.teacher is None else pool.teacher[0].shape[-1]
    student = Student([f.channels for f in backbone.features], width) if width else None
    parameters = list(model.trained_parameters().values()) + (list(student.parameters()) if student else [])
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    start = time.perf_counter()
    for step in range(args.steps):
        progress = step / args.steps
        if args.minutes:
            progress = max(progress, (time.perf_counter() - start) / 60 / args.minutes)
            if progress >= 1:
                break
        rate = args.lr * min(1, (step + 1) / 300) * (0.5 + 0.5 * math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        image, targets, taught = pool.draw(args.batch_size)
        losses = {}
        x = model.prepare(image)
        maps = backbone(x)
        if args.objective != "distill":
            for name, task in tasks.items():
                out = model.decode({name: maps}, (image.shape[-2], image.shape[-1]))[name]
                losses[name] = WEIGHTS[name] * task.loss(task.sums(out, targets[name]))
        if student is not None and taught is not None:
            guess = student(maps, (taught.shape[-2], taught.shape[-1]))
            losses["teacher"] = 2 * (1 - F.cosine_similarity(guess, taught, dim=1)).mean()
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 0:
            speed = (step + 1) * args.batch_size / (time.perf_counter() - start)
            parts = " ".join(f"{n} {v.item():.3f}" for n, v in losses.items())
            print(f"step {step} lr {rate:.1e} {speed:.0f}/s  {parts}", flush=True)
        if step % 1000 == 999:
            _write(model, args.out)
    _write(model, args.out)
    print(f"trained {step} steps in {(time.perf_counter() - start) / 60:.0f} minutes")


def _write(model: gn.Model, path: Path) -> None:
    tuned = dict(model.owners[0].tuned.items())
    state = {n: tuned.get(n, t).detach().half().contiguous() for n, t in model.backbone.frozen_tensors().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={"license": "Apache-2.0"})


def command_probe(args: argparse.Namespace) -> None:
    """Freeze the trunk, train heads on other scenes, and print what they reach on unseen ones."""
    results = {}
    tasks = tasks_of("demo")
    for label, weights in {"random": None, "trained": args.weights}.items():
        torch.manual_seed(args.seed)
        backbone = gn.backbone("mit_b0", None if weights is None else str(weights))
        model = gn.adapt(backbone, getattr(gn, args.adapter)(), tasks, gn.SegFormerHead(channels=32))
        data, held_out = Scenes(400, size=96, seed=11, style="demo"), Scenes(100, size=96, seed=12, style="demo")
        optimizer = torch.optim.AdamW(model.trained_parameters().values(), lr=3e-3)
        rng = np.random.default_rng(0)
        samples = [data[i] for i in range(len(data))]
        model.train()
        for step in range(args.steps):
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * (0.5 + 0.5 * math.cos(math.pi * step / args.steps))
            batch = collate([samples[i] for i in rng.choice(len(samples), 16, replace=False)])
            out = model(batch.images)
            losses = [WEIGHTS[n] * t.loss(t.sums(out[n], batch.targets[n])) for n, t in tasks.items()]
            optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()
            optimizer.step()
        from garnish.training.evaluate import evaluate

        measured = evaluate(model, held_out)
        results[label] = {n: round(float(measured[n][t.headline]), 4) for n, t in tasks.items()}
        print(label, json.dumps(results[label]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("render")
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--start", type=int, default=0)
    one.add_argument("--count", type=int, default=16000)
    one.add_argument("--seed", type=int, default=1)
    one.set_defaults(run=command_render)
    one = commands.add_parser("teach")
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--teacher", type=Path, required=True)
    one.set_defaults(run=command_teach)
    one = commands.add_parser("train")
    one.add_argument("--cache", type=Path, required=True)
    one.add_argument("--objective", choices=["supervised", "distill", "both"], default="both")
    one.add_argument("--steps", type=int, default=12000)
    one.add_argument("--minutes", type=float, default=0, help="stop (with the rate annealed) after so many minutes")
    one.add_argument("--batch-size", type=int, default=24)
    one.add_argument("--lr", type=float, default=1.5e-3)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--out", type=Path, required=True)
    one.set_defaults(run=command_train)
    one = commands.add_parser("probe")
    one.add_argument("--weights", type=Path, required=True)
    one.add_argument("--steps", type=int, default=150)
    one.add_argument("--adapter", default="Frozen")
    one.add_argument("--seed", type=int, default=0)
    one.set_defaults(run=command_probe)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
