"""PEFT's ``adapter_config.json``: reading it with validation, and writing it.

Only a few keys are written, since older versions of PEFT warn of each key that they do not know. When reading, an
unknown key that would change what the adapter computes is an error.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from garnish.bundles.peft.name_patterns import NamePattern, UnreadPattern
from garnish.checking.plain_data import Json, Reading, Within, hints_of, integers, read_as
from garnish.errors import BundleError, one_line, shown
from garnish.files.strict_json import read_json

CONFIG = "adapter_config.json"
#: As ``target_modules``: every linear layer.
ALL_LINEAR = "all-linear"

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
#: Most names in a list, and most expressions of ranks or of scales; no trunk has that many layers.
MOST_NAMES = 2_000
#: Longest name of a module, and all names and expressions of a file together; characters.
MOST_NAME, _MOST_TEXT = 500, 200_000
#: A scale numerator α lies between these, or its negative does; with 0 nothing would be learned.
_LEAST_ALPHA, _MOST_ALPHA = 1e-6, 1e6
#: Keys that may be absent, but not null.
_NEVER_NULL = ("r", "lora_alpha", "lora_dropout")


def _names(most: int) -> Within:
    return Within(
        f"a list of names, {most:,} at most, of 1 to {MOST_NAME} characters",
        lambda names: len(names) <= most and all(0 < len(name) <= MOST_NAME for name in names),
    )


_Rank = Annotated[int, integers(1, 2**20)]
_Alpha = Annotated[
    float,
    Within(
        f"a number from {_LEAST_ALPHA:g} to {_MOST_ALPHA:g}, or its negative",
        lambda alpha: _LEAST_ALPHA <= abs(alpha) <= _MOST_ALPHA,
    ),
]
_Dropout = Annotated[float, Within("0 to below 1", lambda p: 0 <= p < 1)]
_Flag = Annotated[bool, Within("true or false")]
_Names = Annotated[tuple[str, ...], _names(MOST_NAMES)]
_Saved = Annotated[tuple[str, ...], _names(100)]
_Targets = Annotated[
    _Names | str,
    Within(
        f"names of modules: an expression, or a list of names, {MOST_NAMES:,} at most, of 1 to {MOST_NAME} characters",
        bool,
    ),
]


@dataclass(frozen=True, kw_only=True)
class PeftConfig:
    """The keys of ``adapter_config.json`` that determine what an adapter computes, under PEFT's names.

    ``target_modules`` and ``exclude_modules`` are names or suffixes of names, or one regular expression;
    ``rank_pattern`` and ``alpha_pattern`` map regular expressions for suffixes of names to values.
    """

    r: _Rank = 8
    lora_alpha: _Alpha = 8.0
    lora_dropout: _Dropout = 0.0
    rank_pattern: Mapping[str, _Rank] = field(default_factory=dict)
    alpha_pattern: Mapping[str, _Alpha] = field(default_factory=dict)
    use_rslora: _Flag = False
    use_dora: _Flag = False
    target_modules: _Targets
    exclude_modules: _Names | str = ()
    modules_to_save: _Saved = ()

    def expressions(self) -> dict[str, list[str]]:
        """Key → the regular expressions under it, in order."""
        named = {"target_modules": self.target_modules, "exclude_modules": self.exclude_modules}
        single = {key: [value] for key, value in named.items() if isinstance(value, str) and value != ALL_LINEAR}
        return single | {"rank_pattern": list(self.rank_pattern), "alpha_pattern": list(self.alpha_pattern)}


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
            f"{file}: peft_type {shown(found['peft_type'])} is not read; only LORA is (with use_rslora or use_dora)"
        )
    _check_ignored(found, str(file))
    given = {k: v for k, v in found.items() if k in hints_of(PeftConfig) and (v is not None or k in _NEVER_NULL)}
    how = Reading(error=BundleError, file=f"{file}: ", missing="has no {place}")
    config: PeftConfig = read_as(given, PeftConfig, "", how)
    _check_expressions(config, str(file))
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


def _check_expressions(config: PeftConfig, file: str) -> None:
    """Raise BundleError for expressions that are too many, or beyond what :class:`NamePattern` reads."""
    length = 0
    for key, texts in config.expressions().items():
        if len(texts) > MOST_NAMES:
            raise BundleError(f"{file}: {key} holds {len(texts):,} expressions, more than {MOST_NAMES:,}")
        for text in texts:
            length += len(text)
            if length > _MOST_TEXT:
                raise BundleError(f"{file}: its expressions have more than {_MOST_TEXT:,} characters in all")
            try:
                NamePattern.read(text)
            except UnreadPattern as error:
                raise BundleError(
                    f"{file}: {key}: the expression {shown(text)} {one_line(error, 120)}; write names out, or use "
                    "what docs/peft.md lists"
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
    return json.dumps(plain, sort_keys=True, indent=2) + "\n"


def _shortest(alpha: float) -> int | float:
    return int(alpha) if alpha == int(alpha) else alpha
