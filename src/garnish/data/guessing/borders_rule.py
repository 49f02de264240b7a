"""Whether a folder of edges holds maps of ids, whose borders are the edges."""

from __future__ import annotations

from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.guessing.measuring import change_share, planes_of, smooth_share, thin_share
from garnish.errors import plural


def guessed_borders(evidence: LabelEvidence) -> Guess | None:
    """Edges between regions, None where the files hold lines, or are called anything but edges."""
    planes, levels, meaning = planes_of(evidence), evidence.levels, evidence.meaning
    if planes is None or levels is None or levels.values is None or meaning is None or meaning.task != "Edges":
        return None
    changes, thin = change_share(planes), thin_share([plane > 0 for plane in planes])
    if len(levels.values) < 3 or evidence.lossy or changes > 0.3 or thin > 0.5 or smooth_share(planes) > 0.6:
        return None
    why = f"{plural(len(levels.values), 'id')} in regions, {thin:.0%} of what is not 0 at borders: edges of ids"
    return Guess("Edges", meaning.name, {"from": "boundaries"}, 0.75, why)
