"""Peak memory of the region encoder and of its literal formulation, each in a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from .literal import literal_region_embeddings, paper_region_encoder


def measure_region_memory(formulation: str) -> float:
    """Peak bytes above the weights and inputs while one formulation ("ours", "literal") runs once, in a process of its own."""
    return float(run_alone(f"from roilab.bench.memory import region_memory; print(region_memory({formulation!r}))"))


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


@torch.no_grad()
def region_memory(formulation: str) -> int:
    encoder, levels, boxes = paper_region_encoder()
    if formulation == "literal":
        return peak_of(lambda: literal_region_embeddings(encoder, levels, boxes))
    return peak_of(lambda: encoder(levels, boxes))


def peak_of(run: Callable[[], object]) -> int:
    """Peak bytes above those in use before, while a function runs."""
    before = _reset_peak_memory()
    run()
    return _peak_memory() - before


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
