"""A Wan pipeline small enough for a CPU, with weights set by hand: nothing to download, and nothing to train.

Attention is all that its transformer does. A constant in queries and keys, turned by the rotary embedding, makes each
token look at its neighbours in space and time, a random part makes it look at tokens like it; a layer takes the mean of
what a token looks at away from it. What is left is the velocity, so denoising turns noise into slowly moving colours,
and an error of attention shows in the picture. The prompt changes nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

_HEADS, _HEAD_DIM = 2, 128
_DIM = _HEADS * _HEAD_DIM
# Three latent channels: red, green and blue.
_CHANNELS, _PATCH, _TEXT_DIM = 3, 2, 32
# How fast the rotary pairs turn that a layer uses, in radians a token, by head: the slower, the wider it looks.
_SPEEDS = (
    ((0.3, 1.1), (0.2, 0.8)),
    ((0.2, 0.8), (0.15, 0.6)),
    ((0.15, 0.7), (0.1, 0.5)),
    ((0.15, 0.5), (0.1, 0.4)),
)
# How much the random part counts, against one for the neighbourhood.
_LIKENESS = 0.2
_AVERAGED_AWAY = 0.55
_VELOCITY = 6.0
# What denoising leaves of the noise is this much smaller.
_LATENT_SCALE = 60.0
_CONSTANT, _CONTRAST = 3.0, 2.0


def tiny_pipeline(seed: int) -> tuple[WanPipeline, torch.Tensor]:
    """The pipeline, on the CPU in float32, and prompt embeddings ``[1, 16, 32]`` for it; the same for a seed.

    Torch's global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        transformer, vae = _transformer(), _vae()
        embeddings = torch.randn(1, 16, _TEXT_DIM)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipeline = WanPipeline(tokenizer=None, text_encoder=None, vae=vae, scheduler=scheduler, transformer=transformer)
    return pipeline, embeddings


def _transformer() -> Any:
    model: Any = WanTransformer3DModel(
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        text_dim=_TEXT_DIM,
        ffn_dim=_DIM,
        num_layers=len(_SPEEDS),
    )
    for parameter in model.parameters():
        parameter.zero_()
    pixels, constant = _directions()
    # The constant is most of a token, so that layer norms divide every token by nearly the same.
    model.patch_embedding.weight.copy_(pixels.view(_DIM, _CHANNELS, 1, _PATCH, _PATCH))
    model.patch_embedding.bias.copy_(constant * math.sqrt(_DIM))
    to_patch = pixels.view(_DIM, _CHANNELS, _PATCH, _PATCH).permute(2, 3, 1, 0)
    model.proj_out.weight.copy_(to_patch.reshape(-1, _DIM) * _VELOCITY)
    patch_means = pixels.view(_DIM, _CHANNELS, _PATCH**2).sum(2) / _PATCH
    for layer, block in enumerate(model.blocks):
        block.scale_shift_table[:, 2] = 1.0  # the gate of self-attention
        _set_attention(block.attn1, layer, patch_means)
    return model.eval()


def _directions() -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal directions that layer norms leave alone: ``[dim, 12]`` for a patch's numbers, ``[dim]`` for a one."""
    columns = torch.randn(_DIM, _CHANNELS * _PATCH**2 + 2)
    columns[:, 0] = 1.0
    basis = torch.linalg.qr(columns).Q
    return basis[:, 1:-1].contiguous(), basis[:, -1]


def _set_attention(attention: Any, layer: int, patch_means: torch.Tensor) -> None:
    where = torch.cat([_neighbourhood(slowest, fastest) for slowest, fastest in _SPEEDS[layer]])
    what = torch.randn(_DIM, _DIM) * _LIKENESS / math.sqrt(_DIM)
    for projection in (attention.to_q, attention.to_k):
        projection.weight.copy_(what)
        projection.bias.copy_(where / where.square().mean().sqrt())
    for norm in (attention.norm_q, attention.norm_k):
        norm.weight.fill_(1.0)
    attention.to_v.weight.copy_(patch_means @ patch_means.T)
    attention.to_out[0].weight.copy_(-_AVERAGED_AWAY * torch.eye(_DIM))


def _neighbourhood(slowest: float, fastest: float) -> torch.Tensor:
    """What queries and keys of a head have in common, ``[head dim]``: one in the rotary pairs of some speeds."""
    side = 2 * (_HEAD_DIM // 6)
    parts = []
    for size in (_HEAD_DIM - 2 * side, side, side):  # frames, height, width
        speed = 10000.0 ** -(torch.arange(0, size, 2) / size)
        used = (speed > slowest) & (speed < fastest)
        parts.append(torch.stack([used, torch.zeros_like(used)], 1).flatten())
    return torch.cat(parts).float()


def _vae() -> Any:
    """A decoder that enlarges and blurs: its channels are red, green, blue and a constant from start to end."""
    vae: Any = AutoencoderKLWan(
        base_dim=_CHANNELS + 1,
        z_dim=_CHANNELS,
        num_res_blocks=1,
        latents_mean=[0.0] * _CHANNELS,
        latents_std=[_LATENT_SCALE] * _CHANNELS,
    )
    for name, module in (("post_quant_conv", vae.post_quant_conv), *vae.decoder.named_modules()):
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            for parameter in module.parameters():
                parameter.zero_()
            # What residual blocks and attention add to their input stays zero.
            if not name.endswith(("conv1", "conv2", "to_qkv", "proj")):
                _keep_colours(module)
    # Far more than the colours, so that the last norm divides every pixel by nearly the same.
    vae.decoder.conv_in.bias[_CHANNELS] = _CONSTANT
    vae.decoder.conv_out.weight.mul_(_CONTRAST)
    return vae.eval()


def _keep_colours(convolution: Any) -> None:
    """Let a convolution hand each channel on; a two-dimensional one, which follows an enlargement, blurs it."""
    weight = convolution.weight
    outputs, inputs, *size = weight.shape
    same = torch.eye(outputs, inputs)
    if isinstance(convolution, torch.nn.Conv2d):
        blur = torch.tensor([0.25, 0.5, 0.25])
        weight.copy_(same[:, :, None, None] * blur[:, None] * blur)
        convolution.padding_mode = "replicate"
        return
    if outputs == 2 * inputs:  # makes two frames of one
        same = torch.eye(inputs).repeat(2, 1)
    # In time the frame under way is the last; earlier ones come before it.
    weight[:, :, -1, size[1] // 2, size[2] // 2] = same
