"""The reports that a MODEL, which is cached and sampled again, keeps for the nodes behind the sampler."""

from __future__ import annotations

import threading

from comfy_execution.utils import get_executing_context

from ...report.report import Report


class LastPrompt:
    """Reports of the last prompt that sampled with one patch.

    A prompt may call several samplers on a MODEL, whose reports belong together. The next prompt that calls one takes
    their place; one that is answered from the cache leaves them, as it does the samples that they tell about.
    """

    def __init__(self) -> None:
        self._prompt: str | None = None
        self._reports: list[Report] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[LastPrompt], tuple[()]]:
        """Pickles leave the reports behind: what another process samples is another prompt."""
        return LastPrompt, ()

    @property
    def reports(self) -> list[Report]:
        """In the order in which the samplers ended."""
        with self._lock:
            return list(self._reports)

    def add(self, report: Report) -> None:
        """Keep the report of a sampler call that has ended."""
        context = get_executing_context()
        # Outside of a prompt nothing tells what belongs together, and the latest call stands alone.
        prompt = None if context is None else context.prompt_id
        with self._lock:
            if prompt is None or prompt != self._prompt:
                self._reports = []
            self._prompt = prompt
            self._reports.append(report)
