"""Peak memory of a function, on a CPU in a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch


def run_alone(code: str) -> str:
    """The last line that `code` prints in a process of its own."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def peak_of(run: Callable[[], object], device: str = "cpu") -> int:
    """Peak bytes above those in use before, while a function runs: of the process, or on a CUDA device of PyTorch's tensors."""
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else _reset_peak_memory()
    run()
    return (torch.cuda.max_memory_allocated() if cuda else _peak_memory()) - before


def _reset_peak_memory() -> int:
    """The memory in use now, in bytes, from which a later peak is counted."""
    try:
        Path("/proc/self/clear_refs").write_text(
            "5"
        )  # Linux: forget the peak so far, such as that of making the weights
    except OSError:
        pass
    return _peak_memory()


def _peak_memory() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
