"""How often a bundle is in memory when it is asked for, of a cache that drops the least recently used.

Che's approximation (Che, Tung and Wang, "Hierarchical Web caching systems: modeling, design and experimental results",
IEEE JSAC 20(7), 2002): a name leaves the cache when nobody asked for it for a time T, the same for all names, at which
as many names as there is room for have been asked for. Requests are independent of each other.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from cost_assumptions import check

#: More than any room takes; a few dozen where almost every name has room.
STEPS = 1000


def popularity(names: int, exponent: float) -> list[float]:
    """Shares of the requests, the most popular name first: Zipf's law, 1/rank^exponent; 0 is uniform.

    Raises:
        ImpossibleError: no name, or a negative exponent.
    """
    check("tenants", names, least=1)
    check("zipf", exponent, most=10)
    weights = [rank**-exponent for rank in range(1, names + 1)]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def hits(shares: Sequence[float], room: int) -> float:
    """Share of requests that find their name among the ``room`` that were asked for last, by Che's approximation.

    Raises:
        ImpossibleError: negative room.
    """
    check("room", room)
    if room == 0:
        return 0.0
    if room >= len(shares):
        return 1.0

    # names that were asked for within a time grow ever more slowly with it, so Newton's steps come from below and never
    # go beyond the time at which they are as many as there is room for
    time = 0.0
    for _ in range(STEPS):
        held = math.fsum(-math.expm1(-share * time) for share in shares)
        step = (room - held) / math.fsum(share * math.exp(-share * time) for share in shares)
        time += step
        if step <= 1e-9 * time:
            break
    return math.fsum(-share * math.expm1(-share * time) for share in shares)


def simulated_hits(shares: Sequence[float], room: int, requests: int, seed: int) -> float:
    """The same share, counted: so many requests are drawn, after as many that fill the cache."""
    drawn = random.Random(seed).choices(range(len(shares)), shares, k=2 * requests)
    return counted_hits(drawn, room, after=requests)


def counted_hits(asked: Iterable[int], room: int, after: int = 0) -> float:
    """Share of names that were among the ``room`` last used; the first ``after`` requests fill the cache alone."""
    cache: OrderedDict[int, None] = OrderedDict()
    found = counted = 0
    for number, name in enumerate(asked):
        hit = name in cache
        cache[name] = None
        cache.move_to_end(name)
        if len(cache) > room:
            cache.popitem(last=False)
        if number >= after:
            counted += 1
            found += hit
    return found / counted if counted else 0.0
