"""Prediction from an exported folder with numpy, Pillow and onnxruntime; nothing here imports torch.

``garnish.runtime.Session("exported").predict("street.jpg")``, or ``python -m garnish.runtime exported street.jpg --out
maps``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from garnish.runtime.session import Session as Session

__all__ = ["Session"]


def __getattr__(name: str) -> Any:
    # when first used: who writes manifests needs no onnxruntime, and ``python -m`` is to leave the current folder first
    if name != "Session":
        raise AttributeError(f"garnish.runtime has no {name!r}; it has Session")
    from garnish.runtime.session import Session

    return Session
