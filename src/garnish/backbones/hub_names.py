"""A Hub id as the name of a trunk: the architecture by the repository's ``config.json``, which is a stranger's file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm

from garnish.backbones.families import find_family
from garnish.backbones.hub_files import HUB_CONFIG, HUB_PICTURES, hub_file, plain_hub_id
from garnish.backbones.preprocessor import stated_colours
from garnish.backbones.timm_facts import colours, tagged
from garnish.backbones.transformers.transformers_model import Architecture
from garnish.backbones.transformers_names import transformers_model
from garnish.checking.plain_data import Json
from garnish.errors import OptionError, WeightsError, shown
from garnish.files.strict_json import read_json

_PREFIXES = ("hf-hub:", "hf_hub:")
_PLAIN = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_REMEDY = "give the name of an architecture, and the id as weights"
#: Arguments of timm's that a trunk sets itself, or whose classifier it has not.
_LEFT = ("dynamic_img_size", "features_only", "num_classes", "pretrained", "strict_img_size")


class OnHub(NamedTuple):
    """A trunk of the Hub: its name and options, and the id of its weights."""

    name: str
    options: dict[str, Json]
    weights: str


def is_hub_name(name: str) -> bool:
    """Whether a name is an id of the Hub (``owner/name``, ``hf-hub:owner/name``, ``hf_hub:owner/name``) or a path."""
    return name.startswith((*_PREFIXES, "local-dir:")) or "/" in name or _is_folder(name)


def on_hub(name: str) -> OnHub:
    """The trunk of a repository; its ``config.json`` is fetched unless it is in the Hub's local cache.

    Raises:
        OptionError: no id, or an architecture that no family builds. WeightsError: no such repository, one without a
            ``config.json``, or a damaged one.
    """
    hub_id = plain_hub_id(name)
    if hub_id is None or (not name.startswith(_PREFIXES) and (not _PLAIN.fullmatch(name) or _is_there(name))):
        raise OptionError(
            f"backbone: {shown(name, 80)} is no Hub id hf-hub:owner/name; of a folder or a file give the architecture "
            "as the name (see config.json) and the path as weights; of transformers' also gn.backbone(AutoModel."
            "from_pretrained(FOLDER))"
        )
    source = f"hf-hub:{hub_id}"
    file = hub_file(hub_id, (HUB_CONFIG,), beside=(HUB_PICTURES, "README.md"))
    config = _read(file)
    found = _of_timm(config, source) if "architecture" in config else _of_transformers(config, source)
    normal = {} if "architecture" in config else stated_colours(file)
    return OnHub(found.name, {**colours(found.name, normal), **found.options}, source)


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # no path at all
        return False


def _is_folder(name: str) -> bool:
    """Whether no family builds a name, and a folder has it."""
    return find_family(name)[0] is None and _is_there(name) and Path(name).is_dir()


def _read(file: Path) -> Mapping[str, Json]:
    found = read_json(file, "model's description", "fetch it again", WeightsError)
    if not isinstance(found, dict):
        raise WeightsError(f"{file}: is not a mapping; fetch it again")
    return found


def _of_timm(config: Mapping[str, Json], where: str) -> Architecture:
    """The trunk of a repository of timm's; its options are checked by the family when it is built."""
    name, arguments = config["architecture"], config.get("model_args") or {}
    facts: Any = config.get("pretrained_cfg") or config
    if not isinstance(name, str) or not timm.is_model(name):
        raise OptionError(f"{where}: its {HUB_CONFIG} names {shown(name)}, which timm does not have; {_REMEDY}")
    if not isinstance(arguments, dict) or not isinstance(facts, dict):
        raise WeightsError(f"{where}: the model_args or pretrained_cfg of its {HUB_CONFIG} are no mapping; {_REMEDY}")
    bands = arguments.get("in_chans", 3)
    if bands != 3:
        raise OptionError(f"{where}: it takes {shown(bands)} bands, trunks take red, green and blue; give another")
    options = {key: value for key, value in arguments.items() if key not in (*_LEFT, "in_chans")}
    named = tagged(name, facts)
    return Architecture(named, {**colours(named, facts), **options})


def _of_transformers(config: Mapping[str, Json], where: str) -> Architecture:
    if "model_type" not in config:
        raise OptionError(f"{where}: its {HUB_CONFIG} has neither architecture nor model_type; {_REMEDY}")
    return transformers_model(config, where).architecture(config, where)
