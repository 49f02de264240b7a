"""``benchmarks/machines/cost_model.py``: sums done by hand, dimensions, limits, and a cache that is counted."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks" / "machines"))
import cost_model  # noqa: E402
import scale_table  # noqa: E402
from cost_assumptions import Assumptions, NotMeasuredError, numbers  # noqa: E402
from cost_bulk import attempts, bulk, sweep  # noqa: E402
from cost_caches import counted_hits, hits, popularity, simulated_hits  # noqa: E402
from cost_fleet import fleet  # noqa: E402
from cost_measured import ADDED, METHODS, engines, measured  # noqa: E402
from cost_scenario import Scenario, plain, room  # noqa: E402

#: round numbers, so that every sum below can be done by hand
PAPER = Assumptions(
    pass_side=10, plain_pass=4, first_bundle=5, another_bundle=2, unshared=0.25, head=0.5, pass_price=0.01,
    decode_pixel=0.001, encode_pixel=0.002, cores_beside=2, picture_pixel=0.5, map_pixel=1,
    gets_picture=1, puts_map=1, puts_block=1, names_list=10, files_weights=3, get_price=0.001, put_price=0.01,
    byte_price=0.0001, request_wait=0.1, in_flight=2, gets_second=10, puts_second=5, network=1000,
    trunk_file=500, program_memory=100, bundle_file=20, bundle_memory=10, bundle_load=0.4,
    copy_file=600, copy_memory=1000, copy_load=3, memory=2105,
    sweep_start=7, sweep_run=2, bulk_start=6, bulk_picture=0.3, serve_request=0.1, run=60,
    request_fails=0, tries=3, block_lost=0, run_lost=0, run_again=0.5, busy=0.5,
)  # fmt: skip
#: 100 pictures of 10², 4 bundles asked of each, of 8
ASKED = Scenario(tenants=8, pictures=100, asked=4, tasks=3, side=10, devices=2, block=40, runs=5, rate=2.0, zipf=1.0)


@pytest.fixture
def paper() -> Assumptions:
    return PAPER


def value(rows, name):
    found = rows[name].value
    assert found is not None, rows[name].note
    return found


def test_bulk_with_bundles_is_the_sum_done_by_hand(paper):
    rows = bulk(paper, ASKED, "bundle")
    assert room(paper, "bundle") == 200  # (2105 - 100) / 10: all four in memory, so pictures are read once
    expected = {
        "trunk passes, by arithmetic": 100 * (1 + 3 * 0.25),
        "device time: passes and heads": 100 * (5 + 3 * 2 + 12 * 0.5),
        # 100 pixels a picture, 12 maps of each; two devices read eight bundles each
        "host time: reading, writing, loading": 100 * 100 * 0.001 + 1200 * 100 * 0.002 + 16 * 0.4,
        "the engine's time": 100 * 0.3 + 6,
        "bytes read": 100 * 100 * 0.5 + 16 * 20 + 2 * 500,
        "bytes written": 1200 * 100,
        "GET requests": 100 + 16 * 3 + 2,
        "PUT requests": 1200 + 3,  # three blocks of at most 40
        "LIST requests": 10,
        "requests given up": 0,
        "price of requests and bytes": 150 * 0.001 + 1213 * 0.01 + (6320 + 120_000) * 0.0001,
        "price of devices": 17.0,
        "weights on disk, all tenants": 8 * 20 + 500,
        "weights in memory, all tenants": 80,
        "of them in memory beside a device": 8,
        "time bound by cores": (1700 + 10 + 240 + 6.4 + 30) / 2 + 6,
        "time bound by network": 126_320 / 2000,
        "time bound by store: rate": 1213 / 5,
        "time bound by store: latency": 1363 * 0.1 / 4,
        "what binds": (1700 + 10 + 240 + 6.4 + 30) / 2 + 6,
    }
    assert {name: one.value for name, one in rows.items()} == pytest.approx(expected)
    assert rows["what binds"].note == "cores"


def test_bulk_with_copies_reads_pictures_as_often_as_memory_holds_too_few(paper):
    rows = bulk(paper, ASKED, "copy")
    assert room(paper, "copy") == 2
    assert value(rows, "trunk passes, by arithmetic") == 400
    assert value(rows, "device time: passes and heads") == pytest.approx(100 * (4 * 4 + 12 * 0.5))
    assert value(rows, "GET requests") == 2 * 100 + 16 * 3 + 2
    assert value(rows, "bytes read") == pytest.approx(2 * 100 * 100 * 0.5 + 16 * 600 + 2 * 500)
    assert value(rows, "weights on disk, all tenants") == 8 * 600
    assert value(rows, "of them in memory beside a device") == 2


def test_bundles_beyond_the_memory_take_another_round(paper):
    rows = bulk(paper.given(memory=139), ASKED, "bundle")  # room for three of the four
    assert value(rows, "trunk passes, by arithmetic") == 100 * (2 + 2 * 0.25)
    assert value(rows, "device time: passes and heads") == pytest.approx(100 * (2 * 5 + 2 * 2 + 12 * 0.5))
    assert value(rows, "GET requests") == 2 * 100 + 16 * 3 + 2


def test_each_assumption_of_the_store_counts_where_it_says(paper):
    few = dataclasses.replace(ASKED, pictures=2)  # two pictures want eight bundles at most, not sixteen
    rows = bulk(paper.given(gets_picture=5, puts_map=6, puts_block=7, files_weights=9), few, "bundle")
    assert value(rows, "GET requests") == 2 * 5 + 8 * 9 + 2
    assert value(rows, "PUT requests") == 2 * 12 * 6 + 7
    assert value(rows, "LIST requests") == 1


def test_times_grow_with_pixels(paper):
    rows = bulk(paper, dataclasses.replace(ASKED, side=20), "bundle")
    assert value(rows, "device time: passes and heads") == pytest.approx(4 * 1700)
    assert value(rows, "host time: reading, writing, loading") == pytest.approx(4 * 250 + 6.4)
    assert value(rows, "bytes written") == 4 * 120_000


def test_what_fails_is_done_again(paper):
    a = paper.given(request_fails=0.5, block_lost=0.2)
    assert attempts(a) == 1 + 0.5 + 0.25  # of three tries the second is needed by a half, the third by a quarter
    rows, before = bulk(a, ASKED, "bundle"), bulk(paper, ASKED, "bundle")
    assert value(rows, "device time: passes and heads") == pytest.approx(1.25 * 1700)
    assert value(rows, "PUT requests") == pytest.approx(1.75 * 1.25 * 1203)
    assert value(rows, "requests given up") == pytest.approx((1.25 * (100 + 1203) + 50 + 10) / 8)
    assert value(before, "requests given up") == 0


def test_an_accelerator_works_beside_its_cores(paper):
    rows = bulk(dataclasses.replace(paper, device="accelerator"), ASKED, "bundle")
    assert value(rows, "time bound by devices") == 850
    assert value(rows, "time bound by cores beside them") == pytest.approx(286.4 / 4 + 6)
    slow = dataclasses.replace(paper.given(network=1), device="accelerator")
    assert bulk(slow, ASKED, "bundle")["what binds"].note == "network"


def test_a_sweep_is_the_sum_done_by_hand(paper):
    rows = sweep(paper.given(run_lost=0.1), ASKED)  # each run takes 60 (1 + 0.1 · 0.5) = 63
    assert {name: one.value for name, one in rows.items()} == pytest.approx(
        {
            "device time of the runs alone": 300,
            "done again": 15,
            "the engine's time": 17,
            "without the engine": 3 * 63,  # five runs on two devices
            "with it": 3 * 65 + 7,
            "share of devices' time that runs use": 300 / (2 * 202),
        }
    )


def test_a_fleet_is_the_sum_done_by_hand(paper):
    rows = fleet(paper, ASKED, "bundle", 0.0)
    each = 5 + 3 * 0.5 + 100 * (0.001 + 3 * 0.002) + 0.1  # all eight in memory
    assert value(rows, "a request, waiting left out") == pytest.approx(each)
    assert value(rows, "devices") == math.ceil(2 * each / 0.5)
    assert value(rows, "cold loads a second") == 0
    # one device holds two of eight copies, with uniform traffic a quarter; as many devices as it takes hold all
    rows = fleet(paper, ASKED, "copy", 0.0)
    assert value(rows, "hits of a device that gets all names") == pytest.approx(0.25)
    assert value(rows, "hits, each name at one device") == 1
    few = dataclasses.replace(ASKED, rate=0.1)  # 0.1 · (4 + 1.5 + 0.8 + load) / 0.5: two devices hold four of eight
    rows = fleet(paper, few, "copy", 0.0)
    assert value(rows, "devices") == 2
    assert value(rows, "a request, waiting left out") == pytest.approx(6.3 + 0.5 * 3)
    assert value(rows, "memory of all of them") == 2 * 100 + 4 * 1000


def test_a_fleet_of_accelerators_is_bound_by_the_slower_of_both(paper):
    a = dataclasses.replace(paper, device="accelerator")
    assert value(fleet(a, ASKED, "bundle", 0.0), "a request, waiting left out") == 6.5  # the cores need 0.8 / 2
    slow = dataclasses.replace(paper.given(serve_request=19.3), device="accelerator")
    assert value(fleet(slow, ASKED, "bundle", 0.0), "a request, waiting left out") == pytest.approx((0.7 + 19.3) / 2)


def test_passes_are_those_that_the_page_of_benchmarks_tells():
    """Its column of 16 tasks over one, in one pass, that others drew from the same runs."""
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8").partition("## One pass")[2]
    told = {"heads": "heads only", "side": "side tuning a task", "lora-last": "LoRA a task, in stage 3",
            "lora-middle": "LoRA a task, from stage 2", "lora-first": "LoRA a task, from block 0"}  # fmt: skip
    for method, name in told.items():
        time, macs = re.search(rf"^\| {name} \|(?:[^|]*\|){{3}} ([\d.]+) \| ([\d.]+) \|", page, re.MULTILINE).groups()
        a = measured(method)
        assert (a.first_bundle + 15 * a.another_bundle) / a.first_bundle == pytest.approx(float(time), rel=0.02), method
        assert 1 + 15 * a.unshared == pytest.approx(float(macs), abs=0.006), method
    assert measured("heads").plain_pass == measured("heads").first_bundle


def dimension(unit: str, scale: dict[str, float]) -> float:
    """What a number of a unit is multiplied by where its base units are."""
    over, _, under = unit.partition("/")
    return scale[over] / (scale[under] if under else 1.0)


@pytest.mark.parametrize("base", ["s", "B", "$"])
@pytest.mark.parametrize("device", ["cpu", "accelerator"])
def test_every_sum_keeps_its_dimension(paper, base, device):
    """With minutes for seconds every time, rate and price must follow its unit; what adds seconds to bytes does not."""
    scale = {"s": 1.0, "B": 1.0, "$": 1.0, "1": 1.0} | {base: 60.0}
    a = dataclasses.replace(paper.given(request_fails=0.1, block_lost=0.1, run_lost=0.1, memory=1500), device=device)
    other = a.given(**{n.name: getattr(a, n.name) * dimension(n.metadata["unit"], scale) for n in numbers()})
    s = dataclasses.replace(ASKED, rate=0.3)
    slower = dataclasses.replace(s, rate=s.rate / scale["s"])
    pairs = [(sweep(a, s), sweep(other, slower))]
    for kind in ("bundle", "copy"):
        pairs += [(bulk(a, s, kind), bulk(other, slower, kind))]
        pairs += [(fleet(a, s, kind, exponent), fleet(other, slower, kind, exponent)) for exponent in (0.0, 1.0)]
    for before, after in pairs:
        for name, one in before.items():
            assert after[name].value == pytest.approx(one.value * dimension(one.unit, scale)), name


def test_a_single_tenant_gains_no_pass():
    for method in METHODS:
        a = filled(measured(method))
        one = dataclasses.replace(Scenario(), tenants=1)
        shared, alone = bulk(a, one, "bundle"), bulk(a, one, "copy")
        assert value(shared, cost_model.COUNTED) == value(alone, cost_model.COUNTED) == pytest.approx(1e8 / 0.999)
        # and adapters are never free: what the first bundle costs beside the bare pass is all the difference
        more = value(shared, cost_model.TIMED) - value(alone, cost_model.TIMED)
        assert more == pytest.approx(1e8 / 0.999 * (a.first_bundle - a.plain_pass))


def test_adapters_from_the_first_block_share_no_pass_and_heads_share_all():
    s = dataclasses.replace(Scenario(), asked=16)
    passes = {m: value(bulk(filled(measured(m)), s, "bundle"), cost_model.COUNTED) * 0.999 / 1e8 for m in METHODS}
    assert passes["heads"] == pytest.approx(1) and passes["lora-first"] == pytest.approx(16, rel=0.01)
    assert 1 < passes["side"] < passes["lora-last"] < passes["lora-middle"] < 16


def test_without_overheads_only_the_trunk_is_left(paper):
    nothing = ["head", "decode_pixel", "encode_pixel", "bundle_load", "bulk_start", "bulk_picture", "serve_request"]
    a = paper.given(**dict.fromkeys([*nothing, "sweep_start", "sweep_run"], 0.0), busy=1)
    s = dataclasses.replace(ASKED, asked=1, runs=6)
    assert value(bulk(a, s, "bundle"), "time bound by cores") == 100 * 5 / 2
    assert value(sweep(a, s), "share of devices' time that runs use") == 1
    assert value(fleet(a, s, "bundle", 1.0), "devices") == 2 * 5


@pytest.mark.parametrize("what", ["pictures", "asked", "tasks", "side"])
@pytest.mark.parametrize("kind", ["bundle", "copy"])
def test_more_to_do_is_never_less_work(paper, what, kind):
    small = bulk(paper, ASKED, kind)
    large = bulk(paper, dataclasses.replace(ASKED, **{what: 2 * getattr(ASKED, what)}), kind)
    for name in (
        "device time: passes and heads",
        "host time: reading, writing, loading",
        "bytes written",
        "what binds",
    ):
        assert value(large, name) > value(small, name), name
    for name in (cost_model.COUNTED, "bytes read", "GET requests", "PUT requests"):
        assert value(large, name) >= value(small, name), name


def test_more_devices_are_never_slower_and_more_memory_never_reads_more(paper):
    times = [value(bulk(paper, dataclasses.replace(ASKED, devices=n), "copy"), "what binds") for n in (1, 2, 4, 8)]
    assert times == sorted(times, reverse=True)
    read = [value(bulk(paper.given(memory=m), ASKED, "copy"), "bytes read") for m in (1100, 2100, 4100, 9000)]
    assert read == sorted(read, reverse=True) and read[0] > read[-1]
    found = [value(fleet(paper.given(memory=m), ASKED, "copy", 1.0), "hits of a device that gets all names")
             for m in (1100, 2100, 4100, 9000)]  # fmt: skip
    assert found == sorted(found) and found[-1] == 1


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.3])
@pytest.mark.parametrize("room_for", [10, 100, 500])
def test_the_approximation_is_what_a_cache_counts(exponent, room_for):
    shares = popularity(1000, exponent)
    counted = simulated_hits(shares, room_for, 25_000, seed=room_for)
    assert hits(shares, room_for) == pytest.approx(counted, abs=0.01)


def test_of_a_uniform_draw_the_share_is_the_room():
    for room_for in (0, 1, 37, 99, 100, 500):
        assert hits(popularity(100, 0.0), room_for) == pytest.approx(min(1.0, room_for / 100))


def test_the_counted_cache_drops_what_was_not_used_for_longest():
    # by hand, room for two: a miss, b miss, a hit, c miss (drops b), b miss (drops a), c hit
    assert counted_hits("abacbc", 2) == pytest.approx(2 / 6)
    assert counted_hits("abacbc", 2, after=3) == pytest.approx(1 / 3)
    assert counted_hits(range(50), 10) == 0


def test_the_approximation_is_near_what_a_server_counted():
    """The fleet of benchmarks/serving: 60 requests a row, so that chance alone spreads them; three deviations."""
    found = json.loads((ROOT / "benchmarks" / "serving" / "results_fleet.json").read_text("utf-8"))["traffic"]
    for kind, exponent in (("uniform", 0.0), ("zipf", 1.0)):
        for bound, one in found[kind].items():
            said = hits(popularity(1000, exponent), int(bound))
            assert abs(said - one["hits"]) <= 3 * math.sqrt(said * (1 - said) / 60) + 1e-3, (kind, bound)


def test_what_nobody_measured_is_said_and_not_guessed(paper):
    a = paper.given(copy_load=None, bulk_picture=None)
    rows = bulk(a, ASKED, "copy")
    assert rows["host time: reading, writing, loading"].note == "not measured: copy_load"
    assert rows["the engine's time"].value is None and rows["time bound by cores"].value is None
    assert "cores" in rows["what binds"].note.partition("not measured: ")[2]
    assert bulk(a, ASKED, "bundle")["time bound by cores"].note == "without the engine's time"
    with pytest.raises(NotMeasuredError, match="copy_load"):
        a.need("copy_load")


def test_every_number_has_a_unit_a_meaning_and_a_source():
    for device in ("cpu", "accelerator"):
        a = measured(device=device)
        for one in numbers():
            assert one.metadata["meaning"] and dimension(one.metadata["unit"], {"s": 1, "B": 1, "$": 1, "1": 1}) == 1
            source = a.source(one.name)
            start = "not " if getattr(a, one.name) is None else r"(measured|counted|assumed): "
            assert re.match(start, source), (one.name, source)
            # what was measured names a page that exists, and the command
            for page in re.findall(r"docs/[\w/]+\.md", source):
                assert (ROOT / page).exists(), source
            assert not source.startswith("measured") or "; " in source, source
    assert measured(device="accelerator").plain_pass is None


def test_what_engines_add_is_read_where_it_was_measured(tmp_path):
    assert engines(tmp_path)[0] == {} and set(engines(tmp_path)[1]) == set(ADDED)
    runs = {"predict": [{"whole": 100.0}, {"whole": 104.0}], "on ray": [{"whole": 120.0, "start": 8.0}]}
    (tmp_path / "bulk.json").write_text(json.dumps({"pictures": 200, "runs": runs}))
    (tmp_path / "sweep.json").write_text(json.dumps({"adds": 3}))
    added = {"plain": {"p50": 20.0}, "serve": {"p50": 19.5}, "added": {"p50": -0.5}}
    (tmp_path / "serve_latency.json").write_text(json.dumps({"milliseconds": {"predict": added}}))
    rows, why = engines(tmp_path)
    assert {name: seconds for name, (seconds, _) in rows.items()} == pytest.approx(
        {"bulk_start": 8, "bulk_picture": (120 - 8 - 102) / 200, "serve_request": 0}
    )
    assert rows["serve_request"][1].endswith("serve_latency.py; a difference of -0.0005 s, taken for none")
    assert set(why) == {"sweep_start", "sweep_run"} and "sweep.json has not what is looked for" in why["sweep_run"]


def test_a_report_comes_back_from_json(paper, capsys):
    found = cost_model.report(paper, ASKED, [1, 4])
    read = json.loads(json.dumps(found))
    again = Assumptions.from_json(read["assumptions"])
    assert again == paper and again.to_json() == found["assumptions"]
    asked = read["scenario"].pop("asked")
    assert cost_model.report(again, Scenario(**read["scenario"]), asked) == found
    assert cost_model.main(["--json", "--pictures", "1000", "--asked", "1", "3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    a, s = Assumptions.from_json(printed["assumptions"]), Scenario(pictures=1000, asked=3)
    assert printed["bulk"]["3"]["copy"] == plain(bulk(a, s, "copy"))
    assert set(printed["sharing"]) == set(METHODS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tenants", "0"], "tenants: 0 cannot be; it is at least 1"),
        (["--tenants", "2", "--asked", "3"], "asked: 3 bundles of a picture, but there are 2 tenants"),
        (["--rate", "0"], "rate: 0 cannot be; it is above 0"),
        (["--rate", "inf"], "rate: inf is no finite number"),
        (["--zipf", "-1"], "zipf: -1 cannot be"),
        (["--pictures", "99999999999999999"], "pictures: 1e+17 cannot be; it is at least 1 and at most 1e+15"),
        (["--method", "LoRA"], "method: 'LoRA' is unknown; it is one of heads,"),
        (["--device", "tpu"], "device: 'tpu' is unknown; it is one of cpu, accelerator"),
        (["--set", "memory"], "--set: 'memory' is not NAME=NUMBER"),
        (["--set", "memory=lots"], "--set: 'memory=lots' is not NAME=NUMBER"),
        (["--set", "memroy=1"], "'memroy' is no assumption; they are pass_side,"),
        (["--set", "request_fails=1"], "request_fails: 1 cannot be; it is at least 0 and at most 0.999"),
        (["--set", "network=nan"], "network: nan is no finite number"),
        (["--set", "memory=1", "--set", "bundle_memory=5"], "memory: 1 B hold the program"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(words, said, capsys):
    assert cost_model.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"cost_model: {said}") and err.count("\n") == 1
    assert len(err) < 1000


def test_tables_are_plain_text(capsys):
    assert cost_model.main(["--asked", "1", "1000", "--simulate", "2000", "--set", "bundle_memory=3e6"]) == 0
    out = capsys.readouterr().out
    assert "BULK, 1,000 asked of each picture" in out and "SERVING, 100 requests a second, uniform" in out
    assert "up to 16 in one pass were measured; beyond it the line is drawn on" in out
    assert cost_model.main(["--assumptions"]) == 0
    listed = capsys.readouterr().out
    for one in numbers():
        assert f"\n{one.name} = " in f"\n{listed}"


def test_the_page_says_what_was_measured():
    page = scale_table.PAGE.read_text("utf-8")
    assert scale_table.filled(page) == page, "run python benchmarks/machines/scale_table.py"
    spoilt = page
    for name in scale_table.BLOCKS:  # what stands in a block comes from nowhere else
        spoilt = spoilt.replace(scale_table.begin(name), f"{scale_table.begin(name)}{name} ")
    assert spoilt.count("-->\nfleet ") == 1 and scale_table.filled(spoilt) == page
    for one in numbers():
        assert f"| `{one.name}` | {one.metadata['meaning']} |" in page
    with pytest.raises(ValueError, match="end of weights"):
        scale_table.filled(page.replace(scale_table.end("weights"), ""))


def filled(a: Assumptions) -> Assumptions:
    """With some value where nothing was measured."""
    return a.given(**{n.name: getattr(PAPER, n.name) for n in numbers() if getattr(a, n.name) is None})
