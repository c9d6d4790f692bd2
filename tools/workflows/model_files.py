"""The model files that workflows name: where they come from and where they go."""

from __future__ import annotations

from dataclasses import dataclass

_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class ModelFile:
    """A file of a repository on Hugging Face.

    Attributes:
        repository: owner and name.
        path: of the file in the repository.
        folder: of ``ComfyUI/models`` that it goes into.
        subfolder: of that folder, where the file's own name says too little.
        parts: how many files it is; the others lie beside it.
    """

    repository: str
    path: str
    folder: str
    subfolder: str = ""
    parts: int = 1

    @property
    def widget(self) -> str:
        """The name as loaders list it."""
        name = self.path.rsplit("/", 1)[-1]
        return f"{self.subfolder}/{name}" if self.subfolder else name

    @property
    def url(self) -> str:
        return f"{_HUB}/{self.repository}/resolve/main/{self.path}"

    @property
    def page(self) -> str:
        """Where to download it: its folder, if it has parts."""
        return f"{_HUB}/{self.repository}/tree/main/{self.path.rsplit('/', 1)[0]}" if self.parts > 1 else self.url


def _wan21(folder: str, name: str) -> ModelFile:
    return ModelFile("Comfy-Org/Wan_2.1_ComfyUI_repackaged", f"split_files/{folder}/{name}", folder)


def _wan22(folder: str, name: str) -> ModelFile:
    return ModelFile("Comfy-Org/Wan_2.2_ComfyUI_Repackaged", f"split_files/{folder}/{name}", folder)


UMT5 = _wan21("text_encoders", "umt5_xxl_fp8_e4m3fn_scaled.safetensors")
CLIP_VISION = _wan21("clip_vision", "clip_vision_h.safetensors")
WAN21_VAE = _wan21("vae", "wan_2.1_vae.safetensors")
WAN21_1_3B = _wan21("diffusion_models", "wan2.1_t2v_1.3B_fp16.safetensors")
WAN21_14B_T2V = _wan21("diffusion_models", "wan2.1_t2v_14B_fp8_scaled.safetensors")
WAN21_VACE_14B = _wan21("diffusion_models", "wan2.1_vace_14B_fp16.safetensors")
WAN21_14B_I2V = _wan21("diffusion_models", "wan2.1_i2v_480p_14B_fp8_scaled.safetensors")

WAN22_VAE = _wan22("vae", "wan2.2_vae.safetensors")
WAN22_5B = _wan22("diffusion_models", "wan2.2_ti2v_5B_fp16.safetensors")
WAN22_T2V = (
    _wan22("diffusion_models", "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors"),
    _wan22("diffusion_models", "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors"),
)
WAN22_I2V = (
    _wan22("diffusion_models", "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"),
    _wan22("diffusion_models", "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors"),
)
WAN22_T2V_4STEPS = (
    _wan22("loras", "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors"),
    _wan22("loras", "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors"),
)
WAN22_I2V_4STEPS = (
    _wan22("loras", "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors"),
    _wan22("loras", "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise.safetensors"),
)
WAN22_ANIMATE = _wan22("diffusion_models", "wan2.2_animate_14B_bf16.safetensors")


def _wan_animate2(folder: str, name: str) -> ModelFile:
    return ModelFile("Comfy-Org/Wan-Animate-2", f"{folder}/{name}", folder)


WAN_ANIMATE2 = _wan_animate2("diffusion_models", "wan_animate_2_int8_convrot.safetensors")
WAN_I2V_DISTILLED = _wan_animate2("loras", "lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors")
SDPOSE = ModelFile("Comfy-Org/SDPose", "checkpoints/sdpose_wholebody_fp16.safetensors", "checkpoints")


def _minimax(folder: str, name: str) -> ModelFile:
    return ModelFile("Comfy-Org/MiniMax-H3", f"{folder}/{name}", folder)


MINIMAX_H3 = _minimax("diffusion_models", "minimax_h3_fl2va_pruned_int8_convrot.safetensors")
MINIMAX_H3_TEXT = _minimax("text_encoders", "qwen3vl_32b_minimax_h3_nvfp4_awq.safetensors")
MINIMAX_H3_VAE = _minimax("vae", "minimax_h3_video_vae_fp16.safetensors")
MINIMAX_H3_AUDIO_VAE = _minimax("vae", "minimax_h3_audio_vae_fp32.safetensors")
MINIMAX_H3_TURBO = ModelFile(
    "lightx2v/Minimax-h3-Turbo", "minimax_h3_fl2v_turbo_8step_v1.0_comfyui_bf16.safetensors", "loras"
)

LTX23 = ModelFile("Lightricks/LTX-2.3-fp8", "ltx-2.3-22b-dev-fp8.safetensors", "checkpoints")
LTX23_DISTILLED = ModelFile(
    "Comfy-Org/ltx-2.3",
    "split_files/loras/ltx_2.3_22b_distilled_1.1_lora_dynamic_fro09_avg_rank_111_bf16.safetensors",
    "loras",
)
LTX23_TEXT = ModelFile(
    "Comfy-Org/ltx-2", "split_files/text_encoders/gemma_3_12B_it_fp4_mixed.safetensors", "text_encoders"
)
LTX23_UPSCALER = ModelFile("Lightricks/LTX-2.3", "ltx-2.3-spatial-upscaler-x2-1.1.safetensors", "latent_upscale_models")


def _ltx25(folder: str, name: str) -> ModelFile:
    return ModelFile("Lightricks/LTX-2.5", f"{folder}/{name}", folder)


LTX25 = _ltx25("diffusion_models", "ltx-2.5-22b-distilled-transformer-comfy-int8-convrot.safetensors")
LTX25_TEXT = _ltx25("text_encoders", "gemma4-12b-with-proj-ltx-2.5-comfy-int8-convrot.safetensors")
LTX25_VAE = _ltx25("vae", "ltx-2.5-video-vae-bf16.safetensors")
LTX25_AUDIO_VAE = _ltx25("vae", "ltx-2.5-audio-vae-bf16.safetensors")
LTX25_UPSCALER = _ltx25("latent_upscale_models", "ltx-2.5-latent-spatial-upscaler-x2-bf16-1.0.safetensors")


def _hunyuan_video_15(folder: str, name: str) -> ModelFile:
    return ModelFile("Comfy-Org/HunyuanVideo_1.5_repackaged", f"split_files/{folder}/{name}", folder)


HUNYUAN_VIDEO_15 = _hunyuan_video_15("diffusion_models", "hunyuanvideo1.5_720p_t2v_fp16.safetensors")
HUNYUAN_VIDEO_15_TEXT = _hunyuan_video_15("text_encoders", "qwen_2.5_vl_7b_fp8_scaled.safetensors")
HUNYUAN_VIDEO_15_GLYPHS = _hunyuan_video_15("text_encoders", "byt5_small_glyphxl_fp16.safetensors")
HUNYUAN_VIDEO_15_VAE = _hunyuan_video_15("vae", "hunyuanvideo15_vae_fp16.safetensors")

T5 = ModelFile("comfyanonymous/flux_text_encoders", "t5xxl_fp8_e4m3fn_scaled.safetensors", "text_encoders")
COGVIDEOX_VAE = ModelFile("Comfy-Org/void-model", "vae/cogvideox_vae.safetensors", "vae")


def _cogvideox(name: str) -> ModelFile:
    return ModelFile("Kijai/CogVideoX-comfy", name, "diffusion_models")


COGVIDEOX_5B_T2V = ModelFile(
    "zai-org/CogVideoX-5b",
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
    "diffusion_models",
    subfolder="CogVideoX-5b",
    parts=2,
)
COGVIDEOX_5B_I2V = ModelFile(
    "zai-org/CogVideoX-5b-I2V",
    "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
    "diffusion_models",
    subfolder="CogVideoX-5b-I2V",
    parts=3,
)
COGVIDEOX15_5B_T2V = _cogvideox("CogVideoX_1_5_5b_T2V_bf16.safetensors")
COGVIDEOX15_5B_I2V = _cogvideox("CogVideoX_1_5_5b_I2V_bf16.safetensors")
COGVIDEOX_PSA_LORA = ModelFile(
    "GYP666/BLADE",
    "cogvideox-5b-psa-lora/pytorch_lora_weights.safetensors",
    "loras",
    subfolder="cogvideox-5b-psa-lora",
)
