"""What lies beside the tensors of a SegFormer: transformers' ``config.json``, the notes of NVlabs' training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from garnish.backbones.weights import CONFIG, read_notes
from garnish.errors import WeightsError, one_line
from garnish.files.strict_json import read_json

_PLACEHOLDER = re.compile(r"LABEL_\d+")
#: what SegFormer's configuration may say that changes the result but no tensor's shape
_FIXED = {"hidden_act": "gelu", "strides": [4, 2, 2, 2], "reshape_last_stage": True}


def read_model_config(file: str | Path) -> dict[str, Any]:
    """The ``config.json`` beside some weights; empty where there is none.

    Args:
        file: of the weights, as :func:`garnish.backbones.weights.weights_file` gives it.

    Raises:
        WeightsError: it is damaged.
    """
    file = Path(file).parent / CONFIG
    if not file.is_file():
        return {}
    found = read_json(file, "model's description", "fetch it again, or remove it", WeightsError)
    if not isinstance(found, dict):
        raise WeightsError(f"{file}: is no mapping; fetch it again, or remove it")
    return found


def check_architecture(config: Mapping[str, Any], arch: Any, source: str) -> None:
    """Refuse weights whose ``config.json`` says that they compute something else with the same tensors.

    Args:
        config: as :func:`read_model_config` gives it; one of another kind of model says nothing.
        arch: the options of an MiT.
        source: of the weights, for messages.

    Raises:
        WeightsError: other heads of attention, activation or strides.
    """
    if config.get("model_type") != "segformer":
        return
    wanted = {**_FIXED, "num_attention_heads": list(arch.num_heads), "sr_ratios": list(arch.sr_ratios)}
    for key, value in wanted.items():
        if (said := config.get(key, value)) != value:
            option = "num_heads" if key == "num_attention_heads" else key
            remedy = (
                f"set the option {option}" if option in ("num_heads", "sr_ratios") else "only SegFormer's own is known"
            )
            raise WeightsError(f"{source}: its {CONFIG} has {key} {one_line(repr(said), 60)}, not {value!r}; {remedy}")


def stated_classes(file: str | Path) -> tuple[str, ...] | None:
    """The classes that ``config.json`` beside a weights file, or else the notes in it, give; None where neither does.

    Raises:
        WeightsError: as :func:`read_model_config`.
    """
    named = classes_of_config(read_model_config(file))
    noted = read_notes(file).get("CLASSES") if named is None else None
    if isinstance(noted, list | tuple) and all(isinstance(name, str) for name in noted):
        named = classes_of_config({"id2label": dict(enumerate(noted))})
    return named


def classes_of_config(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The classes of ``id2label`` in the order of their ids; None where it is absent, has gaps or placeholders.

    A name that several classes bear gets their ids behind it.
    """
    labels = config.get("id2label")
    if not isinstance(labels, Mapping):
        return None
    try:
        by_id = {int(number): str(name).strip() for number, name in labels.items()}
    except ValueError:
        return None
    names = [by_id.get(number, "") for number in range(len(labels))]
    if not names or not all(names) or all(_PLACEHOLDER.fullmatch(name) for name in names):
        return None
    return tuple(f"{name} {number}" if names.count(name) > 1 else name for number, name in enumerate(names))
