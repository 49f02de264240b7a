"""``adapter_config.json``: reading it without trusting it, and what is written to it.

Few keys are written, for older versions of PEFT warn of each that they do not know. Of what is read, a key that would
change what the adapter computes and that we do not know of is an error.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from garnish.bundles.bundle_json import MOST_BYTES, parse_json
from garnish.errors import BundleError, one_line

CONFIG = "adapter_config.json"

_Number = TypeVar("_Number", int, float)

#: Keys that change nothing here, whatever they say: how training began, which modules were looked for (the file's
#: tensors say which were found), what versions there were.
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
#: Starts that leave the backbone's weights as they are; the others rewrite them whenever PEFT loads the file.
_STARTS = ("gaussian", "eva", "orthogonal")
#: A regular expression of a stranger can run for ever; these bounds keep it to about a tenth of a second a name.
_MOST_PATTERN, _MOST_REPEATS = 2000, 5


@dataclass(frozen=True, kw_only=True)
class PeftConfig:
    """The keys of ``adapter_config.json`` that say what an adapter computes; names are PEFT's.

    ``target_modules`` and ``exclude_modules`` are names or endings of names, or one regular expression;
    ``rank_pattern`` and ``alpha_pattern`` map regular expressions for the ends of names to values.
    """

    r: int
    lora_alpha: float
    lora_dropout: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool
    use_dora: bool
    target_modules: tuple[str, ...] | str
    exclude_modules: tuple[str, ...] | str
    modules_to_save: tuple[str, ...]

    def rank_of(self, module: str) -> int:
        """R of one module."""
        return _first_match(self.rank_pattern, module, self.r)

    def alpha_of(self, module: str) -> float:
        """α of one module."""
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


def read_config(file: Path) -> PeftConfig:
    """A validated ``adapter_config.json``.

    Raises:
        BundleError: damaged, another method than LoRA, rsLoRA or DoRA, or a key that we cannot honour.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BundleError(f"{file}: {file.stat().st_size} bytes are more than a configuration can have")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{file}: cannot be read ({one_line(error, 120)}); write the adapter again") from error
    found = parse_json(text, str(file))
    if not isinstance(found, dict) or "peft_type" not in found:
        raise BundleError(f"{file}: is no configuration of PEFT's (it has no peft_type); give another folder")
    if found["peft_type"] != "LORA":
        raise BundleError(
            f"{file}: peft_type {found['peft_type']!r} is not read; only LORA is (with use_rslora or use_dora)"
        )
    return _Reader(found, str(file)).read()


class _Reader:
    """The keys of one file; every error names the file and the key."""

    def __init__(self, found: Mapping[str, Any], file: str) -> None:
        self.found = found
        self.file = file

    def read(self) -> PeftConfig:
        for key, value in self.found.items():
            if key not in _READ | _WITHOUT_EFFECT and value not in (None, False, [], {}, ""):
                raise BundleError(
                    f"{self.file}: {key}: {one_line(repr(value), 60)} is not supported; "
                    "plain LoRA, rsLoRA and DoRA of linear layers and convolutions are"
                )
        if self.found.get("bias", "none") != "none":
            raise BundleError(
                f"{self.file}: bias: {self.found['bias']!r} retrains the backbone's own biases; "
                "only adapters of bias='none' are read"
            )
        start = self.found.get("init_lora_weights", True)
        if isinstance(start, str) and start not in _STARTS:
            raise BundleError(
                f"{self.file}: init_lora_weights: {one_line(repr(start), 40)} rewrites the backbone's weights when "
                "PEFT loads the file; save it as a plain LoRA first (path_initial_model_for_weight_conversion)"
            )
        ranks = self._mapping("rank_pattern")
        alphas = self._mapping("alpha_pattern")
        return PeftConfig(
            r=self._rank("r", self.found.get("r", 8)),
            lora_alpha=self._number("lora_alpha", self.found.get("lora_alpha", 8)),
            lora_dropout=self._dropout(),
            rank_pattern={k: self._rank(f"rank_pattern.{k}", v) for k, v in ranks.items()},
            alpha_pattern={k: self._number(f"alpha_pattern.{k}", v) for k, v in alphas.items()},
            use_rslora=self._flag("use_rslora"),
            use_dora=self._flag("use_dora"),
            target_modules=self._modules("target_modules", needed=True),
            exclude_modules=self._modules("exclude_modules"),
            modules_to_save=self._list("modules_to_save", self.found.get("modules_to_save")),
        )

    def _expect(self, is_so: bool, key: str, expected: str, value: Any) -> None:
        if not is_so:
            told = f"{one_line(key, 60)}: expected {expected}, got {one_line(repr(value), 60)}"
            raise BundleError(f"{self.file}: {told}")

    def _rank(self, key: str, value: Any) -> int:
        self._expect(type(value) is int and value >= 1, key, "a whole number from 1", value)
        return int(value)

    def _number(self, key: str, value: Any) -> float:
        self._expect(type(value) in (int, float) and math.isfinite(value), key, "a number", value)
        return float(value)

    def _dropout(self) -> float:
        value = self._number("lora_dropout", self.found.get("lora_dropout", 0.0))
        self._expect(0 <= value < 1, "lora_dropout", "0 to below 1", value)
        return value

    def _flag(self, key: str) -> bool:
        value = self.found.get(key) or False
        self._expect(type(value) is bool, key, "true or false", value)
        return bool(value)

    def _mapping(self, key: str) -> dict[str, Any]:
        value = self.found.get(key) or {}
        self._expect(isinstance(value, dict), key, "a mapping", value)
        return {self._pattern(key, pattern): entry for pattern, entry in value.items()}

    def _modules(self, key: str, *, needed: bool = False) -> tuple[str, ...] | str:
        value = self.found.get(key)
        if isinstance(value, str):
            return self._pattern(key, value)
        names = self._list(key, value)
        self._expect(bool(names) or not needed, key, "names of modules", value)
        return names

    def _list(self, key: str, value: Any) -> tuple[str, ...]:
        found = () if value is None else value
        are_names = isinstance(found, list | tuple) and all(isinstance(name, str) and name for name in found)
        self._expect(are_names, key, "a list of names", value)
        return tuple(found)

    def _pattern(self, key: str, text: str) -> str:
        repeats = len(re.findall(r"(?<![\\(])[*+{?]", text))
        nested = re.search(r"(?<!\\)\)[*+{]", text)
        if len(text) > _MOST_PATTERN or repeats > _MOST_REPEATS or nested or re.search(r"\\[1-9]|\(\?P=", text):
            raise BundleError(
                f"{self.file}: {key}: the expression {one_line(text, 60)!r} could run for ever (longer than "
                f"{_MOST_PATTERN} characters, more than {_MOST_REPEATS} repeats, a repeated group or a reference); "
                "write names out"
            )
        try:
            re.compile(text)
        except (re.error, RecursionError, OverflowError) as error:
            raise BundleError(
                f"{self.file}: {key}: {one_line(text, 60)!r} is no regular expression ({one_line(error, 60)})"
            ) from error
        return text


def config_text(
    modules: Mapping[str, tuple[int, float]],
    *,
    rs: bool,
    dora: bool,
    dropout: float,
    modules_to_save: Sequence[str],
    base_model: str | None,
) -> str:
    """``adapter_config.json`` for adapters at some modules.

    Args:
        modules: full module name → (r, α).
        rs: scale α/√r.
        dora: the file has magnitudes.
        dropout: on the low-rank path, in training.
        modules_to_save: modules whose own tensors the file holds.
        base_model: Hub id of the backbone, where it has one.
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
