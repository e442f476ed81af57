"""Speed and memory as ratios, measured in one run, against formulations without the tricks.

Every result is a ratio of medians of runs that alternate in one process, so that a busy machine hits both sides.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from .literal import literal_region_embeddings
from .measure import bench_moved_box, bench_region_encoder, bench_second_question

__all__ = ["BENCHMARKS", "MEANING", "literal_region_embeddings", "run", "run_benchmarks", "table"]


def run(json_path: str | Path | None = None, names: list[str] | None = None, repeats: int = 3) -> dict[str, float]:
    """Run benchmarks and print their results as a table.

    Args:
        json_path: also write the results there.
        names, repeats: as in `run_benchmarks`.
    Returns:
        The results by name. `..._speedup` and `..._ratio` are ratios, `..._difference` are maximal absolute differences.
    """
    results = run_benchmarks(names, repeats)
    print(table(results))
    if json_path is not None:
        Path(json_path).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


def table(results: dict[str, float]) -> str:
    """The results as a Markdown table, with the number of threads they were measured with."""
    rows = [f"| {MEANING[name]} | `{name}` | {value:.3g} |" for name, value in results.items()]
    return "\n".join(
        [
            "| what | name | value |",
            "| --- | --- | ---: |",
            *rows,
            "",
            f"{torch.get_num_threads()} threads, torch {torch.__version__}.",
        ]
    )


MEANING = {
    "second_question_speedup": "time to the first token of a second question: without kept keys and values / with",
    "max_logit_difference": "largest difference between logits with and without caches",
    "region_encoder_speedup": "region encoder of paper size: time of the literal formulation / ours",
    "region_encoder_memory_ratio": "its peak memory above the weights: ours / literal",
    "region_encoder_max_difference": "largest difference between the two",
    "moved_box_speedup": "embedding of a moved box at paper size: time from scratch / with the kept pyramid",
    "moved_box_max_difference": "largest difference between the two",
}


def run_benchmarks(names: list[str] | None = None, repeats: int = 3) -> dict[str, float]:
    """Results of the benchmarks called `names` (all by default), each the median of `repeats` alternating runs.

    Raises:
        ValueError: an unknown name.
    """
    names = list(BENCHMARKS) if names is None else names
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise ValueError(f"unknown benchmarks {unknown}; there are {list(BENCHMARKS)}")
    results = {}
    for name in names:
        results |= BENCHMARKS[name](repeats)
    return results


BENCHMARKS: dict[str, Callable[[int], dict[str, float]]] = {
    "second_question": bench_second_question,
    "region_encoder": bench_region_encoder,
    "moved_box": bench_moved_box,
}
