"""Asking all readers of labels what some files are, and choosing among their guesses."""

from __future__ import annotations

from dataclasses import replace

from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.labels.choosing import readers

#: Guesses below it are asked; so are two of which one is not surer than the other by more than :data:`_NEAR`.
SURE, _NEAR = 0.5, 0.1


def judged(evidence: LabelEvidence) -> Guess | None:
    """The surest guess of all readers, None where none of them knows the files.

    Where two of different tasks are about as sure, the first is given with a question and less sure than :data:`SURE`.
    """
    found = [guess for cls in readers().values() if (guess := cls.guess(evidence)) is not None]
    if not found:
        return None
    found.sort(key=lambda guess: -guess.sure)
    first = found[0]
    near = [g for g in found[1:] if g.task != first.task and first.sure - g.sure < _NEAR and g.sure >= SURE]
    if first.sure < SURE or not near:
        return first
    other = near[0]
    question = (
        f"either {first.task} ({first.why}) or {other.task} ({other.why}); write `task: {first.task}` or `task:"
        f" {other.task}`"
    )
    return replace(first, sure=SURE - 0.05, question=question)
