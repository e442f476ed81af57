"""Speed and memory as ratios, measured in one run, against formulations without the tricks.

Every result is a ratio of medians of runs that alternate in one process, so that a busy machine hits both sides. The benchmark `drag` is
another kind: milliseconds and messages of a mouse drag in a real JupyterLab. It needs a browser and, as `whatif`, runs only when asked for by name.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import torch

from ..weights.loading import default_device
from .convert import bench_convert
from .drag import bench_drag, bench_whatif
from .encoder import bench_moved_box, bench_region_encoder
from .index import bench_index
from .inside import METHODS, bench_inside
from .literal import literal_region_embeddings
from .measure import bench_second_question
from .photo import bench_photo
from .train import bench_features, bench_stage1
from .using import bench_attention_rows, bench_ig_caches, bench_images, bench_streaming

__all__ = ["BENCHMARKS", "MEANING", "literal_region_embeddings", "run", "run_benchmarks", "table"]


def run(
    json_path: str | Path | None = None,
    names: list[str] | None = None,
    repeats: int = 3,
    plot: str | Path | None = None,
    device: str | None = None,
) -> dict[str, float]:
    """Run benchmarks and print their results as a table.

    Args:
        json_path: also write the results there.
        names, repeats, device: as in `run_benchmarks`.
        plot: also draw the ratios there.
    Returns:
        The results by name. `..._speedup` and `..._ratio` are ratios, `..._difference` are maximal absolute differences,
        `drag_ms...` are milliseconds and `drag_messages...` counts.
    """
    results = run_benchmarks(names, repeats, device)
    print(table(results, device))
    if json_path is not None:
        Path(json_path).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        from .figure import show_ratios

        show_ratios(results, plot)
    return results


def table(results: dict[str, float], device: str | None = None) -> str:
    """The results of `run_benchmarks` on that device as a Markdown table, with what they were measured with."""
    rows = [
        f"| {MEANING[name]} | `{name}` | {value:.3g} |"
        for name, value in results.items()
        if not name.endswith(("_seconds", "_gb")) or not name.startswith("inside_")
    ]
    if "inside_parameters" in results:
        rows += ["", "| method | seconds | peak memory above the model, GB |", "| --- | ---: | ---: |"]
        rows += [
            f"| `{name}` | {results[f'inside_{name}_seconds']:.3g} | {results[f'inside_{name}_gb']:.3g} |"
            for name in METHODS
        ]
    measured_with = []
    if any(not name.startswith(("drag_", "index_")) for name in results):
        measured_with.append(f"{torch.get_num_threads()} threads, torch {torch.__version__}.")
    if measured_with and _device(device) != "cpu":
        measured_with.append(f"{torch.cuda.get_device_name()}.")
    if any(name.startswith(("drag_", "whatif_")) for name in results):
        versions = [f"{package} {importlib.metadata.version(package)}" for package in ("jupyterlab", "ipycanvas")]
        measured_with.append(f"{', '.join(versions)}, headless Chromium.")
    if any(name.startswith("index_") for name in results):
        versions = [f"{package} {importlib.metadata.version(package)}" for package in ("datasets", "pyarrow", "ijson")]
        measured_with.append(f"{', '.join(versions)}.")
    return "\n".join(
        [
            "| what | name | value |",
            "| --- | --- | ---: |",
            *rows,
            "",
            " ".join(measured_with),
        ]
    )


COSTS = {"seconds": "seconds", "gb": "peak memory above the model, GB"}
MEANING = {
    "second_question_speedup": "time to the first token of a second question: without kept keys and values / with",
    "second_question_memory_ratio": "its peak memory above model and kept features: with / without",
    "max_logit_difference": "largest difference between logits with and without caches",
    "region_encoder_speedup": "region encoder of paper size: time of the literal formulation / ours",
    "region_encoder_memory_ratio": "its peak memory above the weights: ours / literal",
    "region_encoder_max_difference": "largest difference between the two (on a GPU as a share of the largest value)",
    "region_encoder_floor_ratio": "its time / the time of its multiplications at the speed of a large matrix product",
    "region_encoder_16_speedup": "the same for 16 pictures at once: time of the literal formulation / ours",
    "region_encoder_16_memory_ratio": "its peak memory above the weights: ours / literal",
    "region_encoder_16_max_difference": "largest difference between the two, as a share of the largest value",
    "region_encoder_16_floor_ratio": "its time / the time of its multiplications at the speed of a large matrix product",
    "moved_box_speedup": "embedding of a moved box at paper size: time from scratch / with the kept pyramid",
    "moved_box_memory_ratio": "its peak memory above the weights and what is kept: with the kept pyramid / from scratch",
    "moved_box_max_difference": "largest difference between the two",
    "streaming_speedup": "tokens per second of `Chat.stream`, a first answer / those of transformers' `generate` on the same language model",
    "streaming_memory_ratio": "its peak memory above the model: ours / plain",
    "attention_rows_speedup": "attention of a short answer, some 800 positions: time for all matrices / for its rows",
    "attention_rows_memory_ratio": "its peak memory above the model: ours / plain",
    "attention_rows_difference": "largest difference between the two",
    "ig_caches_speedup": "integrated gradients to tokens, tiny model, 64 steps: time with everything anew at each / ours",
    "ig_caches_memory_ratio": "its peak memory above the model: ours / plain",
    "stage1_speedup": "step of stage 1, four records of one picture: time with requires_grad=False alone / with shared prefixes without gradients",
    "stage1_speedup_over_all": "the same, all but the vision tower learning / with them",
    "stage1_memory_ratio": "its peak memory above the weights: with shared prefixes / with requires_grad=False alone",
    "stage1_memory_ratio_over_all": "the same, with shared prefixes / all but the vision tower learning",
    "stage1_gradient_difference": "largest difference of a gradient, as a share of the largest",
    "images_speedup": "a JPEG of 6 megapixels to pixels of the model: time of PIL and the image processor alone / ours",
    "images_memory_ratio": "its peak memory: ours / plain",
    "index_file_mb": "generated file of Visual Genome's form, MB",
    "index_regions": "regions in it",
    "index_memory_mb": "peak memory above that after the imports while it is read, MB",
    "index_seconds": "seconds to read it the first time",
    "index_open_seconds": "seconds to open its table ever after",
    "features_speedup": "vision features of four pictures, CLIP ViT-L/14's shape: time through the tower / from disk",
    "features_step_speedup": "step of stage 1 with them and that language model: time through the tower / from disk",
    "features_loss_difference": "difference between the two losses",
    "inside_parameters": "parameters of the model that is looked into, billions",
    "inside_positions": "positions of the sequence",
    **{f"inside_{name}_{unit}": f"{name}, {told}" for name in METHODS for unit, told in COSTS.items()},
    "convert_read_gb": "files of the 7B's layout that are read, GB",
    "convert_written_gb": "weights written, GB",
    "convert_shard_gb": "the largest file of them, GB",
    "convert_private_gb": "peak memory of the process without mapped files, GB",
    "photo_load_seconds": "seconds from the first import to the loaded photo model, when it has been fetched",
    "photo_first_seconds": "to the end of its first answer",
    "photo_later_seconds": "to the end of a later answer",
    "photo_moved_seconds": "from moving a box to the end of the new answer",
    "photo_memory_gb": "peak memory of the process, GB",
    "drag_ms": "from releasing the mouse to the final box in status and picture, ms: server on the same machine",
    "drag_ms_far": "the same, 150 ms there and back to the server",
    "drag_messages_sent": "messages from the page to the kernel in a drag of 60 moves",
    "drag_messages_received": "messages from the kernel to the page in it",
    "drag_messages_received_far": "the same, 150 ms there and back to the server",
    "whatif_per_second": "answers of the tiny model per second while a region of `WhatIf` is dragged",
    "whatif_ms": "from releasing the mouse until the last place is answered, ms",
}


def run_benchmarks(names: list[str] | None = None, repeats: int = 3, device: str | None = None) -> dict[str, float]:
    """Results of the benchmarks called `names` (by default all but `BY_NAME_ONLY`), each the median of `repeats` alternating runs.

    Args:
        device: "cpu" or "cuda", for those of `ON_DEVICE`; the others run on the CPU. By default a GPU if there is one.
    Raises:
        ValueError: an unknown name or device.
    """
    device = _device(device)
    names = [name for name in BENCHMARKS if name not in BY_NAME_ONLY] if names is None else names
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise ValueError(f"unknown benchmarks {unknown}; there are {list(BENCHMARKS)}")
    results = {}
    for name in names:
        results |= BENCHMARKS[name](repeats, device) if name in ON_DEVICE else BENCHMARKS[name](repeats)
    return results


def _device(device: str | None) -> str:
    device = device or default_device()
    if device not in ("cpu", "cuda"):
        raise ValueError(f"benchmarks run on cpu or cuda, not on {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device was found: leave --device out, or say cpu")
    return device


BENCHMARKS: dict[str, Callable[[int], dict[str, float]]] = {
    "second_question": bench_second_question,
    "region_encoder": bench_region_encoder,
    "moved_box": bench_moved_box,
    "streaming": bench_streaming,
    "attention_rows": bench_attention_rows,
    "ig_caches": bench_ig_caches,
    "stage1": bench_stage1,
    "images": bench_images,
    "index": bench_index,
    "features": bench_features,
    "inside": bench_inside,
    "convert": bench_convert,
    "photo": bench_photo,
    "drag": bench_drag,
    "whatif": bench_whatif,
}
ON_DEVICE = (
    "second_question", "region_encoder", "moved_box", "streaming", "attention_rows", "ig_caches", "stage1", "inside",
)  # fmt: skip
BY_NAME_ONLY = ("index", "features", "inside", "convert", "photo", "drag", "whatif")
