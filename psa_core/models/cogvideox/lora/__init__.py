"""CogVideoX LoRAs: from the names that trainers write to the names of ComfyUI's model. Knows no host."""

from .layers import Layers
from .mapping import MappedLoRA, map_lora

__all__ = ["Layers", "MappedLoRA", "map_lora"]
