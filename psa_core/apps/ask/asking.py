"""One question, answered twice: with dense attention and with PSA. Needs transformers and torchvision."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.generation.streamers import BaseStreamer

from ...hosts.transformers import family_of, patch
from ...ops.backends import BackendError
from ...settings.config import PSAConfig
from ...settings.errors import ConfigError
from .ask_settings import AskSettings
from .frames import Frames, read_frames

_LINE = "{:<8}{:>14}{:>10}{:>9}"
_HEAD = _LINE.format("", "first token", "answer", "tokens")


class Answer(NamedTuple):
    """An answer of a model.

    Attributes:
        tokens: their numbers.
        first: seconds to the first of them.
        seconds: to the last.
        line: what attention did.
    """

    tokens: list[int]
    first: float
    seconds: float
    line: str = ""


class _Clock(BaseStreamer):
    """Takes the time at the first token of an answer, behind the prompt, which comes first."""

    def __init__(self) -> None:
        self.began, self.first, self._puts = time.perf_counter(), 0.0, 0

    def put(self, value: torch.Tensor) -> None:
        self._puts += 1
        if self._puts == 2:
            self.first = time.perf_counter() - self.began

    def end(self) -> None:
        pass


def run_ask(settings: AskSettings) -> str:
    """Ask, and say what came of it.

    Raises:
        ConfigError: the video or the model cannot be read, the settings do not fit the model, or memory is short.
        BackendError: the backend that was asked for cannot run here.
    """
    _show(f"reading {settings.video}")
    frames = read_frames(settings.video, settings.frames)
    # Before its weights are read.
    config = settings.config(read_family(settings.model))
    _show(f"loading {settings.model}")
    model, processor = load(settings.model)
    with _refusing(settings.model, "cannot be asked that about this video"):
        inputs = _inputs(processor, frames, settings.question).to(model.device)
        patch(model, config, backend=settings.backend).restore()
    try:
        answers = _answers(model, inputs, settings, config)
    except torch.OutOfMemoryError:
        allowed = f"make {inputs['input_ids'].shape[1]:,} tokens, for which the GPU's memory is too small: take fewer"
        raise ConfigError("--frames", settings.frames, allowed) from None
    return _text(answers, processor, len(frames.pixels), inputs["input_ids"].shape[1])


def _answers(model: Any, inputs: Any, settings: AskSettings, config: PSAConfig) -> dict[str, Answer]:
    """Both answers, by the attention that they are of."""
    prompt = inputs["input_ids"].shape[1]
    answers = {}
    for name, attention in (("dense", None), ("PSA", config)):
        # What happens once, as kernels are compiled, is no part of either.
        _show(f"{prompt:,} tokens with {name} attention: once to warm up")
        _answer(model, inputs, 1, attention, settings.backend)
        _show(f"{prompt:,} tokens with {name} attention")
        answers[name] = _answer(model, inputs, settings.tokens, attention, settings.backend)
    return answers


def read_family(path: str) -> str:
    """The presets' name for a model.

    Raises:
        ConfigError: there is no model.
    """
    with _refusing(path, "does not load"):
        return family_of(AutoConfig.from_pretrained(path).get_text_config())


def load(path: str) -> tuple[Any, Any]:
    """A model that sees, on the GPU if there is one, and its processor.

    Raises:
        ConfigError: there is none, or it does not load.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with _refusing(path, "does not load"):
        processor = AutoProcessor.from_pretrained(path)
        model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype="auto")
    try:
        return model.to(device).eval(), processor
    except torch.OutOfMemoryError:
        raise ConfigError("--model", path, "the GPU does not hold the whole model") from None


@contextmanager
def _refusing(path: str, what: str) -> Iterator[None]:
    """Say of a model what transformers cannot do with it.

    Raises:
        ConfigError: it cannot.
    """
    try:
        yield
    except (ConfigError, BackendError):
        raise
    # A missing file, a damaged one, no network, a package that a model wants: each has errors of its own.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError("--model", path, f"{what}: {type(error).__name__}: {reason}") from error


def _inputs(processor: Any, frames: Frames, question: str) -> Any:
    """What the model takes: the video in front of the question, as a chat."""
    content = [{"type": "video"}, {"type": "text", "text": question}]
    chat = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    count = len(frames.pixels)
    about = {"fps": frames.rate, "total_num_frames": count, "frames_indices": list(range(count))}
    return processor(
        text=[text], videos=[frames.pixels], video_metadata=[about], do_sample_frames=False, return_tensors="pt"
    )


@torch.inference_mode()
def _answer(model: Any, inputs: Any, tokens: int, config: Any, backend: str) -> Answer:
    with nullcontext() if config is None else patch(model, config, backend=backend) as handle:
        clock = _Clock()
        out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, streamer=clock)
        seconds = time.perf_counter() - clock.began
    line = "" if handle is None else handle.report.line()
    return Answer(out[0, inputs["input_ids"].shape[1] :].tolist(), clock.first, seconds, line)


def _text(answers: dict[str, Answer], processor: Any, frames: int, prompt: int) -> str:
    lines = [f"{frames} frames, {prompt:,} tokens in the prompt", "", _HEAD]
    for name, answer in answers.items():
        times = f"{answer.first:.2f} s", f"{answer.seconds:.2f} s"
        lines.append(_LINE.format(name, *times, len(answer.tokens)))
    dense, sparse = answers["dense"], answers["PSA"]
    lines += ["", f"first token {dense.first / sparse.first:.2f}x as fast; {_agreement(dense.tokens, sparse.tokens)}"]
    lines += [sparse.line, ""]
    lines += [f"{name}: {processor.decode(x.tokens, skip_special_tokens=True).strip()}" for name, x in answers.items()]
    return "\n".join(lines)


def _agreement(dense: list[int], sparse: list[int]) -> str:
    if dense == sparse:
        return "the answers agree"
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(dense, sparse, strict=False))))
    return f"the answers differ from token {same + 1} on"


def _show(what: str) -> None:
    print(f"psa: {what}", file=sys.stderr, flush=True)
