"""The card of a bundle on the Hub, README.md: made of what ``bundle.json`` says, and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from garnish.bundles.bundle_json import BundleFacts
from garnish.errors import plural
from garnish.registry import SpecFacts
from garnish.sharing.card_facts import MeasuredHow, base_model, described_tasks, plain_metrics, protocol_of
from garnish.sharing.front_matter import front_matter
from garnish.sharing.licences import StatedLicence
from garnish.sharing.markdown import code, table_lines
from garnish.tasks.task import Task

#: Classes of a task that a card names.
_MOST_CLASSES = 60


def card_text(
    facts: BundleFacts,
    repository: str,
    licence: StatedLicence,
    base: str | None = None,
    data_name: str | None = None,
) -> str:
    """The card.

    Args:
        facts: the bundle's description.
        repository: ``user/name``, whose card it is.
        licence: of what is pushed, of the trunk's weights and of the data.
        base: the trunk's Hub id; None: as the bundle says, if that is one.
        data_name: of the pictures; None: as the recipe says.
    """
    base = base_model(facts) if base is None else base
    tasks, protocol = described_tasks(facts), protocol_of(facts, data_name)
    parts = [
        _beginning(facts, repository, base),
        _used(facts, repository, base),
        _told_tasks(facts, tasks),
        _measured(facts, tasks, protocol),
        _trained(facts),
        _licences(licence),
        _limits(facts),
    ]
    body = "\n\n".join("\n".join(part) for part in parts if part)
    return f"{front_matter(facts, repository, licence, base, tasks, protocol)}\n{body}\n"


def _beginning(facts: BundleFacts, repository: str, base: str | None) -> list[str]:
    sizes = facts["sizes"]
    trained = sizes["encoder_parameters"] + sizes["decoder_parameters"]
    count = plural(len(facts["tasks"]), "dense task")
    return [
        f"# {repository.partition('/')[2]}",
        "",
        f"{count[0].upper()}{count[1:]} of pictures from one pass of one frozen vision backbone: adapters and heads"
        f" that were trained with `garnish`, {trained:,} parameters, {sizes['weights_bytes'] / 1e6:.2f} MB. The"
        f" backbone's own weights are not in this repository; {_found(facts, base)}",
    ]


def _found(facts: BundleFacts, base: str | None) -> str:
    """How the trunk's weights are found."""
    trunk = facts["backbone"]
    if trunk["weights_source"] == "bundled":
        return f"those of {code(trunk['name'])} come with `garnish`."
    if base is not None and base == base_model(facts):
        return f"those of {code(trunk['name'])} are fetched from {code(base)} when the bundle is loaded."
    where = "a file of who trained it" if base is None else code(base)
    return (
        f"it belongs to {code(trunk['name'])} with the weights of {where}, which you pass as `weights=`;"
        f" they must have the fingerprint {code(trunk['fingerprint'])}."
    )


def _used(facts: BundleFacts, repository: str, base: str | None) -> list[str]:
    own = facts["backbone"]["weights_source"] == "bundled" or (base is not None and base == base_model(facts))
    file = base or "backbone.safetensors"
    argument, option = ("", "") if own else (f', weights="{file}"', f" --weights {file}")
    name = repository.partition("/")[2]
    return [
        "## How to use it",
        "",
        "```python",
        "import garnish as gn",
        "",
        f'model = gn.load("hub:{repository}"{argument})',
        'maps = model.predict("street.jpg")  # every task, one pass, the picture\'s own size',
        'maps.save("maps.png")',
        "```",
        "",
        "```",
        f"garnish predict hub:{repository} street.jpg --out maps{option}",
        f"garnish serve {name}=hub:{repository}{option}",
        f"garnish info hub:{repository}",
        "```",
        "",
        f"`hub:{repository}@COMMIT` names one state of it for good.",
    ]


def _told_tasks(facts: BundleFacts, tasks: Mapping[str, Task]) -> list[str]:
    rows = []
    for name, told in facts["tasks"].items():
        labels = str(len(told["labels"])) if told["labels"] else "–"
        tag = tasks[name].pipeline_tag
        rows.append([code(name), code(told["name"]), labels, code(told["head"]["name"]), "–" if tag is None else tag])
    lines = ["## Tasks", "", *table_lines(["task", "kind", "classes", "head", "on the Hub"], rows)]
    for name, told in facts["tasks"].items():
        if listing := told["labels"]:
            left = len(listing) - _MOST_CLASSES
            more = f" and {left} more, in `bundle.json`" if left > 0 else ""
            listed = ", ".join(code(label, 60) for label in listing[:_MOST_CLASSES])
            lines += ["", f"Classes of {code(name)}, in the order of their ids: {listed}{more}."]
    return lines


def _measured(facts: BundleFacts, tasks: Mapping[str, Task], protocol: MeasuredHow) -> list[str]:
    rounding = facts.get("metrics_rounding", {})
    rows, of_classes = [], 0
    for name, task in tasks.items():
        values = plain_metrics(facts, name)
        of_classes += sum("/" in metric for metric in facts["metrics"].get(name, {}))
        for metric in sorted(values, key=lambda metric: metric != task.headline):
            change = rounding.get(name, {}).get(metric)
            better = ("↑" if task.higher_is_better else "↓") if metric == task.headline else ""
            rows.append(
                [
                    code(name),
                    f"{code(metric)} {better}".strip(),
                    f"{values[metric]:.4g}",
                    "–" if change is None else f"{change:+.2g}",
                ]
            )
    lines = ["## Measured", ""]
    if not rows:
        return [*lines, "The bundle holds no metrics. Measure it: `garnish eval`."]
    lines += table_lines(["task", "metric", "value", f"of which by storing as {facts['dtype']}"], rows)
    lines += ["", "An arrow marks the metric by which the task is judged, and where better lies."]
    if of_classes:
        lines[-1] += f" {of_classes} values of single classes are in `bundle.json`."
    if protocol.data is None and not protocol.lines:
        return [*lines, "", "How they were measured the bundle does not say: whoever saved it gave these values."]
    where = "data that it does not name" if protocol.data is None else code(protocol.data)
    if not protocol.lines:
        return [*lines, "", f"Measured on {where}, as who pushed it says; how, the bundle does not say."]
    lines += [
        "",
        f"As `{protocol.by}` measured them on the split {code(protocol.split)} of {where}, by which its best step was"
        " chosen, so a little too good:",
        "",
    ]
    return [*lines, *(f"- {name}: {said.format(code(value))}" for name, said, value in protocol.lines)]


def _trained(facts: BundleFacts) -> list[str]:
    sizes, trunk = facts["sizes"], facts["backbone"]
    lines = ["## What was trained", ""]
    for owner in facts["owners"]:
        owned = ", ".join(code(task) for task in owner["tasks"])
        lines += [f"- {owned}: {', '.join(_spec(method) for method in owner['methods'])}"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(facts["versions"].items()))
    return [
        *lines,
        f"- trained in the backbone: {sizes['encoder_parameters']:,} parameters; in heads:"
        f" {sizes['decoder_parameters']:,}; {sizes['weights_bytes']:,} bytes as {facts['dtype']}",
        f"- backbone: {code(trunk['name'])}, fingerprint {code(trunk['fingerprint'])}",
        f"- written by {code(versions, 200)}",
    ]


def _spec(told: SpecFacts) -> str:
    options = ", ".join(f"{key}={value}" for key, value in told["options"].items())
    return code(f"{told['name']}({options})", 200)


def _licences(licence: StatedLicence) -> list[str]:
    lines = ["## Licences", ""]
    if licence.non_commercial:
        lines += [
            f"**Not for commercial use**: the licence of {licence.because} forbids it, which binds what was trained"
            " on them.",
            "",
        ]
    lines += [
        f"- this bundle: {code(licence.text)}",
        f"- the backbone's weights: {code(licence.trunk, 200)}",
        f"- the training pictures: {code(licence.data, 200) if licence.data is not None else 'not stated, so unknown'}",
    ]
    if licence.same_terms:
        lines += ["", "One of these asks that what is made from it carries the same terms: read it before you pass on."]
    return lines


def _limits(facts: BundleFacts) -> list[str]:
    tasks: Sequence[str] = list(facts["tasks"])
    return [
        "## Limits",
        "",
        "- Pictures unlike those of the training give maps that look sure and are wrong; measure on yours first.",
        "- Metrics and licences are what the writer of the bundle says; `garnish eval` measures again.",
        f"- It knows {', '.join(code(task, 60) for task in tasks)} alone; another task can be trained beside"
        " (`garnish train --onto`).",
    ]
