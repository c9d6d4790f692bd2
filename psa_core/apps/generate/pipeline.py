"""A diffusers pipeline from a folder or the Hub: what can be wrong with it is found before its weights are loaded."""

from __future__ import annotations

import json
import logging
import re
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as hub_log
from huggingface_hub import snapshot_download

from ...hosts.diffusers.sharing import share_heads, sharing_refusal
from ...models.tiny_video import model as tiny_video
from ...ops.backends import choose_backend_for
from ...settings.errors import ConfigError
from .choose_model import INDEX, MODULAR_INDEX
from .loras import EXPERTS, Lora
from .modular import load_modular, parts_of
from .video_settings import GenerateSettings

_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
_LONGEST_LINE = 200


def load_pipeline(settings: GenerateSettings) -> Any:
    """The pipeline of these settings, with its LoRA, on the GPU if there is one.

    Raises:
        ConfigError: weights or LoRA are missing, are not this model's or do not load, or the GPU cannot hold them.
        BackendError: the backend that was asked for cannot run here.
    """
    folder, device = check_model(settings), _device()
    if settings.facts.bundled:
        pipeline = tiny_video.load_pipeline(dtypes(settings, device)["default"])
    else:
        pipeline = _from_folder(settings, folder, device)
    _shift_flow(pipeline, settings.flow_shift)
    _load_loras(pipeline, settings.loras)
    if (settings.cpu_offload or settings.facts.tiled) and hasattr(pipeline.vae, "enable_tiling"):
        pipeline.vae.enable_tiling()
    _place(pipeline, settings.cpu_offload, device)
    if settings.gpus > 1:
        share_heads(pipeline, settings.gpus)
    return pipeline


def check_model(settings: GenerateSettings) -> Path:
    """See, before weights are loaded, that they are this model's, and that it can run here as it is asked to.

    Returns:
        Their folder, downloaded when the path is a hub id.

    Raises:
        ConfigError, BackendError: as in :func:`load_pipeline`.
    """
    device = _device()
    if settings.cpu_offload and device.type == "cpu":
        raise ConfigError("--cpu-offload", True, "needs a GPU, and torch sees none here")
    if not hasattr(diffusers, settings.pipeline):
        raise ConfigError("--model", settings.model, f"diffusers {diffusers.__version__} has no {settings.pipeline}")
    folder = tiny_video.WEIGHTS if settings.facts.bundled else _folder(settings)
    if not settings.facts.bundled:
        _check_folder(settings, folder)
    if settings.gpus > 1:
        _check_sharing(settings, folder)
    _check_backend(settings, folder, device)
    return folder


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
        if settings.workflow:
            # Of models with more than one transformer, those of other workflows stay where they are.
            return Path(snapshot_download(settings.path, allow_patterns=parts_of(settings)))
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
    file = MODULAR_INDEX if settings.workflow else INDEX
    index = _read_json(path, folder / file, f"weights of {facts.hub_id} in diffusers format")
    # Of one that takes pictures as well, the weights are those of the other.
    kinds, held = [kind for kind in (facts.pipeline, facts.image_pipeline) if kind], index.get("_class_name")
    if held not in kinds:
        raise ConfigError("--path", path, f"must hold a {kinds[0]} for {settings.model}, and holds a {held}")
    experts = 2 if index.get("boundary_ratio") is not None else 1
    if experts != settings.experts:
        raise ConfigError("--path", path, f"{settings.model} does not have {experts} expert{'s' * (experts > 1)}")


def _check_sharing(settings: GenerateSettings, folder: Path) -> None:
    """See that GPUs can share the heads of a model."""
    config = _read_transformer(settings, folder)
    name = str(config.get("_class_name"))
    heads = config.get("num_attention_heads") or config.get("model_dim", 0) // max(_head_dim(config), 1)
    refusal = sharing_refusal(getattr(diffusers, name, type(name, (), {})), heads, settings.gpus)
    if refusal is not None:
        raise ConfigError("--gpus", settings.gpus, refusal)


def _read_transformer(settings: GenerateSettings, folder: Path) -> dict[str, Any]:
    return _read_json(settings.path, folder / "transformer" / "config.json", "the transformer's settings")


def _head_dim(config: dict[str, Any]) -> int:
    # Kandinsky says only how it is divided among the axes of its positions.
    return int(config.get("attention_head_dim") or sum(config.get("axes_dims", ())))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _check_backend(settings: GenerateSettings, folder: Path, device: torch.device) -> None:
    """Ask a backend now that would refuse in the first denoising step."""
    if settings.config.type == "dense" or settings.backend != "triton":
        return
    dtype = dtypes(settings, device)["default"]
    choose_backend_for(settings.backend, device, dtype, _head_dim(_read_transformer(settings, folder)))


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
    kind = getattr(diffusers, settings.pipeline)
    try:
        with warnings.catch_warnings():
            # Of the name torch_dtype, the only one that diffusers 0.35 knows.
            warnings.simplefilter("ignore", FutureWarning)
            if settings.workflow:
                return load_modular(settings, folder, dtypes(settings, device))
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


def _load_loras(pipeline: Any, loras: Sequence[Lora]) -> None:
    """Load LoRAs, each into the experts that it is for, with its strength."""
    experts = [name for name in EXPERTS.values() if getattr(pipeline, name, None) is not None]
    taken: dict[str, dict[str, float]] = {name: {} for name in experts}
    for number, lora in enumerate(loras):
        for name in [EXPERTS[lora.expert]] if lora.expert else experts:
            adapter = f"psa_{number}"
            _load_lora(pipeline, lora, name, adapter)
            taken[name][adapter] = lora.strength
    for name, adapters in taken.items():
        if adapters:
            getattr(pipeline, name).set_adapters(list(adapters), list(adapters.values()))


def _load_lora(pipeline: Any, lora: Lora, expert: str, adapter: str) -> None:
    file, into = lora.file, {"load_into_transformer_2": True} if expert == "transformer_2" else {}
    where = {"weight_name": file.name, "local_files_only": True, "adapter_name": adapter}
    try:
        pipeline.load_lora_weights(str(file.parent), **where, **into)
    except Exception as error:
        raise ConfigError("--lora", lora.text, f"does not load: {first_line(error)}") from error
    # Of a file without any key of the model diffusers warns, and goes on.
    if adapter not in (getattr(getattr(pipeline, expert), "peft_config", None) or {}):
        raise ConfigError("--lora", lora.text, f"holds nothing for a {type(pipeline.transformer).__name__}")


def _place(pipeline: Any, offload: bool, device: torch.device) -> None:
    if offload:
        pipeline.enable_model_cpu_offload()
        return
    try:
        pipeline.to(device)
    except torch.OutOfMemoryError:
        raise ConfigError("--cpu-offload", False, "the GPU does not hold the whole model; try it with") from None
