"""What a report of a fault must say: versions of garnish and of what it stands on, the machine and its devices."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, requires, version

from garnish import __version__
from garnish.output import say

#: What ``garnish version`` prints.
MAIN = ("torch", "torchvision", "timm", "lightning", "torchmetrics", "safetensors")
#: What else may be the cause of a fault, of garnish's dependencies and of what is handed to it.
_OTHERS = (
    *("numpy", "pillow", "scipy", "matplotlib", "huggingface_hub", "transformers", "peft", "onnxruntime", "onnx"),
    *("onnxscript", "rasterio", "imagecodecs", "av", "starlette", "uvicorn"),
)


def main_versions(names: tuple[str, ...] = MAIN) -> dict[str, str]:
    """garnish, Python and distributions by name → version, or "missing"; nothing is imported."""
    found = {"garnish": __version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def all_versions() -> dict[str, str]:
    """:func:`main_versions` of all, with the system, devices that torch sees, its threads, and the extras there are."""
    import torch

    found = main_versions((*MAIN, *_OTHERS))
    found["system"] = f"{platform.system()} {platform.release()}, {platform.machine()}"
    found["devices"] = ", ".join(_devices())
    found["threads"] = f"{torch.get_num_threads()} of torch, {os.cpu_count()} cores"
    found["extras"] = ", ".join(present_extras()) or "none"
    return found


def _devices() -> list[str]:
    import torch

    found = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if found:
        found.append(f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}")
    return [*found, "mps"] if torch.backends.mps.is_available() else found or ["cpu"]


def present_extras() -> list[str]:
    """Extras of garnish (``pip install 'garnish[NAME]'``) all of whose packages are installed, in any version."""
    asked: dict[str, list[str]] = {}
    try:
        lines = requires("garnish") or []
    except PackageNotFoundError:  # a source tree that is on the path, and not installed
        lines = []
    for line in lines:
        what, _, mark = line.partition(";")
        if "extra ==" in mark:
            name = what.strip().partition("[")[0]
            for sign in "<>=!~ ":
                name = name.partition(sign)[0]
            asked.setdefault(mark.rpartition("==")[2].strip(" \"'"), []).append(name)
    return [extra for extra, names in asked.items() if "missing" not in main_versions(tuple(names)).values()]


def show_versions() -> None:
    """Print what a report of a fault must say: versions, system, devices, threads, extras; one line each.

    ``garnish version --all`` prints the same, with ``--json`` as JSON.

    Example:
        >>> gn.show_versions()  # doctest: +ELLIPSIS
        garnish ...
        python 3...
    """
    say(*(f"{name} {what}" for name, what in all_versions().items()))
