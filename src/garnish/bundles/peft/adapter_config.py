"""PEFT's ``adapter_config.json``: reading it with validation, and writing it.

Only a few keys are written, since older versions of PEFT warn of each key that they do not know. When reading, an
unknown key that would change what the adapter computes is an error.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from garnish.checking.plain_data import Json, Reading, Within, hints_of, read_as
from garnish.errors import BundleError, one_line, shown
from garnish.files.strict_json import read_json

CONFIG = "adapter_config.json"

_Number = TypeVar("_Number", int, float)

#: Keys that have no effect here, whatever their value: initialisation, the modules that were searched for (the file's
#: tensors show which were found), versions.
_WITHOUT_EFFECT = frozenset(
    {
        *("peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "task_type"),
        *("inference_mode", "fan_in_fan_out", "runtime_config", "ensure_weight_tying", "megatron_core"),
        *("layers_to_transform", "layers_pattern", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
        "qalora_group_size",
    }
)
_READ = frozenset(
    {
        *("r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias"),
        *("target_modules", "exclude_modules", "modules_to_save", "init_lora_weights"),
    }
)
#: Initialisations that do not change the backbone's weights; the others rewrite them whenever PEFT loads the file.
_STARTS = ("gaussian", "eva", "orthogonal")
#: An untrusted regular expression can run for ever; these limits keep it to about a tenth of a second per name.
_MOST_PATTERN, _MOST_REPEATS = 2000, 5
#: Keys that may be absent, but not null.
_NEVER_NULL = ("r", "lora_alpha", "lora_dropout")

_Rank = Annotated[int, Within("a whole number from 1", lambda rank: rank >= 1)]
_Finite = Annotated[float, Within("a number", math.isfinite)]
_Dropout = Annotated[float, Within("0 to below 1", lambda p: 0 <= p < 1)]
_Flag = Annotated[bool, Within("true or false")]
_Names = Annotated[tuple[str, ...], Within("a list of names", all)]
_Targets = Annotated[_Names | str, Within("names of modules", bool)]


@dataclass(frozen=True, kw_only=True)
class PeftConfig:
    """The keys of ``adapter_config.json`` that determine what an adapter computes, under PEFT's names.

    ``target_modules`` and ``exclude_modules`` are names or suffixes of names, or one regular expression;
    ``rank_pattern`` and ``alpha_pattern`` map regular expressions for suffixes of names to values.
    """

    r: _Rank = 8
    lora_alpha: _Finite = 8.0
    lora_dropout: _Dropout = 0.0
    rank_pattern: Mapping[str, _Rank] = field(default_factory=dict)
    alpha_pattern: Mapping[str, _Finite] = field(default_factory=dict)
    use_rslora: _Flag = False
    use_dora: _Flag = False
    target_modules: _Targets
    exclude_modules: _Names | str = ()
    modules_to_save: _Names = ()

    def rank_of(self, module: str) -> int:
        """The rank r of one module."""
        return _first_match(self.rank_pattern, module, self.r)

    def alpha_of(self, module: str) -> float:
        """The scale numerator α of one module."""
        return _first_match(self.alpha_pattern, module, self.lora_alpha)

    def targets(self, module: str) -> bool:
        """Whether PEFT would put an adapter at a module of this name."""
        if self.exclude_modules and _names(self.exclude_modules, module):
            return False
        return self.target_modules == "all-linear" or _names(self.target_modules, module)


def _first_match(pattern: Mapping[str, _Number], module: str, default: _Number) -> _Number:
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def _names(wanted: tuple[str, ...] | str, module: str) -> bool:
    if isinstance(wanted, str):
        return re.fullmatch(wanted, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in wanted)


def read_adapter_config(file: Path) -> PeftConfig:
    """Read and validate ``adapter_config.json``.

    Raises:
        BundleError: damaged, a method other than LoRA, rsLoRA or DoRA, or a key that is not supported.
    """
    found = read_json(file, "configuration", "write the adapter again")
    if not isinstance(found, dict) or "peft_type" not in found:
        raise BundleError(f"{file}: is not a configuration of PEFT (it has no peft_type); give another folder")
    if found["peft_type"] != "LORA":
        raise BundleError(
            f"{file}: peft_type {found['peft_type']!r} is not read; only LORA is (with use_rslora or use_dora)"
        )
    _check_ignored(found, str(file))
    given = {k: v for k, v in found.items() if k in hints_of(PeftConfig) and (v is not None or k in _NEVER_NULL)}
    how = Reading(error=BundleError, file=f"{file}: ", missing="has no {place}")
    config: PeftConfig = read_as(given, PeftConfig, "", how)
    for key in ("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules"):
        named = getattr(config, key)
        for expression in [named] if isinstance(named, str) else named if isinstance(named, Mapping) else ():
            _check_expression(expression, f"{file}: {key}")
    return config


def _check_ignored(found: Mapping[str, Json], file: str) -> None:
    """Raise BundleError for an unsupported key that would change what the adapter computes."""
    for key, value in found.items():
        if key not in _READ | _WITHOUT_EFFECT and value not in (None, False, [], {}, ""):
            raise BundleError(
                f"{file}: {one_line(key, 60)}: {shown(value)} is not supported; "
                "plain LoRA, rsLoRA and DoRA of linear layers and convolutions are"
            )
    if (bias := found.get("bias", "none")) != "none":
        raise BundleError(
            f"{file}: bias: {shown(bias)} retrains the backbone's own biases; only adapters of bias='none' are read"
        )
    start = found.get("init_lora_weights", True)
    if isinstance(start, str) and start not in _STARTS:
        raise BundleError(
            f"{file}: init_lora_weights: {shown(start, 40)} rewrites the backbone's weights when "
            "PEFT loads the file; save it as a plain LoRA first (path_initial_model_for_weight_conversion)"
        )


def _check_expression(text: str, where: str) -> None:
    """Raise BundleError for an invalid regular expression, or one that could run for ever."""
    repeats = len(re.findall(r"(?<![\\(])[*+{?]", text))
    nested = re.search(r"(?<!\\)\)[*+{]", text)
    if len(text) > _MOST_PATTERN or repeats > _MOST_REPEATS or nested or re.search(r"\\[1-9]|\(\?P=", text):
        raise BundleError(
            f"{where}: the expression {one_line(text, 60)!r} could run for ever (longer than {_MOST_PATTERN} "
            f"characters, more than {_MOST_REPEATS} repeats, a repeated group or a reference); write names out"
        )
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise BundleError(
            f"{where}: {one_line(text, 60)!r} is not a regular expression ({one_line(error, 60)})"
        ) from error


def config_text(
    modules: Mapping[str, tuple[int, float]],
    *,
    rs: bool,
    dora: bool,
    dropout: float,
    modules_to_save: Sequence[str],
    base_model: str | None,
) -> str:
    """The text of ``adapter_config.json`` for adapters at some modules.

    Args:
        modules: full module name → (r, α).
        rs: scale α/√r.
        dora: the file has magnitudes.
        dropout: on the low-rank path, in training.
        modules_to_save: modules that are stored in full.
        base_model: Hub id of the backbone, if it has one.
    """
    rank = Counter(r for r, _ in modules.values()).most_common(1)[0][0]
    alpha = Counter(a for _, a in modules.values()).most_common(1)[0][0]
    plain = {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": _shortest(alpha),
        "lora_dropout": dropout,
        "modules_to_save": list(modules_to_save) or None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {name: r for name, (r, _) in modules.items() if r != rank},
        "alpha_pattern": {name: _shortest(a) for name, (_, a) in modules.items() if a != alpha},
        "revision": None,
        "target_modules": sorted(modules),
        "task_type": None,
        "use_dora": dora,
        "use_rslora": rs,
    }
    return json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def _shortest(alpha: float) -> int | float:
    return int(alpha) if alpha == int(alpha) else alpha
