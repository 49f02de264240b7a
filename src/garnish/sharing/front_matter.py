"""The front matter of a card: YAML that the Hub files a model by, written by huggingface_hub itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from garnish.bundles.bundle_json import BundleFacts
from garnish.errors import one_line, showable
from garnish.sharing.card_facts import MeasuredHow, quality_metrics
from garnish.sharing.licences import StatedLicence
from garnish.tasks.task import Task

#: Which kind a bundle of several tasks is filed under; others follow in the order of the tasks.
_FOREMOST = ("image-segmentation", "depth-estimation")
#: Said of a data set that the bundle does not name; the Hub's list of results wants a name.
_UNNAMED = "not stated"


def front_matter(
    facts: BundleFacts,
    repository: str,
    licence: StatedLicence,
    base: str | None,
    tasks: Mapping[str, Task],
    protocol: MeasuredHow,
) -> str:
    """Licence, library, backbone, tags and results between two lines of dashes.

    Args:
        facts: the bundle's description.
        repository: ``user/name``.
        licence: of the bundle.
        base: the trunk's Hub id; None: it has none.
        tasks: by name.
        protocol: how metrics were measured.
    """
    from huggingface_hub import EvalResult, ModelCardData

    data = one_line(protocol.data or _UNNAMED, 100)
    results = [
        EvalResult(
            task_type=task.pipeline_tag or "image-to-image",
            task_name=name,
            dataset_type=data,
            dataset_name=data,
            dataset_split=protocol.split,
            # results of one kind, data set and subset are listed as one, under the first one's name
            dataset_config=name if len(tasks) > 1 else None,
            metric_type=one_line(metric, 60),
            metric_name=f"{name} {one_line(metric, 60)}",
            metric_value=round(value, 6),
        )
        for name, task in tasks.items()
        for metric, value in quality_metrics(facts, name, task).items()
    ]
    found = dict.fromkeys(tag for task in tasks.values() if (tag := task.pipeline_tag) is not None)
    pipelines = sorted(found, key=lambda tag: _FOREMOST.index(tag) if tag in _FOREMOST else len(_FOREMOST))
    methods = dict.fromkeys(method["name"].lower() for owner in facts["owners"] for method in owner["methods"])
    kinds = dict.fromkeys(told["name"].lower() for told in facts["tasks"].values())
    tags = [
        "garnish",
        "dense-prediction",
        "adapter",
        "parameter-efficient-fine-tuning",
        *methods,
        *kinds,
        *pipelines[1:],
    ]
    if len(tasks) > 1:
        tags.append("multi-task")
    options: dict[str, Any] = {} if base is None else {"base_model_relation": "adapter"}
    card = ModelCardData(
        license=licence.identifier,
        license_name=licence.name,
        library_name="garnish",
        base_model=base,
        pipeline_tag=pipelines[0] if pipelines else None,
        tags=[showable(tag) for tag in tags],
        model_name=repository.partition("/")[2] if results else None,
        eval_results=results or None,
        **options,
    )
    return f"---\n{card.to_yaml().strip()}\n---\n"
