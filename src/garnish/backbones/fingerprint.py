"""What identifies a frozen trunk, so that a bundle can refuse another one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, by name, so that any storage dtype agrees."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        value = tensor.detach().cpu().contiguous()
        value = value.float() if value.is_floating_point() else value
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
