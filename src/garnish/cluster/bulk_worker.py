"""``BulkWorker``: an actor of Ray Data that predicts blocks of pictures."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, final

from garnish.cluster.bulk_bench import Bench, BulkJob
from garnish.cluster.bulk_blocks import Block
from garnish.errors import GarnishError, one_line
from garnish.output import logger

#: Warnings of a block that are told.
_MOST_TOLD = 20


@final
class BulkWorker:
    """Takes blocks, writes maps and parts, answers what came of it.

    What garnish refuses is part of the answer and not an exception, which Ray would wrap in pages of its own.

    Args:
        job: what is to be done.
    """

    def __init__(self, job: BulkJob) -> None:
        self._bench: Bench | None = None
        self._refused = ""
        try:
            self._bench = Bench(job)
        except GarnishError as error:
            self._refused = str(error)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        """The answer to a block, as JSON text, both in a row of Ray Data.

        Args:
            row: ``block``: :meth:`garnish.cluster.bulk_blocks.Block.text`.

        Returns:
            ``answer``: JSON with ``parts``, each ``key``, ``text`` and ``again`` (whether it was there before);
            ``failed``, records of shards that could not be read; ``told``, warnings. Or ``refused``: why nothing was
            done.
        """
        if self._bench is None:
            return {"answer": json.dumps({"refused": self._refused})}
        told: list[str] = []
        try:
            with _heard(told):
                parts, failed = self._bench.predicted(Block.of(str(row["block"])))
        except GarnishError as error:
            return {"answer": json.dumps({"refused": str(error)})}
        plain = [{"key": key, "text": part.text(key), "again": again} for key, part, again in parts]
        answer = {"parts": plain, "failed": [record.plain() for record in failed], "told": told}
        return {"answer": json.dumps(answer)}


@contextlib.contextmanager
def _heard(told: list[str]) -> Iterator[None]:
    """Collect the warnings of garnish within a ``with`` block: nobody reads the output of a worker."""

    @final
    class Hearing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if len(told) < _MOST_TOLD:
                told.append(one_line(record.getMessage(), 400))

    handler = Hearing(logging.WARNING)
    log = logger("garnish")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
