"""Which replicas answer a bundle's requests, and in which order: rendezvous hashing, with a cap on what waits at each.

Each (bundle, replica) has a hash; a bundle's replicas are those of the largest. So all who ask agree without talking,
a bundle is warm in few places, and a replica that leaves takes only its own bundles with it. A replica at which as many
requests are as the cap is passed over, so that a bundle that is asked for often spreads over the next ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence


def rendezvous(bundle: str, replicas: Collection[str]) -> list[str]:
    """The replicas in the order in which a bundle prefers them.

    Args:
        bundle: its name.
        replicas: their names, in any order, which the result does not depend on.
    """

    def score(replica: str) -> tuple[bytes, str]:
        return hashlib.blake2b(f"{bundle}/{replica}".encode(), digest_size=8).digest(), replica

    return sorted(replicas, key=score, reverse=True)


def preferred(bundles: Sequence[str], replicas: Collection[str]) -> list[str]:
    """The replicas in the order in which a request prefers them, of several bundles those that all of them prefer.

    A picture that several bundles are asked of goes through one trunk once, so one replica answers all of them: the one
    with the least sum of their places, of equal ones that of the first bundle's order.
    """
    orders = [rendezvous(bundle, replicas) for bundle in bundles]
    sums = {replica: sum(order.index(replica) for order in orders) for replica in replicas}
    return sorted(orders[0] if orders else replicas, key=lambda replica: sums[replica])


def choices(bundles: Sequence[str], waiting: Mapping[str, int], cap: int) -> list[list[str]]:
    """Groups of replicas in the order to be tried; of a group the one takes a request at which the fewest are.

    Args:
        bundles: that the request names; none: every replica does as well.
        waiting: replica → how many requests are there, of any bundle.
        cap: a replica with so many is passed over while there is one with fewer.
    """
    if not bundles:
        return [list(waiting)] if waiting else []
    order = preferred(bundles, waiting)
    full = [replica for replica in order if waiting[replica] >= cap]
    return [[replica] for replica in order if waiting[replica] < cap] + ([full] if full else [])
