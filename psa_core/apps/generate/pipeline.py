"""A diffusers pipeline from a folder or the Hub: what can be wrong with it is found before its weights are loaded."""

from __future__ import annotations

import json
import logging
import re
import textwrap
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as hub_log

from ...models.tiny_video import model as tiny_video
from ...ops.backends import choose_backend_for
from ...settings.errors import ConfigError
from .video_settings import GenerateSettings, lora_file

_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
_LONGEST_LINE = 200
_EXPERTS = ("transformer", "transformer_2")


def load_pipeline(settings: GenerateSettings) -> Any:
    """The pipeline of these settings, with its LoRA, on the GPU if there is one.

    Raises:
        ConfigError: weights or LoRA are missing, are not this model's or do not load, or the GPU cannot hold them.
        BackendError: the backend that was asked for cannot run here.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if settings.cpu_offload and device.type == "cpu":
        raise ConfigError("--cpu-offload", True, "needs a GPU, and torch sees none here")
    if settings.facts.bundled:
        _check_backend(settings, tiny_video.WEIGHTS, device)
        pipeline = tiny_video.load_pipeline(dtypes(settings, device)["default"])
    else:
        folder = _folder(settings)
        _check_folder(settings, folder)
        _check_backend(settings, folder, device)
        pipeline = _from_folder(settings, folder, device)
    _shift_flow(pipeline, settings.flow_shift)
    if settings.lora is not None:
        _load_lora(pipeline, settings.lora)
    _place(pipeline, settings.cpu_offload, device)
    return pipeline


def dtypes(settings: GenerateSettings, device: torch.device) -> dict[str, torch.dtype]:
    """The dtype of each part of the pipeline, by its name; ``"default"`` is that of all others."""
    if device.type == "cpu":
        return {"default": torch.float32}
    return {"default": getattr(torch, settings.facts.dtype), "vae": getattr(torch, settings.facts.vae_dtype)}


def first_line(error: BaseException) -> str:
    """An error's kind and the first line of its message, in few words."""
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    return f"{kind}: {textwrap.shorten(lines[0], _LONGEST_LINE, placeholder=' ...')}" if lines else kind


def _folder(settings: GenerateSettings) -> Path:
    """The folder of the weights, downloaded when the path is a hub id."""
    path = Path(settings.path).expanduser()
    if path.is_dir():
        return path
    remedy = f"download weights with `hf download {settings.facts.hub_id}`, or pass a folder with them as --path"
    if not _HUB_ID.fullmatch(settings.path):
        raise ConfigError("--path", settings.path, f"there is no such folder; {remedy}")
    level = hub_log.get_verbosity()
    hub_log.set_verbosity(logging.CRITICAL)
    try:
        return Path(diffusers.DiffusionPipeline.download(settings.path))
    except Exception as error:
        # diffusers looks into its cache after that, and the cause says why it had to.
        why = first_line(error.__cause__ or error)
        what = f"is no folder here, and the Hub did not give it ({why}); {remedy}"
        raise ConfigError("--path", settings.path, what) from error
    finally:
        hub_log.set_verbosity(level)


def _check_folder(settings: GenerateSettings, folder: Path) -> None:
    """See that a folder holds a pipeline of the model's class, with a second expert where the model has one."""
    facts, path = settings.facts, settings.path
    index = _read_json(path, folder / "model_index.json", f"weights of {facts.hub_id} in diffusers format")
    if index.get("_class_name") != facts.pipeline:
        held = index.get("_class_name")
        raise ConfigError("--path", path, f"must hold a {facts.pipeline} for {settings.model}, and holds a {held}")
    experts = 2 if index.get("boundary_ratio") is not None else 1
    if experts != (1 if facts.guidance_2 is None else 2):
        raise ConfigError("--path", path, f"{settings.model} does not have {experts} expert{'s' * (experts > 1)}")


def _check_backend(settings: GenerateSettings, folder: Path, device: torch.device) -> None:
    """Ask a backend now that would refuse in the first denoising step."""
    if settings.config.type == "dense" or settings.backend != "triton":
        return
    config = _read_json(settings.path, folder / "transformer" / "config.json", "the transformer's settings")
    dtype = dtypes(settings, device)["default"]
    choose_backend_for(settings.backend, device, dtype, config.get("attention_head_dim", 0))


def _read_json(path: str, file: Path, what: str) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict):
        place = file.relative_to(file.parents[1])
        raise ConfigError("--path", path, f"must hold {what}, and {place} cannot be read")
    return document


def _from_folder(settings: GenerateSettings, folder: Path, device: torch.device) -> Any:
    kind = getattr(diffusers, settings.facts.pipeline)
    try:
        with warnings.catch_warnings():
            # Of the name torch_dtype, the only one that diffusers 0.35 knows.
            warnings.simplefilter("ignore", FutureWarning)
            return kind.from_pretrained(str(folder), torch_dtype=dtypes(settings, device), local_files_only=True)
    # A missing file, a damaged one, one of another model: each library underneath has errors of its own.
    except Exception as error:
        raise ConfigError("--path", settings.path, f"does not load: {first_line(error)}") from error


def _shift_flow(pipeline: Any, shift: float | None) -> None:
    if shift is None:
        return
    scheduler = pipeline.scheduler
    key = "flow_shift" if "flow_shift" in scheduler.config else "shift"
    pipeline.scheduler = type(scheduler).from_config(scheduler.config, **{key: shift})


def _load_lora(pipeline: Any, path: Path) -> None:
    """Load a LoRA; a model with two experts takes it into both."""
    file = lora_file(path)
    experts = [name for name in _EXPERTS if getattr(pipeline, name, None) is not None]
    try:
        for name in experts:
            into = {"load_into_transformer_2": True} if name == "transformer_2" else {}
            pipeline.load_lora_weights(str(file.parent), weight_name=file.name, local_files_only=True, **into)
    except Exception as error:
        raise ConfigError("--lora", str(path), f"does not load: {first_line(error)}") from error
    # Of a file without any key of the model diffusers warns, and goes on.
    if not all(getattr(getattr(pipeline, name), "peft_config", None) for name in experts):
        raise ConfigError("--lora", str(path), f"holds nothing for a {type(pipeline.transformer).__name__}")


def _place(pipeline: Any, offload: bool, device: torch.device) -> None:
    if offload:
        pipeline.enable_model_cpu_offload()
        pipeline.vae.enable_tiling()
        return
    try:
        pipeline.to(device)
    except torch.OutOfMemoryError:
        raise ConfigError("--cpu-offload", False, "the GPU does not hold the whole model; try it with") from None
