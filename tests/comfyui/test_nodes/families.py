"""Tiny random models of every family, built from their configs: model detection fixes the sizes of most of them."""

from __future__ import annotations

import json
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.nested_tensor
import comfy.supported_models
import node_helpers
import torch
from comfy_api.latest import io

from .sizes import random_tensor

_WAN: dict[str, Any] = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 256, "ffn_dim": 256, "num_heads": 2, "num_layers": 2,
    "patch_size": (1, 2, 2), "freq_dim": 256, "window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True,
    "eps": 1e-6, "in_dim": 16, "out_dim": 16, "text_dim": 64,
}  # fmt: skip
# Class in comfy.supported_models, and unet_config.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "hunyuan_video": (
        "HunyuanVideo",
        {
            "image_model": "hunyuan_video", "in_channels": 16, "patch_size": [1, 2, 2], "out_channels": 16,
            "vec_in_dim": 768, "axes_dim": [16, 56, 56], "meanflow": False, "context_in_dim": 64, "hidden_size": 256,
            "mlp_ratio": 1.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 2, "theta": 256, "qkv_bias": True,
            "byt5": False, "guidance_embed": True, "use_cond_type_embedding": False, "vision_in_dim": None,
            "meanflow_sum": False,
        },
    ),
    "hunyuan_video_15": (
        "HunyuanVideo15",
        {
            "image_model": "hunyuan_video", "in_channels": 65, "patch_size": [1, 1, 1], "out_channels": 32,
            "vec_in_dim": None, "axes_dim": [16, 56, 56], "meanflow": False, "context_in_dim": 64, "hidden_size": 256,
            "mlp_ratio": 1.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 0, "theta": 256, "qkv_bias": True,
            "byt5": False, "guidance_embed": False, "use_cond_type_embedding": True, "vision_in_dim": 1152,
            "meanflow_sum": True,
        },
    ),
    "wan_t2v": ("WAN21_T2V", _WAN),
    "wan_reference": ("WAN21_T2V", {**_WAN, "in_dim_ref_conv": 16}),
    "wan_camera": ("WAN22_Camera", {**_WAN, "model_type": "camera_2.2"}),
    "wan_humo": ("WAN21_HuMo", {**_WAN, "model_type": "humo"}),
    "wan_s2v": ("WAN22_S2V", {**_WAN, "model_type": "s2v", "audio_inject_layers": [0]}),
    "wan_animate": ("WAN22_Animate", {**_WAN, "model_type": "animate", "in_dim": 36}),
    "wan_scail": ("WAN21_SCAIL", {**_WAN, "model_type": "scail", "in_dim": 20}),
    "ltxv": (
        "LTXV",
        {
            "image_model": "ltxv", "in_channels": 128, "num_layers": 2, "attention_head_dim": 64,
            "num_attention_heads": 2, "cross_attention_dim": 128, "caption_channels": 64,
        },
    ),
    "ltxav": (
        "LTXAV",
        {
            "image_model": "ltxav", "in_channels": 128, "num_layers": 2, "attention_head_dim": 128,
            "num_attention_heads": 2, "cross_attention_dim": 256, "audio_cross_attention_dim": 128,
            "audio_attention_head_dim": 64, "audio_num_attention_heads": 2, "caption_channels": 64,
            "connector_attention_head_dim": 64, "connector_num_attention_heads": 1, "connector_num_layers": 1,
        },
    ),
    "minimax_h3": (
        "MiniMaxH3",
        {
            "image_model": "minimax_h3", "hidden_size": 256, "num_layers": 2, "token_refiner_num_layers": 1,
            "num_attention_heads": 2, "attention_head_dim": 128, "ffn_hidden_size": 256, "text_dim": 64,
            "timestep_input_dim": 64, "time_embed_hidden_size": 64, "time_embed_dim": 64,
        },
    ),
    "kandinsky5": (
        "Kandinsky5",
        {
            "image_model": "kandinsky5", "model_dim": 128, "ff_dim": 128, "time_dim": 64, "visual_embed_dim": 132,
            "in_text_dim": 64, "num_text_blocks": 1, "num_visual_blocks": 2,
        },
    ),
    "cosmos": (
        "CosmosT2V",
        {
            "image_model": "cosmos", "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16,
            "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 256,
            "block_config": "FA-CA-MLP", "concat_padding_mask": True, "pos_emb_cls": "rope3d",
            "pos_emb_learnable": False, "pos_emb_interpolation": "crop", "block_x_format": "THWBD",
            "affline_emb_norm": True, "use_adaln_lora": True, "adaln_lora_dim": 32, "num_blocks": 2, "num_heads": 2,
            "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
            "crossattn_emb_channels": 64,
        },
    ),
    "cosmos_predict2": (
        "CosmosT2IPredict2",
        {
            "image_model": "cosmos_predict2", "max_img_h": 240, "max_img_w": 240, "max_frames": 128,
            "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 256,
            "concat_padding_mask": True, "crossattn_emb_channels": 64, "pos_emb_cls": "rope3d",
            "pos_emb_learnable": True, "pos_emb_interpolation": "crop", "use_adaln_lora": True, "adaln_lora_dim": 32,
            "num_blocks": 2, "num_heads": 2, "extra_per_block_abs_pos_emb": False,
        },
    ),
    "mochi_preview": (
        "GenmoMochi",
        {
            "image_model": "mochi_preview", "depth": 1, "patch_size": 2, "num_heads": 2, "hidden_size_x": 256,
            "hidden_size_y": 128, "mlp_ratio_x": 48.0, "mlp_ratio_y": 1.0, "learn_sigma": False, "in_channels": 12,
            "qk_norm": True, "qkv_bias": False, "out_bias": True, "attn_drop": 0.0, "patch_embed_bias": True,
            "posenc_preserve_area": True, "timestep_mlp_bias": True, "attend_to_padding": False,
            "timestep_scale": 1000.0, "use_t5": True, "t5_feat_dim": 64, "t5_token_length": 24,
            "rope_theta": 10000.0,
        },
    ),
}  # fmt: skip


class TestFamily(io.ComfyNode):
    """A model of a family with random weights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`more` is JSON put over the family's config; another `image_model` makes the model one of no family."""
        return io.Schema(
            node_id="PSATestFamily",
            category="psa/test",
            inputs=[io.String.Input("family"), io.String.Input("more", default="{}")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, family: str, more: str) -> io.NodeOutput:
        """Build it as a loader does, in float32."""
        kind, config = CONFIGS[family]
        model_config = getattr(comfy.supported_models, kind)(config)
        model_config.set_inference_dtype(torch.float32, None)
        model = model_config.get_model({}, "")
        _fill(model.diffusion_model)
        # Only now: models look at their config when they are built.
        model.model_config.unet_config = {**model.model_config.unet_config, **json.loads(more)}
        device = comfy.model_management.get_torch_device()
        return io.NodeOutput(comfy.model_patcher.ModelPatcher(model.eval(), device, torch.device("cpu")))


@torch.no_grad()
def _fill(network: torch.nn.Module) -> None:
    """Weights that keep activations near unit size, so that a change of attention shows in the sampled latent."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(network.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            noise /= noise[0].numel() ** 0.5
        elif name.endswith("weight"):
            noise = 1 + 0.02 * noise
        else:
            noise *= 0.2
        parameter.copy_(noise)
    for name, buffer in network.named_buffers():
        # MiniMax H3's, which comes with its checkpoints.
        if name == "rope.inv_freq":
            buffer.copy_(10000 ** -torch.linspace(0, 1, len(buffer)))


class TestPrompt(io.ComfyNode):
    """A prompt with what else families take in conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`entries` is JSON: name -> shape of a random tensor, or a number, or lists and mappings of these."""
        return io.Schema(
            node_id="PSATestPrompt",
            category="psa/test",
            inputs=[
                io.Int.Input("tokens", default=16, min=1, max=4096),
                io.Int.Input("dim", default=64, min=1, max=4096),
                io.Int.Input("seed", default=0, min=0),
                io.Combo.Input("mask", options=["none", "ones", "holes"], default="none"),
                io.String.Input("entries", default="{}"),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, tokens: int, dim: int, seed: int, mask: str, entries: str) -> io.NodeOutput:
        """Text, its mask, and the entries."""
        conditioning = [[random_tensor(seed, 1, tokens, dim), {"pooled_output": random_tensor(seed + 1, 1, 768)}]]
        values: dict[str, Any] = {}
        if mask != "none":
            values["attention_mask"] = torch.ones(1, tokens, dtype=torch.long)
            if mask == "holes":
                values["attention_mask"][:, tokens // 2 :] = 0
        for name, value in json.loads(entries).items():
            values[name] = _entry(value, seed + 2)
        return io.NodeOutput(node_helpers.conditioning_set_values(conditioning, values))


def _entry(value: Any, seed: int) -> Any:
    """A list of numbers is the shape of a tensor, of ones in a mapping of that; within others likewise."""
    if isinstance(value, dict):
        if "ones" in value:
            return torch.ones(value["ones"])
        return {key: _entry(inner, seed) for key, inner in value.items()}
    if isinstance(value, list):
        if all(isinstance(size, int) for size in value):
            return random_tensor(seed, *value)
        return [_entry(inner, seed) for inner in value]
    return value


class TestStreams(io.ComfyNode):
    """Empty latents of any number of streams, as models have that make sound as well."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`shapes` is JSON, a list of shapes; `nonce` is read by nobody."""
        return io.Schema(
            node_id="PSATestStreams",
            category="psa/test",
            inputs=[io.String.Input("shapes"), io.Int.Input("nonce", default=0, min=0)],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, shapes: str, nonce: int) -> io.NodeOutput:
        """One stream is a tensor, more are nested."""
        streams = [torch.zeros(shape) for shape in json.loads(shapes)]
        return io.NodeOutput(
            {"samples": streams[0] if len(streams) == 1 else comfy.nested_tensor.NestedTensor(streams)}
        )


class TestVideoStream(io.ComfyNode):
    """The first stream of a latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """For SaveLatent, which takes one tensor."""
        return io.Schema(
            node_id="PSATestVideoStream",
            category="psa/test",
            inputs=[io.Latent.Input("samples")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any]) -> io.NodeOutput:
        """Unpack it."""
        latent = samples["samples"]
        return io.NodeOutput({"samples": latent.unbind()[0] if getattr(latent, "is_nested", False) else latent})


FAMILY_NODES = [TestFamily, TestPrompt, TestStreams, TestVideoStream]
