"""What the options of a comparison stand for, and how the command says what is wrong, in one line."""

from __future__ import annotations

import math

import pytest

from comparing_cases import conditions, trained
from garnish.cli import main
from garnish.comparing.arms import adapters_of, arms_of
from garnish.comparing.compare_options import CompareOptions, read_options
from garnish.comparing.held_out_score import best_score, chosen_rate, curve_of, is_at_edge, is_flat, rate_beyond
from garnish.comparing.outcomes import Failed
from garnish.comparing.schedule import RunPlan
from garnish.errors import OptionError
from garnish.registry import options_of


def names(given, tasks=("seg", "depth"), own="LoRA", **options):
    return [arm.name for arm in arms_of(CompareOptions(adapters=given, **options), own, tasks)]


def test_arms_and_their_names():
    assert names("LoRA,LoRA(rank=2, layers=[qkv, fc1]), VMTAdapter", controls=("extras", "random")) == [
        "heads only",
        "full, one task each",
        "LoRA",
        "LoRA rank=2 layers=qkv,fc1",
        "VMTAdapter",
        "full, all tasks",
        "full from scratch",
        "extras alone",
        "LoRA, random trunk",
    ]
    assert "full, all tasks" not in names("LoRA", tasks=("seg",))
    assert names(["LoRA", {"name": "LoRA", "rank": 2}, ["LoRA", "NormTuning"]], references=()) == [
        "LoRA",
        "LoRA rank=2",
        "LoRA + NormTuning",
    ]
    assert names(None, references=(), own={"name": "LoRA", "rank": 3}) == ["LoRA rank=3"]


def test_arms_hold_their_methods_rates_and_models():
    options = CompareOptions(adapters="LoRA(rank=2),FullFineTuning+BitFit", rates=(3e-3, 1e-3), reference_rates=(1e-4,))
    arms = {arm.name: arm for arm in arms_of(options, None, ["seg", "depth"])}
    assert [arm.rates for arm in arms.values()] == [
        (1e-3, 3e-3),  # heads only
        (1e-4,),
        (1e-3, 3e-3),
        (1e-4,),  # whatever tunes the whole trunk has the references' rates
        (1e-4,),
        (1e-4,),
    ]
    assert arms["full, one task each"].groups == (("seg",), ("depth",))
    assert options_of(arms["LoRA rank=2"].methods[0])["rank"] == 2
    assert arms["full from scratch"].trunk == "random" and arms["full, all tasks"].trunk == "pretrained"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("LoRa", "unknown adapter 'LoRa'; did you mean 'LoRA'?"),
        ("LoRA(rang=2)", "unknown option 'rang'"),
        ("LoRA(rank=2", "no closing bracket"),
        ("LoRA(2)", "'2' sets nothing"),
        ("", "name methods, e.g."),
        (7, "name methods, e.g."),
        ([{"rank": 2}], "names no method"),
    ],
)
def test_adapters_that_are_none(given, said):
    with pytest.raises(OptionError) as fault:
        adapters_of(given)
    assert said in str(fault.value) and "\n" not in str(fault.value)


@pytest.mark.parametrize("given", ["LoRA,LoRA", "LoRA,LoRA(rank=8)", "FullFineTuning"])
def test_an_arm_stands_once(given):
    with pytest.raises(OptionError, match="is the same arm as"):
        names(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rates": [1e-3, 0]}, r"compare\.rates: expected a number above 0 to 1e\+30, got 0"),
        ({"reference_rates": [math.inf]}, r"compare\.reference_rates: expected a number above 0 to 1e\+30, got inf"),
        ({"rates": []}, r"compare\.rates: expected a list of a number above 0 to 1e\+30, 1 to 64 of them, got \[\]"),
        ({"seeds": 0}, r"compare\.seeds: expected a whole number from 1 to 10,000, got 0"),
        ({"held_out_every": 1}, r"compare\.held_out_every: expected a whole number from 2 .*, got 1"),
        ({"widen": -1}, r"compare\.widen: expected a whole number from 0 to 64, got -1"),
        ({"references": ["full"]}, "unknown reference 'full'"),
        ({"controls": ["noise"]}, "unknown control 'noise'"),
        ({"adaptors": "LoRA"}, "unknown option 'adaptors'"),
    ],
)
def test_options_out_of_range(given, said):
    with pytest.raises(OptionError, match=said):
        read_options(given, {})


def test_the_command_line_sets_options_of_the_section_anew():
    found = read_options({"adapters": ["LoRA"], "seeds": 5, "references": "frozen"}, {"seeds": 2})
    assert (found.seeds, found.adapters, found.references) == (2, ["LoRA"], ("frozen",))
    assert CompareOptions().rates == (3e-4, 1e-3, 3e-3, 1e-2)


def test_scores():
    scores = [(s, math.log(v)) for s, v in ((25, 0.5), (50, 0.6), (75, 0.62), (100, 0.625))]
    curve = curve_of(trained([*scores, (110, None)]), None)
    assert curve[1] == (50, pytest.approx(0.6)) and curve[-1] == (110, None)
    assert curve_of(None, None) == curve_of(Failed(reason="x"), None) == ()
    assert best_score(curve) == pytest.approx(0.625) and best_score([]) is None
    assert is_flat(curve[:-1], 100) is True, "0.8 % more"
    assert is_flat([*curve[:3], (100, 0.627)], 100) is False
    assert is_flat([*curve[:3], (100, 0.3)], 100) is True, "what falls is flat"
    assert is_flat([(100, 0.6)], 100) is None
    by = curve_of(trained([(1, -1.3), (4, -1.2)]), "depth.rmse:min")
    assert by == ((1, -1.3), (4, -1.2)) and is_flat(by, 4) is False
    assert chosen_rate({1e-3: 0.5, 3e-3: 0.5, 1e-2: None}) == 1e-3 and chosen_rate({1e-3: None}) is None
    assert is_at_edge(1e-3, (1e-3, 3e-3)) and not is_at_edge(1e-3, (1e-3,)) and not is_at_edge(3e-3, (1e-3, 3e-3, 1e-2))


def test_the_rate_beyond_an_end():
    grid = (3e-4, 1e-3, 3e-3, 1e-2)
    assert rate_beyond(1e-2, grid) == 0.03 and rate_beyond(0.03, (*grid, 0.03)) == 0.1
    assert rate_beyond(3e-4, grid) == 1e-4 and rate_beyond(1e-4, (1e-4, *grid)) == 3e-5
    assert rate_beyond(1e-3, (1e-3, 2e-3)) == 5e-4 and rate_beyond(2e-3, (1e-3, 2e-3)) == 4e-3
    assert rate_beyond(1e-3, grid) is rate_beyond(1e-3, (1e-3,)) is rate_beyond(None, grid) is None


@pytest.mark.parametrize(
    ("best", "widen", "tried", "at_edge"),
    [
        (1e-3, 2, [3e-4, 1e-3, 3e-3], False),
        (1.0, 0, [3e-4, 1e-3, 3e-3], True),
        (1.0, 2, [3e-4, 1e-3, 3e-3, 1e-2, 3e-2], True),
        (1e-2, 2, [3e-4, 1e-3, 3e-3, 1e-2, 3e-2], False),
        (1e-4, 3, [3e-5, 1e-4, 3e-4, 1e-3, 3e-3], False),
        (1e-9, 1, [1e-4, 3e-4, 1e-3, 3e-3], True),
    ],
)
def test_a_search_goes_on_beyond_an_end_that_is_best(tmp_path, mit_weights, best, widen, tried, at_edge):
    made = conditions(
        tmp_path / "report", mit_weights, references=["frozen"], rates=[3e-4, 1e-3, 3e-3], widen=widen, seeds=2
    )
    plan, done = RunPlan(made), []
    arm = made.arms["LoRA rank=2"]
    while jobs := [job for job in plan.jobs() if job.run.arm == arm.name and job.kind == "train"]:
        run = jobs[-1].run  # in any order: processes end as they like
        assert run.rate not in done or run.seed == 1
        done.append(run.rate)
        score = -abs(math.log10(run.rate / best))  # log of the score that is shown; a peak at ``best``
        plan.note(jobs[-1], trained([(4, None if run.rate > 0.05 else score)], run))
    (group,) = arm.groups
    assert [run.rate for run in plan.search(arm, group)] == tried == sorted(done[:-1])
    assert plan.runs_of(arm) == len(done) == len(tried) + 1
    assert is_at_edge(plan.rate(arm, group), tried) is at_edge and done[-1] == plan.rate(arm, group)


@pytest.fixture
def recipe(tmp_path, mit_weights):
    made = conditions(tmp_path / "report", mit_weights)
    from garnish.files.strict_yaml import write_yaml

    plain = dict(made.recipe.plain) | {"compare": {"adapters": ["LoRA"], "seeds": 1, "references": ["frozen"]}}
    file = tmp_path / "recipe.yaml"
    file.write_text(write_yaml(plain))
    return file


def fails(capsys, *words) -> str:
    assert main(["compare", *map(str, words)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("garnish: ") and err.count("\n") == 1, err
    return err


def test_errors_of_the_command_are_one_line(capsys, tmp_path, recipe):
    out = ("--out", tmp_path / "report")
    config = ("--config", recipe)
    assert "no recipe" in fails(capsys)
    assert "give --out" in fails(capsys, *config)
    assert "unknown adapter 'Lorra'" in fails(capsys, *config, *out, "--adapters", "Lorra")
    assert "compare.rates: expected a number above 0 to 1e" in fails(capsys, *config, *out, "--rates", "0,1e-3")
    assert "'fast' is no list of numbers" in fails(capsys, *config, *out, "--rates", "fast")
    assert "unknown reference 'full'" in fails(capsys, *config, *out, "--references", "full")
    assert "batch_size" in fails(capsys, *config, *out, "--train.batch_size", "auto")
    assert "patience" in fails(capsys, *config, *out, "--train.patience", 2)
    assert "unknown option '--adapter.rank'" in fails(capsys, *config, *out, "--adapter.rank", 2)
    assert "random" in fails(capsys, *config, *out, "--backbone.weights", "null")
    assert "head" in fails(capsys, *config, *out, "--head", "LinearHeed")
    assert not (tmp_path / "report").exists()


def test_data_without_a_split_test_are_refused(capsys, tmp_path, recipe):
    from test_cli import write_pictures

    write_pictures(tmp_path / "pictures", "train", 6)
    data = tmp_path / "data.yaml"
    data.write_text(
        f"path: {tmp_path}/pictures\nimages: images/{{split}}/*.png\n"
        "tasks: {seg: {task: Semantic, labels: 'ids/{split}/{name}.png', classes: [low, high]}}\n"
    )
    words = ("--config", recipe, "--data", data, "--tasks", "seg", "--out", tmp_path / "report")
    assert "needs a split test" in fails(capsys, *words)
    write_pictures(tmp_path / "pictures", "test", 2)
    assert "too few to hold out one in 7" in fails(capsys, *words, "--held-out-every", 7)
    assert main([*map(str, ("compare", *words, "--held-out-every", 3, "--dry-run"))]) == 0
    assert (
        "4 pictures to train on, 2 held out (one in 3 of the training pictures), 2 to test on"
        in capsys.readouterr().out
    )


def test_a_dry_run_lists_the_runs(capsys, tmp_path, recipe):
    words = ["compare", "--config", str(recipe), "--out", str(tmp_path / "report"), "--rates", "1e-3,3e-3", "--dry-run"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "to do   LoRA, seg+depth, rate 0.003, seed 0" in out
    assert "2 arms, 4 runs, up to 2 more if the best rate of a search is at an edge, 0 there" in out
    assert not (tmp_path / "report").exists()


def test_the_bundled_trunk_can_be_had_with_random_weights():
    import torch

    from garnish.recipes.backbone_choice import BackboneChoice

    choice = BackboneChoice(name="garnish_b0")
    state = torch.get_rng_state()
    one, same, other = (choice.build_random(seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    bundled = choice.build()
    assert one.weights_source == "random" and bundled.weights_source == "bundled"
    assert one.fingerprint() != bundled.fingerprint() and one.options == bundled.options
    assert {n: t.shape for n, t in one.frozen_tensors().items()} == {
        n: t.shape for n, t in bundled.frozen_tensors().items()
    }


def test_a_random_trunk_is_built_as_the_other_is():
    """All of the recipe's section acts: architecture, where maps are read, drop-path."""
    import tiny
    from garnish.recipes.backbone_choice import BackboneChoice

    name, options = tiny.BACKBONES["swin"][1:]
    choice = BackboneChoice(name=name, options=options, taps="merged", drop_path=0.2)
    whole, random = choice.build(), choice.build_random(0)
    for trunk in (whole, random):
        assert (trunk.options, trunk.taps_at, trunk.drop_path) == (dict(options), "merged", 0.2)
    assert random.features == whole.features
