"""Tiny random models under the names that workflows ask for, and graphs cut down to what those can sample."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tools.workflows import model_files as files
from tools.workflows.model_files import ModelFile
from tools.workflows.parts import EXAMPLE_IMAGE
from tools.workflows.wan_animate import DRIVING_VIDEO

from .checkpoints import COG_DIM, TEXT_DIM, WAN_DIM
from .cogvideox_variants import VARIANTS
from .families.hunyuan_video import HUNYUAN_VIDEO_15
from .families.ltx import LTX_2
from .families.minimax_h3 import MINIMAX_H3
from .families.wan import WAN_ANIMATE, WAN_ANIMATE_2
from .graphs import Graph, Link
from .tiny_models import HOSTS, Host


def _write_published(path: Path) -> None:
    save_file(VARIANTS["5b_i2v"].transformer().state_dict(), path)


# Built by a test node from their configs, which model detection would not take at such sizes.
_MINIMAX_H3 = Host("minimax_h3", write=Path.touch, latent=(5, 16, 24))
_HUNYUAN_VIDEO_15 = Host("hunyuan_video_15", write=Path.touch, channels=32, latent=(5, 8, 12))
_LTX = Host("ltxav", write=Path.touch, channels=128, latent=(5, 8, 12))
_WAN_ANIMATE = Host("wan_animate", write=Path.touch, latent=(5, 16, 24))
_WAN_ANIMATE_2 = Host("wan_animate2", write=Path.touch, latent=(5, 16, 24))
_FROM_CONFIG = {
    _MINIMAX_H3: MINIMAX_H3,
    _HUNYUAN_VIDEO_15: HUNYUAN_VIDEO_15,
    _LTX: LTX_2,
    _WAN_ANIMATE: WAN_ANIMATE,
    _WAN_ANIMATE_2: WAN_ANIMATE_2,
}
_H3_STREAMS = [[1, 24, 5, 16, 24], [1, 32, 2, 20]]
_LTX_SOUND = [[1, 8, 10, 16]]
_LTX_TEXT_DIM = 128
# As the published one it has learned positions, and with them one size.
_COGVIDEOX_5B_I2V = dataclasses.replace(HOSTS["cogvideox_i2v"], write=_write_published, latent=(2, 60, 90))
MODELS: dict[ModelFile, Host] = {
    files.WAN21_1_3B: HOSTS["wan_t2v"],
    files.WAN21_14B_T2V: HOSTS["wan_t2v"],
    files.WAN21_14B_I2V: HOSTS["wan_i2v"],
    files.WAN21_VACE_14B: HOSTS["wan_vace"],
    files.WAN22_5B: HOSTS["wan22_ti2v"],
    files.WAN22_T2V[0]: HOSTS["wan_t2v"],
    files.WAN22_T2V[1]: HOSTS["wan_t2v_low_noise"],
    files.WAN22_I2V[0]: HOSTS["wan22_i2v"],
    files.WAN22_I2V[1]: HOSTS["wan22_i2v_low_noise"],
    files.WAN22_ANIMATE: _WAN_ANIMATE,
    files.WAN_ANIMATE2: _WAN_ANIMATE_2,
    files.MINIMAX_H3: _MINIMAX_H3,
    files.HUNYUAN_VIDEO_15: _HUNYUAN_VIDEO_15,
    files.LTX23: _LTX,
    files.LTX25: _LTX,
    files.COGVIDEOX_5B_T2V: HOSTS["cogvideox"],
    files.COGVIDEOX_5B_I2V: _COGVIDEOX_5B_I2V,
    files.COGVIDEOX15_5B_T2V: HOSTS["cogvideox15"],
    files.COGVIDEOX15_5B_I2V: HOSTS["cogvideox15_i2v"],
}
"""The tiny model that stands in for each file."""

_LORA_KEYS = {
    "wan": ("diffusion_model.blocks.0.self_attn.q", WAN_DIM),
    "cogvideox": ("transformer.transformer_blocks.0.attn1.to_q", COG_DIM),
}
_REMOVED = {
    *("CLIPLoader", "DualCLIPLoader", "CLIPVisionLoader", "CLIPVisionEncode", "VAELoader", "LoadImage", "ImageScale"),
    *("LatentCut", "VAEDecode", "VAEDecodeAudio", "CreateVideo", "SaveVideo", "PSACompare", "TrimVideoLatent"),
    *("LTXAVTextEncoderLoader", "LTXVAudioVAELoader", "LatentUpscaleModelLoader", "LTXVPreprocess"),
    *("VAEDecodeTiled", "LTXVAudioVAEDecode", "LoadVideo", "GetVideoComponents", "SDPoseKeypointExtractor"),
    *("SDPoseDrawKeypoints", "SDPoseFaceBBoxes", "CropByBBoxes", "ImageFromBatch"),
}
_nonces = itertools.count()
_LOADERS = ("UNETLoader", "PSACogVideoXLoader", "CheckpointLoaderSimple")
# What gives back the latent that it gets where there is neither image nor upscaler.
_PASSED = {"LTXVImgToVideoInplace": "latent", "LTXVLatentUpsampler": "samples"}
# Two more than the longest warm-up.
_MOST_STEPS = 17
SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")


def write_stand_ins(wanted: Iterable[ModelFile], base_directory: Path) -> None:
    """Put a file under each name into ComfyUI's model folders: models and LoRAs; of others only the name counts."""
    for file in wanted:
        target = base_directory / "models" / file.folder / file.widget
        target.parent.mkdir(parents=True, exist_ok=True)
        if file in MODELS:
            _write_parts(MODELS[file], target, file.parts)
        elif file.folder == "loras":
            key, dim = _LORA_KEYS["cogvideox" if "cogvideox" in file.widget else "wan"]
            halves = {"lora_A": torch.randn(4, dim), "lora_B": 0.01 * torch.randn(dim, 4)}
            save_file({f"{key}.{half}.weight": x for half, x in halves.items()}, target)
        else:
            target.touch()
    given = base_directory / "input"
    given.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), "teal").save(given / EXAMPLE_IMAGE)
    (given / DRIVING_VIDEO).touch()


def host_of(graph: dict[str, Any]) -> Host:
    """The tiny model that stands in for the first model of a graph."""
    names = {file.widget: host for file, host in MODELS.items()}
    inputs = (node["inputs"] for node in graph.values() if node["class_type"] in _LOADERS)
    return next(names[widgets.get("unet_name") or widgets["ckpt_name"]] for widgets in inputs)


def cut_down(graph: dict[str, Any]) -> Graph:
    """A workflow's API JSON without text encoders and autoencoders, for clips of a few tokens on the CPU."""
    host, small = host_of(graph), Graph(copy.deepcopy(graph))
    frames, height, width = host.latent
    size = {"frames": frames, "height": height, "width": width}
    # Workflows that are the same when they are cut down run all the same.
    nonce = next(_nonces)
    kinds = {node["class_type"] for node in small.values()}
    latent = {"channels": host.channels, "batch_size": 1, "first_frame": False, "nonce": nonce, **size}
    for key, node in list(small.items()):
        kind, inputs = node["class_type"], node["inputs"]
        if kind in _REMOVED or inputs.get("ckpt_name") == files.SDPOSE.widget:
            del small[key]
        elif kind == "CLIPTextEncode" and host in _FROM_CONFIG:
            small[key] = _prompt(_number(key), _LTX_TEXT_DIM if host is _LTX else TEXT_DIM)
        elif kind == "CLIPTextEncode":
            small[key] = _node("PSATestText", tokens=host.text_tokens, dim=TEXT_DIM, seed=_number(key))
        elif kind in ("EmptyHunyuanLatentVideo", "EmptyHunyuanVideo15Latent", "Wan22ImageToVideoLatent"):
            small[key] = _node("PSATestLatent", **latent)
        elif kind in ("WanImageToVideo", "WanAnimateToVideo", "WanAnimate2ToVideo"):
            pair = {name: inputs[name] for name in ("positive", "negative")}
            if kind == "WanAnimate2ToVideo":
                # All frames but that of the reference.
                pose = {"entry": "pose_video_latent", "seed": 5, **size, "frames": frames - 1}
                pair = {name: _append(small, "PSATestReference", conditioning=x, **pose) for name, x in pair.items()}
            small[key] = _node("PSATestImage", clip_vision=host.clip_vision, seed=3, **pair, **size)
            _redirect(small, [key, 2], _append(small, "PSATestLatent", **latent))
        elif kind == "InstructPixToPixConditioning":
            for slot, name in enumerate(("positive", "negative")):
                _redirect(small, [key, slot], inputs[name])
            del small[key]
        elif kind in _PASSED:
            _redirect(small, [key, 0], inputs[_PASSED[kind]])
            del small[key]
        elif kind == "EmptyLTXVLatentVideo":
            small[key] = _node("PSATestLatent", **latent | {"first_frame": "LTXVImgToVideoInplace" in kinds})
        elif kind == "LTXVEmptyLatentAudio":
            small[key] = _node("PSATestStreams", shapes=json.dumps(_LTX_SOUND), nonce=nonce)
        elif kind == "WanVaceToVideo":
            pair = {name: inputs[name] for name in ("positive", "negative")}
            small[key] = _node("PSATestVace", strength=1.0, references=1, seed=4, **pair, **size)
            _redirect(small, [key, 2], _append(small, "PSATestLatent", **latent))
        elif kind in ("UNETLoader", "CheckpointLoaderSimple") and host in _FROM_CONFIG:
            small[key] = _node("PSATestFamily", **_FROM_CONFIG[host].inputs({}))
        elif kind == "MiniMaxH3ImageToVideo":
            small[key] = _prompt(3)
            streams = _append(small, "PSATestStreams", shapes=json.dumps(_H3_STREAMS), nonce=nonce)
            _redirect(small, [key, 1], streams)
        elif kind in ("KSampler", "BasicScheduler"):
            inputs["steps"] = min(inputs["steps"], _MOST_STEPS)
        elif kind == "PSARadialMask":
            # More than the tiny models have layers.
            inputs["dense_layers"] = 0
        elif kind == "PSAAttentionPatch":
            inputs |= {"min_tokens": 1, "backend": "torch"}
    last = max((key for key, node in small.items() if node["class_type"] in SAMPLERS), key=_number)
    video = _append(small, "PSATestVideoStream", samples=[last, 0])
    _append(small, "SaveLatent", samples=video, filename_prefix="psa_test/workflow")
    return small


def _write_parts(host: Host, target: Path, parts: int) -> None:
    """A checkpoint, cut into as many files as the real one has."""
    if parts == 1:
        host.write(target)
        return
    whole = target.with_name("whole.safetensors")
    host.write(whole)
    weights = list(load_file(whole).items())
    whole.unlink()
    for part in range(parts):
        name = target.name.replace("-00001-", f"-{part + 1:05d}-")
        save_file(dict(weights[part::parts]), target.with_name(name))


def _prompt(seed: int, dim: int = TEXT_DIM) -> dict[str, Any]:
    return _node("PSATestPrompt", tokens=16, dim=dim, seed=seed, mask="none", entries="{}")


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def _append(graph: Graph, class_type: str, **inputs: Any) -> Link:
    """Add a node to a graph whose ids have gaps."""
    key = str(max(map(_number, graph)) + 1)
    graph[key] = _node(class_type, **inputs)
    return [key, 0]


def _number(key: str) -> int:
    """Of a node, which has that of its subgraph before its own."""
    return int(key.rsplit(":", 1)[-1])


def _redirect(graph: Graph, old: Link, new: Link) -> None:
    """Connect what an output fed to another."""
    for node in graph.values():
        for name, value in node["inputs"].items():
            if value == old:
                node["inputs"][name] = new
