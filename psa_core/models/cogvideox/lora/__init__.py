"""CogVideoX LoRAs: from the names that trainers write to those of ComfyUI's LoRA loader. Knows no host."""

from .mapping import MappedLoRA, map_lora

__all__ = ["MappedLoRA", "map_lora"]
