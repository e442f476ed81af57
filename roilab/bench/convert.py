"""Memory of `roilab.weights.convert` on generated files of the published layout."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from .memory import run_alone


def bench_convert(repeats: int = 1, config=None) -> dict[str, float]:
    """Converts generated files of the 7B's sizes, in a process of its own: 42 GB on the disk for temporary files, and several minutes.

    Args:
        repeats: not used: what is measured is memory.
        config: other sizes, a `GPT4RoIConfig`.
    """
    from ..presets import paper_7b
    from ..weights import generated

    with tempfile.TemporaryDirectory() as folder:
        generated.write_official(folder, paper_7b() if config is None else config, shards=8)
        read = sum(path.stat().st_size for path in Path(folder).rglob("*.*"))
        code = f"from roilab.bench.convert import measured; print(measured({folder!r}))"
        peak = float(run_alone(code))
        shards = [path.stat().st_size for path in Path(folder, "out").glob("*.safetensors")]
    return {
        "convert_read_gb": read / 1e9,
        "convert_written_gb": sum(shards) / 1e9,
        "convert_shard_gb": max(shards) / 1e9,
        "convert_private_gb": peak / 1e9,
    }


def measured(folder: str) -> int:
    """The highest private bytes of this process during a conversion; they are looked at every 10 ms."""
    from ..weights import convert

    peak, over = [0], threading.Event()

    def watch():
        while not over.wait(0.01):
            peak[0] = max(peak[0], private_memory())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        convert(f"{folder}/official", f"{folder}/out", f"{folder}/llama", f"{folder}/clip", progress=False)
    finally:
        over.set()
        thread.join()
    return peak[0]


def private_memory() -> int:
    """Bytes of this process that are neither of mapped files nor shared (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status tells no RssAnon: this needs Linux")
