"""The yardstick: CamVid with plain timm and PEFT, no garnish anywhere in this file.

    python benchmarks/camvid/plain_peft.py --arm lora --lr 1e-3 --seed 0

A DINOv2-type ViT-S/14 is frozen; LoRA r = 8 (α = 16) sits on qkv, proj, fc1 and fc2 of every block; the head is one
LayerNorm and 1x1 convolution on each of four depths, summed. Pictures are 224x280, batches of 4, flips only.

Shape letters: B pictures, C channels, H W pixels, h w patches.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import timm
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
DATA = SHARED / "data" / "camvid"
WEIGHTS = SHARED / "weights" / "depth_anything_v2_vits_encoder" / "model.safetensors"
SIZE = (224, 280)
CLASSES, IGNORE = 11, 255
BATCH = 4
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
SITES = r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))"


def load(split: str, every: int = 1) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, H, W) uint8 and labels (N, H, W) uint8 of every n-th picture of a split."""
    images, labels = [], []
    for path in sorted((DATA / "images" / split).glob("*.jpg"))[::every]:
        size = (SIZE[1], SIZE[0])
        images.append(np.array(Image.open(path).convert("RGB").resize(size, Image.Resampling.BILINEAR)))
        mask = Image.open(DATA / "labels" / split / f"{path.stem}.png").resize(size, Image.Resampling.NEAREST)
        labels.append(np.array(mask))
    ids = torch.from_numpy(np.stack(labels))
    ids[ids == CLASSES] = IGNORE
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), ids


def batch_at(data: tuple[Tensor, Tensor], seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Batch number ``step``: images (B, 3, H, W) float in [0, 1], labels (B, H, W) int64; half of them mirrored."""
    images, labels = data
    per_epoch = len(images) // BATCH
    order = np.random.default_rng([seed, step // per_epoch]).permutation(len(images))
    at = order[(step % per_epoch) * BATCH :][:BATCH]
    flips = np.random.default_rng([seed, step, 1]).random(BATCH) < 0.5
    x, y = images[at].float() / 255, labels[at].long()
    for i, flip in enumerate(flips):
        if flip:
            x[i], y[i] = x[i].flip(-1), y[i].flip(-1)
    return x, y


class Head(nn.Module):
    """A norm and a 1x1 convolution on each map, summed at the patch grid."""

    def __init__(self, channels: int, maps: int = 4) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels, eps=1e-6) for _ in range(maps))
        self.projections = nn.ModuleList(nn.Conv2d(channels, CLASSES, 1) for _ in range(maps))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Four (B, C, h, w) → (B, classes, h, w)."""
        out = 0
        for x, norm, projection in zip(maps, self.norms, self.projections, strict=True):
            out = out + projection(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return out


class Segmenter(nn.Module):
    """timm's ViT, possibly wrapped by PEFT, and the head."""

    def __init__(self, arm: str) -> None:
        super().__init__()
        trunk = timm.create_model("vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True)
        if arm != "scratch":
            state = {k: v.float() for k, v in load_file(WEIGHTS).items() if k != "mask_token"}
            trunk.load_state_dict(state)
        if arm == "lora":
            trunk = get_peft_model(trunk, LoraConfig(r=8, lora_alpha=16, target_modules=SITES)).base_model.model
        elif arm == "frozen":
            trunk.requires_grad_(False)
        trunk.norm.requires_grad_(False)  # not read: maps are taken before it
        self.trunk = trunk
        self.head = Head(trunk.embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → (B, classes, H, W)."""
        x = (images - MEAN) / STD
        maps = self.trunk.forward_intermediates(x, indices=[2, 5, 8, 11], norm=False, intermediates_only=True)
        return F.interpolate(self.head(maps), images.shape[-2:], mode="bilinear", align_corners=False)


def groups(model: nn.Module, lr: float, head_lr: float, head: str) -> list[dict]:
    """AdamW's groups: weight decay on matrices only, the head at its own rate."""
    found = []
    for rate, inside in ((lr, False), (head_lr, True)):
        named = [p for n, p in model.named_parameters() if p.requires_grad and (head in n) == inside]
        found.append({"params": [p for p in named if p.ndim > 1], "lr": rate, "weight_decay": 0.05})
        found.append({"params": [p for p in named if p.ndim <= 1], "lr": rate, "weight_decay": 0.0})
    return found


def step_once(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor], bf16: bool) -> float:
    """One training step; returns the loss."""
    images, labels = batch
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = model(images)
    loss = F.cross_entropy(out.float(), labels, ignore_index=IGNORE)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
    optimizer.step()
    return loss.item()


def train(model: nn.Module, data: tuple[Tensor, Tensor], args: argparse.Namespace, head: str = "head") -> float:
    """Train in place; cosine rate with a short warm-up. Returns seconds."""
    optimizer = torch.optim.AdamW(groups(model, args.lr, args.head_lr, head))
    peaks = [g["lr"] for g in optimizer.param_groups]
    warmup = max(1, args.steps // 20)
    start = time.perf_counter()
    for step in range(args.steps):
        share = max(0, step - warmup) / max(1, args.steps - warmup)
        factor = min(1.0, (step + 1) / warmup) * (0.5 + 0.5 * np.cos(np.pi * share))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        step_once(model, optimizer, batch_at(data, args.seed, step), args.bf16)
    return time.perf_counter() - start


def mean_iou(model: nn.Module, data: tuple[Tensor, Tensor], bf16: bool = False) -> float:
    """Mean intersection over union from one confusion matrix over all pictures, at 224x280."""
    confusion = torch.zeros(CLASSES * CLASSES, dtype=torch.int64)
    model.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for images, labels in zip(data[0].split(BATCH), data[1].split(BATCH), strict=True):
            guess = model(images.float() / 255).argmax(1)
            seen = labels != IGNORE
            confusion += torch.bincount(labels[seen].long() * CLASSES + guess[seen], minlength=CLASSES * CLASSES)
    matrix = confusion.view(CLASSES, CLASSES).double()
    union = matrix.sum(0) + matrix.sum(1) - matrix.diag()
    return (matrix.diag() / union)[union > 0].mean().item()


def parser() -> argparse.ArgumentParser:
    """Options that both sides share."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--arm", choices=["lora", "frozen", "full", "scratch"], default="lora")
    options.add_argument("--lr", type=float, default=1e-3)
    options.add_argument("--head-lr", type=float, default=1e-3)
    options.add_argument("--steps", type=int, default=150)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--bf16", action="store_true", help="bfloat16 matrix products")
    options.add_argument("--threads", type=int, default=2)
    return options


def main() -> None:
    args = parser().parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model = Segmenter(args.arm)
    seconds = train(model.train(), load("train"), args)
    score = mean_iou(model, load("test", every=4), args.bf16)
    print(f"{args.arm} seed {args.seed}: mIoU {score:.4f}, {seconds / args.steps:.2f} s a step")


if __name__ == "__main__":
    main()
