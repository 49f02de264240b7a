"""What ``/metrics`` says, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

#: Stages of a request, as tickets name them.
STAGES = ("decode", "queue", "forward", "encode")
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64)


class BundleCounts(Protocol):
    """What a store of bundles counts."""

    @property
    def known(self) -> int:
        """Bundles that can be asked for."""

    @property
    def resident(self) -> int:
        """Of them in memory."""

    @property
    def nbytes(self) -> int:
        """Their bytes in memory."""

    @property
    def hits(self) -> int:
        """Uses of bundles that were in memory."""

    @property
    def misses(self) -> int:
        """Uses of bundles that had to be read."""

    @property
    def dropped(self) -> int:
        """Bundles that left memory for others."""

    @property
    def load_seconds_total(self) -> float:
        """Spent reading them."""


@final
class _Sampled:
    """Numbers that others keep, asked for when somebody looks."""

    def __init__(self, bundles: Callable[[], BundleCounts], queued: Callable[[], int]) -> None:
        self._bundles, self._queued = bundles, queued

    def collect(self) -> Iterable[Metric]:
        counts = self._bundles()
        yield GaugeMetricFamily("garnish_queue_length", "Rows that wait for a pass", self._queued())
        bundles = GaugeMetricFamily("garnish_bundles", "Bundles that are known, and in memory", labels=["state"])
        bundles.add_metric(["known"], counts.known)
        bundles.add_metric(["resident"], counts.resident)
        yield bundles
        yield GaugeMetricFamily("garnish_bundle_bytes", "Memory of the bundles in it", counts.nbytes)
        yield CounterMetricFamily("garnish_cache_hit", "Uses of bundles that were in memory", counts.hits)
        yield CounterMetricFamily("garnish_cache_miss", "Uses of bundles that were read from the disk", counts.misses)
        yield CounterMetricFamily("garnish_cache_dropped", "Bundles that left memory for others", counts.dropped)
        yield CounterMetricFamily("garnish_bundle_load_seconds", "Spent reading bundles", counts.load_seconds_total)


@final
class ServerMetrics:
    """Counts of one server. It observes passes, as :class:`garnish.serving.batcher.Batcher` tells them.

    Args:
        bundles: counts of the store, when somebody looks.
        queued: rows that wait, when somebody looks.
    """

    def __init__(self, bundles: Callable[[], BundleCounts], queued: Callable[[], int]) -> None:
        self._registry = at = CollectorRegistry()
        self._requests = Counter("garnish_request_count", "Requests answered", ["route", "status"], registry=at)
        self._seconds = Histogram(
            "garnish_request_duration_seconds", "From the first byte in to the last out", ["route"],
            registry=at, buckets=_SECONDS,
        )  # fmt: skip
        self._stages = Histogram(
            "garnish_stage_duration_seconds", "Parts of a prediction", ["stage"], registry=at, buckets=_SECONDS
        )
        self.running = Gauge("garnish_requests_running", "Requests that are being answered", registry=at)
        self._rows = Histogram("garnish_batch_size", "Rows of a pass", registry=at, buckets=_ROWS)
        self._passes = Histogram("garnish_batch_inference_seconds", "A pass", registry=at, buckets=_SECONDS)
        self._dropped = Counter("garnish_rows_dropped", "Rows that came to no pass", ["why"], registry=at)
        at.register(_Sampled(bundles, queued))

    def answered(self, route: str, status: int, seconds: float, timings: Mapping[str, float]) -> None:
        """A request has its answer; ``timings`` in milliseconds by stage."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        for stage in STAGES:
            if stage in timings:
                self._stages.labels(stage).observe(timings[stage] / 1000)

    def passed(self, rows: int, seconds: float) -> None:
        """A pass of so many rows has ended."""
        self._rows.observe(rows)
        self._passes.observe(seconds)

    def dropped(self, why: str) -> None:
        """A row, or a request, was dropped."""
        self._dropped.labels(why).inc()

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)
