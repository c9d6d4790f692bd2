"""What a run of the benchmark has measured so far, case by case, from which the next one goes on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ...settings.errors import ConfigError
from .jobs import Job
from .results import Machine, Results, Row

log = logging.getLogger(__name__)

_ENDING = ".unfinished.json"


class Unfinished:
    """The rows of a run that may be cut off, in a file beside that of its results.

    A case is kept when all of it is measured: its ratios are to the dense backend beside it. Rows of another machine,
    of other software or of other code are not gone on from.

    Attributes:
        file: where they are.
        rows: of all cases that are done.
    """

    def __init__(self, results_file: Path, machine: Machine, dense: str) -> None:
        self.file = results_file.with_suffix(_ENDING)
        self.rows: list[Row] = []
        self._machine, self._dense = machine, dense
        with suppress(OSError, ConfigError):
            found = Results.load(self.file)
            if found.machine.measures_like(machine):
                self.rows = list(found.rows)
                log.warning("going on from %s; without it all cases are measured anew", self.file)

    def rows_of(self, job: Job) -> list[Row]:
        """Those of a job; none where it is not done."""
        wanted = job.part, job.case.name, job.case.tokens
        return [row for row in self.rows if (row.part, row.case, row.tokens) == wanted]

    def add(self, rows: Sequence[Row]) -> None:
        """Keep the rows of a job, on disk too."""
        self.rows += rows
        self.results().save(self.file)

    def results(self) -> Results:
        """What there is so far."""
        return Results(self._machine, self._dense, self.rows)

    def remove(self) -> None:
        """Remove the file, as the run is finished."""
        self.file.unlink(missing_ok=True)


def is_unfinished(file: Path) -> bool:
    """Whether a file of results is one of a run that was cut off."""
    return file.name.endswith(_ENDING)
