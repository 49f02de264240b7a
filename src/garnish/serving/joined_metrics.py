"""The metrics of several servers as one text, each sample with the name of the server that it is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families


@final
class _Together:
    """Families of several texts, with one label more."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        found: dict[str, Metric] = {}
        for replica, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                into = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    into.add_sample(sample.name, {**sample.labels, "replica": replica}, sample.value)
        return found.values()


def joined_metrics(texts: Mapping[str, str]) -> bytes:
    """One text in the format of Prometheus.

    Args:
        texts: replica → its metrics, in the same format.
    """
    registry = CollectorRegistry()
    registry.register(_Together(texts))
    return generate_latest(registry)
