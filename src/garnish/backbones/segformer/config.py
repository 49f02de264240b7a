"""Metadata stored with a SegFormer's tensors: transformers' ``config.json`` and the notes of NVlabs' training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from garnish.backbones.hub_files import HUB_CONFIG
from garnish.backbones.stored_weights import read_notes
from garnish.checking.plain_data import Json
from garnish.errors import WeightsError, showable, shown
from garnish.files.strict_json import read_json

_PLACEHOLDER = re.compile(r"LABEL_\d+")
#: configuration entries that change the result but no tensor's shape, with SegFormer's values
_FIXED = {"hidden_act": "gelu", "strides": [4, 2, 2, 2], "reshape_last_stage": True}


def segformer_config(file: str | Path | None) -> dict[str, Json]:
    """The ``config.json`` in the folder of a weights file; empty if there is none, or no file.

    Args:
        file: the weights file, as :func:`garnish.backbones.weights.weights_file` gives it.

    Raises:
        WeightsError: the ``config.json`` is damaged.
    """
    if file is None:
        return {}
    file = Path(file).parent / HUB_CONFIG
    if not file.is_file():
        return {}
    found = read_json(file, "model's description", "fetch it again, or remove it", WeightsError)
    if not isinstance(found, dict):
        raise WeightsError(f"{file}: is not a mapping; fetch it again, or remove it")
    return found


def check_architecture(
    config: Mapping[str, Json], num_heads: Sequence[int], sr_ratios: Sequence[int], source: str
) -> None:
    """Refuse weights whose ``config.json`` describes another computation with the same tensors.

    Args:
        config: as :func:`segformer_config` gives it; that of another kind of model is ignored.
        num_heads: of the MiT, by stage.
        sr_ratios: likewise.
        source: where the weights are from, for messages.

    Raises:
        WeightsError: another number of attention heads, activation, reduction or strides.
    """
    if config.get("model_type") != "segformer":
        return
    wanted = {**_FIXED, "num_attention_heads": list(num_heads), "sr_ratios": list(sr_ratios)}
    for key, value in wanted.items():
        if (said := config.get(key, value)) != value:
            option = "num_heads" if key == "num_attention_heads" else key
            remedy = (
                f"set the option {option}" if option in ("num_heads", "sr_ratios") else "only SegFormer's own is known"
            )
            raise WeightsError(f"{source}: its {HUB_CONFIG} has {key} {shown(said)}, not {value!r}; {remedy}")


def stated_classes(file: str | Path) -> tuple[str, ...] | None:
    """The class names in the ``config.json`` beside a weights file, else in the file's notes; None without either.

    Raises:
        WeightsError: as :func:`segformer_config`.
    """
    named = config_classes(segformer_config(file))
    noted = read_notes(file).get("CLASSES") if named is None else None
    if isinstance(noted, list | tuple) and all(isinstance(name, str) for name in noted):
        named = config_classes({"id2label": dict(enumerate(noted))})
    return named


def config_classes(config: Mapping[str, Json]) -> tuple[str, ...] | None:
    """The class names of ``id2label`` in the order of their ids; None if it is absent, has gaps or placeholders.

    Names that several classes share get the class id appended.
    """
    labels = config.get("id2label")
    if not isinstance(labels, Mapping):
        return None
    if not all(isinstance(name, str | int | float) for name in labels.values()):
        return None
    try:
        by_id = {int(number): showable(str(name).strip()) for number, name in labels.items()}
    except ValueError:
        return None
    names = [by_id.get(number, "") for number in range(len(labels))]
    if not names or not all(names) or all(_PLACEHOLDER.fullmatch(name) for name in names):
        return None
    count = Counter(names)
    return tuple(f"{name} {number}" if count[name] > 1 else name for number, name in enumerate(names))
