"""ComfyUI's own dense attention, as the doctor measures it, in a ComfyUI without a server."""

from __future__ import annotations

import subprocess

from ..conftest import ComfyUI
from ..launch import __file__ as launch
from ..server import PACK_ROOT

USE = """
import importlib.util, sys
sys.path[:0] = [{launch!r}, {comfyui!r}]
from launch import import_torchvision
library = import_torchvision()
sys.path.pop(0)
sys.argv = ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import torch
from torch.nn.functional import scaled_dot_product_attention as dense
spec = importlib.util.spec_from_file_location("psa_core", {core!r}, submodule_search_locations=[{folder!r}])
sys.modules["psa_core"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["psa_core"])
from comfy.ldm.modules import attention
from psa_core.hosts.comfyui.own_attention import attention_device, comfyui_version, make_room, own_attention

q, k, v = (torch.randn(1, 150, 3, 64).transpose(1, 2) for _ in range(3))
class Model:
    model_options = {{"transformer_options": {{}}}}
def sage(func, q, k, v, heads, **kwargs):
    return 2 * func(q, k, v, heads, **kwargs)
def error(attend):
    return float((attend(q, k, v) - dense(q, k, v)).norm() / dense(q, k, v).norm())

name, attend = own_attention(Model)
assert name == f"ComfyUI's own ({{attention.optimized_attention.__name__.removeprefix('attention_')}})", name
assert attend(q, k, v).shape == q.shape and error(attend) < 1e-5
Model.model_options["transformer_options"]["optimized_attention_override"] = sage
name, attend = own_attention(Model)
assert name == "ComfyUI's own (override sage)", name
assert abs(error(attend) - 1) < 1e-5
assert attention_device() == torch.device("cpu") and comfyui_version()
make_room(1 << 40)
print("right")
"""


def test_it_is_dense_attention_of_a_model_s_layout_and_its_override_comes_first(comfyui: ComfyUI) -> None:
    installation = comfyui.server.installation
    core = PACK_ROOT / "psa_core"
    folder = str(launch).rpartition("/")[0]
    code = USE.format(launch=folder, comfyui=str(installation.root), core=str(core / "__init__.py"), folder=str(core))

    done = subprocess.run(
        [str(installation.python), "-c", code], cwd=installation.root, capture_output=True, text=True, check=False
    )

    assert done.stdout.strip().endswith("right"), done.stderr
