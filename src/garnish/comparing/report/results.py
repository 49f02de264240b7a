"""The schema of results.json: dataclasses whose fields are its entries, in order.

A field whose default is None is left out of the file if it is None; every other entry is always present.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

from garnish.comparing.arms import Role, Trunk
from garnish.comparing.typed_json import from_json
from garnish.errors import OptionError

#: [step, score] of each evaluation on the held-out part.
Curve = tuple[tuple[int, float | None], ...]
#: Ends of a 95 % interval.
Interval = tuple[float, float]
Status = Literal["done", "failed", "unfinished"]


@final
@dataclass(frozen=True, kw_only=True)
class Spread:
    """A metric's values over several seeds.

    Attributes:
        mean: of the finite values; None if there are none, as for ``least`` and ``most``.
        least: minimum.
        most: maximum.
        values: one per seed, None if not finite; left out for metrics of a class.
    """

    mean: float | None
    least: float | None
    most: float | None
    values: tuple[float | None, ...] | None = None


@final
@dataclass(frozen=True, kw_only=True)
class DeltaM:
    """Δm in per cent: its spread over seeds, and its interval over test pictures."""

    mean: float | None
    least: float | None
    most: float | None
    values: tuple[float | None, ...]
    interval: Interval | None


@final
@dataclass(frozen=True, kw_only=True)
class Gap:
    """The gap recovered between the frozen trunk and full fine-tuning; ``void``: why it is not defined."""

    mean: float | None
    values: tuple[float | None, ...]
    interval: Interval | None
    void: str | None


@final
@dataclass(frozen=True, kw_only=True)
class Difference:
    """A headline metric minus that of full fine-tuning, in its own unit."""

    mean: float
    interval: Interval | None


@final
@dataclass(frozen=True, kw_only=True)
class Choice:
    """The rate chosen for one model; ``flat`` None: unknown whether the budget was enough."""

    rate: float | None
    rate_at_edge: bool
    flat: bool | None


@final
@dataclass(frozen=True, kw_only=True)
class SearchRun:
    """A run of the search over learning rates; ``task`` is set if an arm has one model per task."""

    task: str | None
    rate: float
    score: float | None
    curve: Curve
    status: Status
    reason: str | None


@final
@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """A run of one seed at the chosen rate."""

    seed: int
    task: str | None
    curve: Curve
    best_step: int | None
    seconds: float | None
    status: Status
    reason: str | None


@final
@dataclass(frozen=True, kw_only=True)
class MethodUsed:
    """A method with all its options."""

    name: str
    options: Mapping[str, object]


@final
@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """The results of one arm; missing figures are None, missing tasks and classes are absent."""

    name: str
    role: Role
    status: Status
    reason: str | None
    methods: tuple[MethodUsed, ...]
    trunk: Trunk
    rate: float | None
    rate_at_edge: bool
    flat: bool | None
    by_task: Mapping[str, Choice] | None = None
    cached: bool
    search: tuple[SearchRun, ...]
    runs: tuple[SeedRun, ...]
    metrics: Mapping[str, Mapping[str, Spread]]
    per_class: Mapping[str, Mapping[str, Spread]]
    delta_m: DeltaM | None
    gap: Mapping[str, Gap]
    difference: Mapping[str, Difference]
    wall_seconds: float | None
    dominated: bool
    encoder_total: int | None
    encoder_trainable: int | None
    decoder_trainable: int | None
    bundle_bytes: int | None
    macs: int | None
    bytes_for_backward: int | None
    step_seconds: float | None
    step_ratio: float | None

    @property
    def delta(self) -> float | None:
        """Mean Δm over seeds; None if it is missing."""
        return None if self.delta_m is None else self.delta_m.mean

    @property
    def delta_interval(self) -> Interval | None:
        """The interval of Δm."""
        return None if self.delta_m is None else self.delta_m.interval

    @property
    def by_model(self) -> Mapping[str, Choice]:
        """Task → the choice for its model; empty if all tasks share one model."""
        return self.by_task or {}


@final
@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """A task: its Python class, headline metric, unit, and label classes if any."""

    task: str
    headline: str
    higher_is_better: bool
    unit: str
    classes: tuple[str, ...] | None


@final
@dataclass(frozen=True, kw_only=True)
class Environment:
    """Versions and hardware that ran the comparison, without the machine's name."""

    python: str
    torch: str
    timm: str
    garnish: str
    platform: str
    processor: str
    threads: int
    device: str


@final
@dataclass(frozen=True, kw_only=True)
class BackboneLicence:
    """The trunk's weights and their licence."""

    name: str
    licence: str
    non_commercial: bool
    weights: str


@final
@dataclass(frozen=True, kw_only=True)
class Licences:
    """Licences of the trunk's weights and of the pictures."""

    backbone: BackboneLicence
    data: str | None


@final
@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The training and evaluation settings of all arms; ``head`` and ``augment`` in the form of a recipe."""

    steps: int
    batch_size: int
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    reference_rates: tuple[float, ...]
    widen: int
    head_rate: float
    weight_decay: float
    schedule: str
    precision: str
    held_out: str
    train_pictures: int
    held_out_pictures: int
    test_pictures: int
    eval_size: tuple[int, int] | None
    head: Mapping[str, object]
    augment: Mapping[str, object] | None
    variants: int | None
    resamples: int


@final
@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A test picture with every arm's prediction: arm → headline metric, and arm, picture or target → its file."""

    kind: str
    task: str
    picture: str
    values: Mapping[str, float]
    cells: Mapping[str, str]


@final
@dataclass(frozen=True, kw_only=True)
class Results:
    """The content of results.json, for finished and unfinished comparisons."""

    format: Literal[1] = 1
    title: str
    status: Literal["done", "unfinished"]
    command: str
    created: str
    wall_seconds: float
    environment: Environment
    licences: Licences
    protocol: Protocol
    tasks: Mapping[str, TaskFacts]
    arms: tuple[ArmResult, ...]
    sheets: tuple[Sheet, ...]
    notes: tuple[str, ...]


def read_results(data: object, where: str = "results.json") -> Results:
    """Results from the parsed content of a results.json.

    Raises:
        OptionError: data that do not follow the schema, naming the entry; of another format.
    """
    # first of all, for what else a newer form holds is unknown
    if isinstance(data, Mapping) and type(found := data.get("format")) is int and found != 1:
        raise OptionError(f"{where}: has format {found}, this garnish reads 1; install the newer one")
    return from_json(Results, data, where)
