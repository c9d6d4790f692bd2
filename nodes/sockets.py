"""The pack's own socket types."""

from comfy_api.latest import io

Preset = io.Custom("PSA_PRESET")
Schedule = io.Custom("PSA_SCHEDULE")
Mask = io.Custom("PSA_MASK")
