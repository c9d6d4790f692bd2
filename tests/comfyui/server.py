"""A real ComfyUI server as a subprocess, with this pack and the test nodes installed, on the CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .tiny_models import write_checkpoints

HERE = Path(__file__).resolve().parent
PACK_ROOT = HERE.parents[1]
LOCALHOST = "127.0.0.1"
TAIL_LINES = 60
# Who has seen the dialog that greets new users, and has the classic canvas.
FRONT_END_SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False}


class ComfyUINotFoundError(RuntimeError):
    """There is no ComfyUI on this machine to test against."""


class ServerFailedError(RuntimeError):
    """ComfyUI is there but its server did not start."""


@dataclass(frozen=True)
class Installation:
    """A ComfyUI checkout and the Python that can run it."""

    root: Path
    python: Path

    @classmethod
    def find(cls) -> Installation:
        """Look at COMFYUI_PATH, else ~/comfy/ComfyUI; prefer the checkout's own virtual environment."""
        root = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI").expanduser().resolve()
        if not (root / "main.py").is_file():
            raise ComfyUINotFoundError(f"no ComfyUI at {root} (set COMFYUI_PATH)")
        for candidate in (root / ".venv" / "bin" / "python", root / ".venv" / "Scripts" / "python.exe"):
            if candidate.exists():
                return cls(root, candidate)
        if importlib.util.find_spec("aiohttp"):
            return cls(root, Path(sys.executable))
        raise ComfyUINotFoundError(f"ComfyUI at {root} has no .venv, and this Python cannot import aiohttp")


class ComfyServer:
    """Owns the base directory, the process and its log."""

    def __init__(
        self,
        installation: Installation,
        base_directory: Path,
        custom_nodes: Mapping[str, Path] | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`custom_nodes` (folder name to path) replaces the default of this pack and the test nodes."""
        self.installation = installation
        self.base_directory = base_directory
        self.custom_nodes = custom_nodes or {"psa": PACK_ROOT, "psa_test_nodes": HERE / "test_nodes"}
        self.arguments = arguments
        self.environment = environment or {}
        self.log = base_directory / "server.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port, for HTTP and for the websocket."""
        return f"{LOCALHOST}:{self.port}"

    def start(self, timeout: float = 120.0) -> None:
        """Lay out the base directory, start the process and wait until it answers."""
        self._lay_out()
        self.port = _free_port()
        command = [
            *(str(self.installation.python), str(HERE / "launch.py"), str(self.installation.root)),
            *("--cpu", "--listen", LOCALHOST, "--port", str(self.port), "--disable-api-nodes"),
            # As on GPUs: that of CPUs asks the system for memory, where graphs of torch.compile break.
            "--use-pytorch-cross-attention",
            *("--base-directory", str(self.base_directory), "--database-url", "sqlite:///:memory:"),
            *self.arguments,
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.installation.root, env=self._environment(), stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_ready(timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 15.0) -> None:
        """End the process, forcibly if it lingers. Not by SIGINT, which a background shell makes children ignore."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def resident_bytes(self) -> int:
        """Main memory that the process holds; Linux only."""
        assert self._process is not None
        pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def log_text(self) -> str:
        """Everything the server printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def log_tail(self) -> str:
        """The last lines of the log, for a failure message."""
        return "\n".join(self.log_text().splitlines()[-TAIL_LINES:])

    def _lay_out(self) -> None:
        write_checkpoints(self.base_directory / "models" / "diffusion_models")
        settings = self.base_directory / "user" / "default" / "comfy.settings.json"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps(FRONT_END_SETTINGS), encoding="utf-8")
        folder = self.base_directory / "custom_nodes"
        folder.mkdir(parents=True, exist_ok=True)
        for name, target in self.custom_nodes.items():
            (folder / name).symlink_to(target, target_is_directory=True)

    def _environment(self) -> dict[str, str]:
        # PYTHONPATH could put the pack's root, and so its `nodes` package, ahead of ComfyUI's module of that name.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        offline = {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        return {**inherited, **offline, **self.environment}

    def _wait_until_ready(self, timeout: float) -> None:
        assert self._process is not None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerFailedError(f"ComfyUI exited with {self._process.returncode}:\n{self.log_tail()}")
            try:
                with opener.open(f"http://{self.address}/system_stats", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise ServerFailedError(f"ComfyUI was not ready after {timeout:.0f} s:\n{self.log_tail()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])
