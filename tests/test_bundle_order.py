"""Which replicas a bundle prefers: even, little moved when some come and go, and spread where it is asked for often."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from scipy import stats

from garnish.serving.bundle_order import choices, preferred, rendezvous

NAMES = [f"bundle-{number}" for number in range(5000)]


def replicas(count: int) -> list[str]:
    return [f"r{number:03}" for number in range(count)]


@pytest.mark.parametrize("count", [2, 7, 16])
def test_bundles_are_even_over_replicas_at_every_place(count):
    orders = [rendezvous(name, replicas(count)) for name in NAMES]
    for place in (0, 1, count - 1):
        counts = Counter(order[place] for order in orders)
        assert len(counts) == count and stats.chisquare(list(counts.values())).pvalue > 1e-3
    pairs = Counter(tuple(order[:2]) for order in orders)  # who takes over is even, too
    assert stats.chisquare(list(pairs.values())).pvalue > 1e-3 and len(pairs) == count * (count - 1)


def test_only_the_bundles_of_a_replica_that_leaves_move_and_each_to_its_next():
    there = replicas(8)
    gone = there[3]
    for name in NAMES:
        before, after = rendezvous(name, there), rendezvous(name, [one for one in there if one != gone])
        assert after == [one for one in before if one != gone]
    moved = sum(rendezvous(name, there)[0] != rendezvous(name, [*there, "another"])[0] for name in NAMES)
    assert stats.binomtest(moved, len(NAMES), 1 / 9).pvalue > 1e-3


def test_the_order_does_not_depend_on_who_asks():
    shuffled = replicas(9)
    random.Random(0).shuffle(shuffled)
    assert rendezvous("street", shuffled) == rendezvous("street", replicas(9)) == preferred(["street"], shuffled)


def test_several_bundles_go_where_all_are_near_to_home():
    there = replicas(6)
    for names in (["a", "b"], ["a", "b", "c"], ["c", "a"]):
        order = preferred(names, there)
        sums = [sum(rendezvous(name, there).index(one) for name in names) for one in order]
        assert sorted(order) == there and sums == sorted(sums)


def test_a_bundle_spreads_when_it_is_asked_for_often():
    there, cap = replicas(4), 3
    order = rendezvous("hot", there)
    waiting = dict.fromkeys(there, 0)
    taken = []
    for _ in range(16):
        group = choices(["hot"], waiting, cap)[0]
        one = min(group, key=waiting.__getitem__)
        waiting[one] += 1
        taken.append(one)
    assert taken[:12] == [one for one in order for _ in range(cap)]  # each up to the cap, in the bundle's order
    assert max(waiting.values()) == 4 and sorted(taken[12:]) == there  # beyond it evenly


def test_what_is_full_is_tried_last_and_what_names_nothing_goes_anywhere():
    waiting = {"a": 5, "b": 0, "c": 7}
    for name in NAMES[:20]:
        first, rest = choices([name], waiting, 5)
        assert first == ["b"] and sorted(rest) == ["a", "c"]
    assert choices([], waiting, 5) == [["a", "b", "c"]] and choices([], {}, 5) == [] == choices(["x"], {}, 5)
