"""The bundled workflows as code: built here, laid out and saved by ComfyUI's front end.

``pytest tests/comfyui/workflows/test_workflows.py --write-workflows`` writes ``workflows/`` and the API JSON beside the
tests.
"""

from .canvas import Workflow
from .cogvideox import COGVIDEOX
from .hunyuan_video import HUNYUAN_VIDEO
from .ltx2 import LTX2
from .minimax_h3 import MINIMAX
from .tiny import TINY
from .wan21 import WAN21
from .wan22 import WAN22
from .wan_animate import WAN_ANIMATE

WORKFLOWS: dict[str, Workflow] = {
    workflow.name: workflow
    for workflow in (*TINY, *WAN21, *WAN22, *WAN_ANIMATE, *LTX2, *MINIMAX, *HUNYUAN_VIDEO, *COGVIDEOX)
}
