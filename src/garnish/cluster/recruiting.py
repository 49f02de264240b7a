"""Making the crew of a cluster: connect, ask every node what it lacks, say how many runs there is room for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType

from garnish.cluster.connecting import connected
from garnish.cluster.ray_crew import RayCrew, last_line
from garnish.cluster.room_for_runs import Node, alive, most_of, per_run
from garnish.cluster.shared_folder import Needs, lacks, shown_to_nodes
from garnish.comparing.conditions import Conditions
from garnish.comparing.job_queue import Crew, Say
from garnish.errors import OptionError, one_line, plural

#: Seconds within which a node must answer.
_ANSWER = 120.0


def on_ray(
    on: str, *, jobs: int | None, cpus: int | None, gpus: float | None
) -> Callable[[Conditions, Say], contextlib.AbstractContextManager[Crew]]:
    """What makes a crew of a cluster, for ``compare``.

    Args:
        on: the cluster, as ``--on`` takes it.
        jobs: largest number of runs at once; None: what the nodes hold.
        cpus: of each run, and its threads; None: see :func:`per_run`.
        gpus: of each run, or a part of one; None: one if there are any.

    Returns:
        A function of conditions and of what prints a line. Its context manager raises OptionError if the cluster cannot
        be reached, or a node lacks something or does not see the folder of the runs.
    """

    @contextlib.contextmanager
    def crew(conditions: Conditions, say: Say) -> Iterator[Crew]:
        with connected(on) as ray, shown_to_nodes(conditions.store.folder) as needs:
            nodes = alive(ray)
            each = per_run(nodes, jobs=jobs, cpus=cpus, gpus=gpus, accelerator=conditions.recipe.options.accelerator)
            usable = [node for node in nodes if each.fit_on(node)]
            if not usable and on == "ray":
                raise OptionError(f"--on ray: no run fits, each with {each}; this machine has {most_of(nodes)}")
            _check_nodes(ray, usable, needs)
            held = sum(each.fit_on(node) for node in usable)
            room = f"{plural(len(usable), 'node')}, room for {plural(held, 'run')} at once"
            say(f"--on {on}: {room}, each with {each}")
            with RayCrew(ray, conditions, needs, each, jobs, say) as made:
                yield made

    return crew


def _check_nodes(ray: ModuleType, nodes: list[Node], needs: Needs) -> None:
    """Have every node say what it lacks.

    Raises:
        OptionError: what the first one lacks, or that it does not answer.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = ray.remote(lacks)
    refs = {}
    for node in nodes:
        pinned = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        ref = asked.options(num_cpus=0, max_retries=0, scheduling_strategy=pinned).remote(needs)
        refs[ref] = one_line(node.get("NodeManagerAddress", node["NodeID"]), 60)
    late = ray.wait(list(refs), num_returns=len(refs), timeout=_ANSWER)[1] if refs else []
    for ref, name in refs.items():
        if ref in late:
            raise OptionError(f"--on: node {name} did not answer within {_ANSWER:.0f} s; look at it, or take it out")
        try:
            lacking = ray.get(ref)
        except ray.exceptions.RayError as error:
            raise OptionError(
                f"--on: node {name} cannot run garnish ({last_line(error)}); install the same version there"
            ) from None
        if lacking:
            raise OptionError(f"--on: {lacking} ({name})")
