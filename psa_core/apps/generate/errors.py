"""The error of a run that did not make every video."""

from __future__ import annotations


class FailedPromptsError(RuntimeError):
    """Some prompts have failed; the message says how many videos there are, which failed and why."""
