"""A namespace for operators: one of its own for each copy of the package in a process."""

from __future__ import annotations

import re
import zlib


def operator_namespace(package: str | None) -> str:
    """What torch takes as the namespace of a package's operators.

    ComfyUI loads the pack's copy under a name made of its folder's path, which may have any letters, and pip may have
    installed another.
    """
    name = package or "psa_core"
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    # "pack-2" and "pack_2", and letters beyond ASCII, leave nothing that would tell two folders apart.
    return plain if plain == name.replace(".", "_") else f"{plain}_{zlib.crc32(name.encode()):08x}"
