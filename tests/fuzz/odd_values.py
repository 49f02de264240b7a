"""Odd values that take the place of values in JSON and YAML."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Raw:
    """Text that stands in the file as it is."""

    text: str


#: Names of files that :func:`tests.fuzz.damage_files.lay_traps` puts into every input.
PIPE, SPARSE, EVIL, LINK = "trap.pipe", "trap.sparse.safetensors", "trap.evil.pth", "trap.link.safetensors"


def _nested(depth: int) -> object:
    value: object = []
    for _ in range(depth):
        value = [value]
    return value


NUMBERS: list[object] = [
    *(0, 1, 2, 3, 7, 10**9, -1, 255, 256, 65536, 100_000, 2**31, 2**32, 2**63, 2**64, 10**26, 10**400, -(10**30)),
    *(0.0, -0.0, 0.5, 1.5, 1e-320, 1e-9, 1e9, 1e308, -1e308, 1e38, math.nan, math.inf, -math.inf),
    *(Raw("1" + "0" * 5000), Raw("1e400"), Raw("-0"), Raw("00"), Raw("1_000"), Raw("0x10")),
]
TEXTS: list[object] = [
    *(
        "",
        " ",
        "a",
        "0",
        "nan",
        "x" * 400,
        "x" * 100_000,
        "ä",
        "\U0001f600",
        "a,b",
        "a=b",
        "a: b",
        "-",
        "--out",
        "none",
    ),
    *("\x1b[2J\x1b]0;title\x07", "a\nb\rc", "\x00", "\u202eabc", "\u2028", "\x7f\x9b31m", "%s%n{0}{name!r}", "a/b"),
    *(
        "..",
        "../../..",
        "/",
        ".",
        "~",
        "$HOME",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
        "/dev/full",
        "/etc/passwd",
    ),
    *(PIPE, SPARSE, EVIL, LINK, f"./{PIPE}", f"./{EVIL}", "\\\\host\\share", "http://127.0.0.1:9/x", "owner/name"),
    *("{name}", "{split}", "{name}b{name}", "a{name}b{name}", "*", "**/*", "**", "[", "{", "{name", "../{name}.png"),
    *(".*.*.*.*.*X", "(a|a)*$", "(?i)a", "(.|.|.|\\\\)*X", "(?x)( . | . | . ) *X", "(", "(?P<name>a)", "a{1,99999}"),
    *("LoRA", "mit_b0", "vit_giant_patch14_dinov2", "Semantic", "scenes", "float64", "cuda", "cuda:99", "meta", "bf16"),
    *(
        "this.x",
        "antigravity.x",
        "unittest.__main__.x",
        "os.system",
        "bait",
        "bait.Logger",
        "builtins.exec",
        "a..b",
        ".",
    ),
    *("__class__", "__init__", "0,64", "1e308", "true", "null", "2001-01-01", "99:99", "1:2:3", "a" * 255 + ".png"),
]
SHAPES: list[object] = [
    *(
        None,
        True,
        False,
        [],
        {},
        [[]],
        [{}],
        {"": {}},
        [None],
        [[1, 2], [3]],
        {"name": None},
        {"name": "LoRA"},
        ["seg"],
    ),
    *(
        [["seg"]],
        [0] * 1000,
        list(range(100_000)),
        {f"k{i}": i for i in range(2000)},
        _nested(60),
        {"name": {"name": {}}},
    ),
    *(Raw("[" * 3000 + "]" * 3000), Raw('{"a":' * 3000 + "1" + "}" * 3000), Raw("[" * 100_000), Raw('"\\ud800"')),
    *({"checkpoint_path": EVIL}, {"pretrained_cfg": {"file": EVIL}}, {"pretrained_cfg_overlay": {"file": EVIL}}),
    *(
        {"depth": 100_000},
        {"embed_dim": 10**7},
        {"num_heads": 0},
        {"img_size": [0, 0]},
        {"patch_size": 0},
        {"depth": -1},
    ),
]


def _bomb(levels: int, width: int) -> str:
    text = "&b0 [" + ",".join(["l"] * width) + "]"
    for level in range(1, levels):
        text = f"&b{level} [{text}" + f",*b{level - 1}" * (width - 1) + "]"
    return text


YAML_ONLY: list[object] = [
    Raw(text)
    for text in (
        *("&a [*a]", "&a {a: *a}", "&a {<<: *a}", "*nowhere", _bomb(10, 9), "{a: " + _bomb(9, 9) + "}", _bomb(30, 2)),
        *(
            "!!timestamp 99",
            "!!timestamp 2001-99-99",
            "2001-01-01",
            "!!int ''",
            "!!float x",
            "!!bool maybe",
            "!!null x",
        ),
        *(
            "!!binary aGk=",
            "!!binary '*'",
            "!!set {a, b}",
            "!!omap [a: 1]",
            "!!pairs [a: 1]",
            "!!str 1",
            "!!seq {a: 1}",
        ),
        *("!!python/object/apply:os.system ['touch ran']", "!!python/name:os.system", "!x y", "!<tag:x> y", "!!map []"),
        *(
            "{? [a] : b}",
            "{a: 1, a: 2}",
            "{<<: 1}",
            "{<<: {a: 1}, b: 2}",
            "'unclosed",
            "|\n  text",
            "@x",
            "%x",
            "a: b: c",
        ),
        *(
            ".nan",
            "-.inf",
            "1e308",
            "0o17",
            "010",
            "1:30",
            "~",
            "yes",
            "=",
            "? x",
            "- a",
            "[a, b",
            "\tx",
            "\x07",
            "\ufeff",
        ),
        *("{[a]: b}", "{{a: b}: c}", "{1: a, true: b, null: c, 1.5: d}", "{.nan: a}", "[" * 900 + "]" * 900),
    )
]


def odd(draw: Random, former: object = None, *, yaml: bool = False) -> object:
    """A value to take the place of another one; of a number often another number. It is nobody else's."""
    return copy.deepcopy(_odd(draw, former, yaml))


def _odd(draw: Random, former: object, yaml: bool) -> object:
    if isinstance(former, int | float) and not isinstance(former, bool) and draw.random() < 0.6:
        return draw.choice(
            [
                *NUMBERS,
                former * 10,
                former + 1,
                former - 1,
                -former,
                former * 10**6,
                former / 3 if abs(former) < 2**64 else 0.5,
            ]
        )
    if isinstance(former, str) and draw.random() < 0.5:
        return draw.choice(
            [*TEXTS, former + "\x1b[31m", former * 2, former[:-1], former.upper(), former + ".." + former]
        )
    if isinstance(former, list) and former and draw.random() < 0.5:
        many = 10_000 if len(former) < 100 else 2  # what was made long once would else fill the memory
        return draw.choice([former * 2, former * many, former[:-1], former[::-1], [*former, former], [*former, None]])
    return draw.choice(draw.choice([NUMBERS, TEXTS, SHAPES, *([YAML_ONLY, YAML_ONLY] if yaml else [])]))
