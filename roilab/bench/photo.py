"""How long a newcomer waits: the photo model in a process of its own, from the first import to an answer about a moved box."""

from __future__ import annotations

import json
import statistics
import time

from .memory import _peak_memory, run_alone

CODE = "import json, time; start = time.perf_counter(); from roilab.bench.photo import measure; print(json.dumps(measure(start)))"


def bench_photo(repeats: int) -> dict[str, float]:
    """Medians over `repeats` processes. What has to be fetched is fetched before."""
    from ..photo import photo_folder

    photo_folder()
    runs = [json.loads(run_alone(CODE)) for _ in range(repeats)]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def measure(start: float) -> dict[str, float]:
    """Seconds and peak memory of this process.

    Args:
        start: of it, by `time.perf_counter`, before the imports.
    """
    import roilab
    from roilab.demo import DESK, PHOTOGRAPH

    boxes = list(DESK.values())
    model = roilab.load("photo", device="cpu")
    loaded = time.perf_counter()
    chat = roilab.Chat(model, PHOTOGRAPH)
    chat.ask("What is <region1>?", boxes[:1])
    first = time.perf_counter()
    chat.ask("Is <region1> an animal?")
    chat.ask("What is <region2>?", boxes[1:2])
    later = time.perf_counter()
    chat.move(2, boxes[2])
    moved = time.perf_counter()
    return {
        "photo_load_seconds": loaded - start, "photo_first_seconds": first - loaded, "photo_later_seconds": (later - first) / 2,
        "photo_moved_seconds": moved - later, "photo_memory_gb": _peak_memory() / 1e9,
    }  # fmt: skip
