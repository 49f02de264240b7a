"""Expressions of PEFT folders: what they mean to ``re``, in bounded time, or a line that says what is not read.

Truth: Python's own ``re`` on small names, where it cannot run for long.
"""

from __future__ import annotations

import random
import re
import string
import warnings

import pytest

from garnish.bundles.peft.adapter_config import PeftConfig
from garnish.bundles.peft.module_settings import settings_of
from garnish.bundles.peft.name_patterns import MOST_CHARACTERS, NamePattern, UnreadPattern
from garnish.bundles.peft.pattern_nodes import MOST_STEPS, Name, TooMuchWork, Work
from garnish.errors import BundleError


def whole(pattern: NamePattern, name: str) -> bool:
    return pattern.is_whole(Name(name, Work()))


#: From PEFT's documentation and writers, and from folders that people publish.
REAL = [
    r".*language_model.*\.(up_proj|k_proj)",
    r"^(?!.*patch_embed).*\.(q|v)_proj$",
    "^(?!.*visual).*(?:o_proj|up_proj|v_proj|q_proj).*",
    r"model\.layers\.(1|2)\..*",
    r"model\.layers\.[0-3]\.(self_attn|mlp)\.(q_proj|k_proj)",
    r"^blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))$",
    r".*\.\bq_proj",
    ".*block.0.*(SelfAttention|DenseReluDense).(k|q|v|wo)$",
    r"(?:.*?(?:language|text).*?(?:attn|mlp).*?\.(?:q_proj))|(?:\bmodel\.layers\.[\d]{1,}(?!.*\.experts\.\d)\..*?proj)",
    r"(?:.*\.qkv|^patch_embed\.proj$)",
    "^" + re.escape("blocks.0.attn.qkv"),
]
NAMES = [
    *("blocks.0.attn.qkv", "blocks.11.mlp.fc1", "patch_embed.proj", "visual.patch_embed.q_proj", "q_proj"),
    *(
        "model.language_model.layers.1.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.2.mlp.experts.0.proj",
    ),
    *("model.layers.13.mlp.proj", "encoder.block.0.SelfAttention.q", "text.attn.q_proj", "blocks.0.attn.qkv2", ""),
]


@pytest.mark.parametrize("text", REAL)
def test_expressions_that_people_write(text):
    pattern = NamePattern.read(text)
    assert [whole(pattern, name) for name in NAMES] == [re.fullmatch(text, name) is not None for name in NAMES]


def test_what_peft_does_not_anchor_ends_behind_a_dot():
    for text, name, wanted in [
        ("fc1", "mlp.fc1", True),
        ("fc1", "mlp.xfc1", False),
        ("^fc1", "mlp.fc1", False),
        (".*c1", "mlp.xfc1", True),
        ("mlp.fc1", "blocks.mlpXfc1", True),
    ]:
        assert NamePattern.read(text).is_tail(Name(name, Work())) is wanted
        assert (re.match(rf"(.*\.)?({text})$", name) is not None) is wanted


def made_up(rng: random.Random, depth: int) -> str:
    """An expression of the part that is read."""

    def atom() -> str:
        drawn = rng.random()
        if drawn < 0.35:
            return rng.choice(["a", "b", "1", "_", r"\."])
        if drawn < 0.62:
            return rng.choice([".", "[ab]", "[^a]", "[a-b1]", r"[\d_]", r"\d", r"\w", r"[^.\w]", r"\W", r"\S"])
        if drawn < 0.68:
            return rng.choice(["^", "$", r"\b"])
        if depth == 0:
            return "a"
        return rng.choice(["(", "(?:", "(", "(?:", "(?=", "(?!"]) + made_up(rng, depth - 1) + ")"

    def piece() -> str:
        made = atom()
        if made in ("^", "$", r"\b") or made.startswith(("(?=", "(?!")) or rng.random() < 0.65:
            return made
        return made + rng.choice(["*", "+", "?", "{2}", "{1,3}", "{,2}", "{2,}", "{0}"]) + rng.choice(["", "", "?"])

    options = ["".join(piece() for _ in range(rng.randint(0, 4))) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    return "|".join(options)


def test_thousands_of_expressions_mean_what_they_mean_to_re():
    rng = random.Random(0)
    matched = 0
    for _ in range(1500):
        text = made_up(rng, 3)
        ours, theirs, tail = NamePattern.read(text), re.compile(text), re.compile(rf"(.*\.)?({text})$")
        for _ in range(8):
            name = "".join(rng.choice("ab.1_") for _ in range(rng.randint(0, 8)))
            wanted = theirs.fullmatch(name) is not None
            assert whole(ours, name) is wanted, (text, name)
            assert ours.is_tail(Name(name, Work())) is (tail.match(name) is not None), (text, name)
            matched += wanted
    assert matched > 500


def test_whatever_is_read_is_read_by_re_too():
    rng = random.Random(0)
    read = 0
    for _ in range(20_000):
        text = "".join(rng.choice("ab..()[]{}|*+?^$\\d,1-!:=&~w") for _ in range(rng.randint(0, 9)))
        try:
            ours = NamePattern.read(text)
        except UnreadPattern:
            continue
        read += 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            theirs = re.compile(text)
        for _ in range(3):
            name = "".join(rng.choice("ab.1-,") for _ in range(rng.randint(0, 6)))
            assert whole(ours, name) is (theirs.fullmatch(name) is not None), (text, name)
    assert read > 3000


#: They keep ``re``, or what would try from the other end, busy for ever on a name of some hundred letters.
GREEDY = [
    *(".*.*.*.*.*X", "X.*.*.*.*.*", r"(.|.|.|\\)*X", r"X(.|.|.|\\)*", "( . | . | . ) *X", "(a*)*b", "b((a*)*)*"),
    *("b(((((((((.*)*)*)*)*)*)*)*)*)*", "b(?:(?:(?:.{1,999}){1,999}){1,999}){1,999}", "b(?=(?=.*a.*).*b)(.*a)*"),
    *("b(aa?a?.*[a-z]*)*(?!(a|(?=a*a*a*)a)*)", "(" + "|".join(f"[ab{n}]" for n in range(1000)) + ")*X"),
]


@pytest.mark.parametrize("text", GREEDY)
def test_greedy_expressions_take_few_steps(text):
    work = Work()
    assert not NamePattern.read(text).is_whole(Name("a" * 500, work))
    assert MOST_STEPS - work.left < 20_000, "a step takes about a microsecond"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(?x)( . | . | . ) *X", "which is not read"),
        ("(?i)a", "holds (?i)a, which is not read"),
        (r"(a)\1", r"holds \1, which is not read"),
        ("(?P<x>a)", "holds (?P<x>a), which"),
        ("(?<=a)b", "holds (?<=a)b, which"),
        ("a++", "repeats with + what cannot"),
        ("*", "repeats with * what cannot"),
        ("^*", "repeats with * what cannot"),
        ("a{3,2}", "the wrong way round"),
        ("a{,}", "holds {,}, which"),
        ("[b-a]", "bad character range"),
        ("[a--b]", "holds [a--b], which"),
        ("[a", "holds [a, which"),
        ("[^]a]", "holds [^]: "),
        ("(", "opens a group that is not closed"),
        ("a)", "closes a group that was not opened"),
        ("(" * 21 + ")" * 21, "more than 20 deep"),
        ("(" * 5000, "more than 20 deep"),
        ("a" * (MOST_CHARACTERS + 1), "10,001 characters, more than 10,000"),
    ],
)
def test_what_is_not_read_is_said(text, said):
    with pytest.raises(UnreadPattern) as caught:
        NamePattern.read(text)
    assert said in str(caught.value) and len(str(caught.value)) < 200


def test_work_is_counted_over_the_names_and_expressions_of_a_folder():
    with pytest.raises(TooMuchWork):
        NamePattern.read("(a|.)*").is_whole(Name("a" * 400, Work(steps=500)))
    config = PeftConfig(target_modules=("x",), rank_pattern={f"{n}(.*a.*)*": 2 for n in range(2000)})
    names = [letter + "a" * 400 for letter in string.ascii_letters]
    with pytest.raises(BundleError, match=r"FILE: matching .* with 52 names takes more than 4,000,000 steps; write"):
        settings_of(config, names, "FILE")


def test_settings_of_modules_are_the_first_that_match():
    config = PeftConfig(
        r=4,
        lora_alpha=8.0,
        rank_pattern={"fc1": 2, ".*": 3},
        alpha_pattern={r"blocks\.1\..*": 5.0},
        target_modules=r".*\.(fc1|fc2)",
        exclude_modules=("blocks.2.fc2",),
    )
    found = settings_of(config, ["blocks.1.fc1", "blocks.2.fc2", "head"], "")
    assert [(one.rank, one.alpha, one.targeted) for one in found.values()] == [
        (2, 5.0, True),
        (3, 8.0, False),
        (3, 8.0, False),
    ]
    every = PeftConfig(target_modules="all-linear", exclude_modules=".*fc1")
    assert [one.targeted for one in settings_of(every, ["a.fc1", "a.fc2"], "").values()] == [False, True]
