"""Speed and memory as ratios, measured in one run, against formulations without the tricks.

`literal_region_embeddings` is the region module of GPT4RoI (arXiv 2307.03601, section 3.2) written step by step as published, with no
reordering, folding or caching: the baseline that `roilab.regions` must agree with and must not fall behind. Every result is a
ratio of medians of runs that alternate in one process, so that a busy machine hits both sides.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from .config import RegionConfig
from .regions import RegionEncoder

PATCH = 14  # pixels; the literal formulation counts boxes in pixels of a picture of 14-pixel patches, as published
PAPER_GRID = 16  # patches per side of CLIP ViT-L/14 at 224 pixels


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


def alternate(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each function. Every repeat runs them all, in turn, so that they share the machine's good and bad moments."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


@torch.no_grad()
def bench_region_encoder(repeats: int = 3) -> dict[str, float]:
    """The region encoder of paper size against the literal formulation, one picture with two regions."""
    peak = {name: measure_region_memory(name) for name in ("literal", "ours")}
    encoder, levels, boxes = paper_region_encoder()
    formulations = {
        "literal": lambda: literal_region_embeddings(encoder, levels, boxes),
        "ours": lambda: encoder(levels, boxes),
    }
    difference = (formulations["literal"]()[0] - formulations["ours"]()[0]).abs().max().item()
    seconds = alternate(formulations, repeats)
    return {
        "region_encoder_speedup": seconds["literal"] / seconds["ours"],
        "region_encoder_memory_ratio": peak["ours"] / peak["literal"],
        "region_encoder_max_difference": difference,
    }


@torch.no_grad()
def bench_moved_box(repeats: int = 3) -> dict[str, float]:
    """A moved box of a known picture against the same box from scratch, at paper size with a vision tower of CLIP ViT-L/14's shape.

    From scratch is what the embedding of the moved box costs without any cache: vision tower, fusion, pooling.
    """
    from transformers import CLIPVisionConfig

    from .vision import VisionTower

    encoder, _, _ = paper_region_encoder()
    shape = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        image_size=PAPER_GRID * PATCH, patch_size=PATCH,
    )  # fmt: skip
    vision = VisionTower(shape, feature_layers=[-11, -8, -5, -2], image_layer=-2).eval()
    pixels = torch.randn(1, 3, PAPER_GRID * PATCH, PAPER_GRID * PATCH)
    moved = [torch.tensor([[0.3, 0.25, 0.7, 0.8]])]

    def from_scratch() -> Tensor:
        features = vision(pixels)
        return encoder(features.levels, moved, features.grid)[0]

    features = vision(pixels)
    fused = encoder.fuse(features.levels, features.grid)

    def from_cache() -> Tensor:
        return encoder.pool(fused, moved)[0]

    difference = (from_scratch() - from_cache()).abs().max().item()
    seconds = alternate({"scratch": from_scratch, "cache": from_cache}, repeats)
    return {"moved_box_speedup": seconds["scratch"] / seconds["cache"], "moved_box_max_difference": difference}


def bench_second_question(repeats: int = 3) -> dict[str, float]:
    """What `Chat` gains from the language model's kept keys and values, and that its caches change no logits.

    A small language model reads a prompt of paper size (256 image tokens, the system sentence, one round before). Timed is the way to the
    first token of a second question: with everything kept, against vision features and region embeddings kept but no keys and values.
    """
    from PIL import Image

    from .chat import Chat

    model = small_language_model()
    image = Image.effect_noise((PAPER_GRID * PATCH, PAPER_GRID * PATCH), 64).convert("RGB")
    box, moved = (20, 30, 120, 140), (60, 30, 200, 190)
    first, second = "What is <region1> doing?", "And why do you think so?"

    # Equal logits. A hook that stays on both sees the logits of every position from which a token is read.
    seen: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda *call: seen.append(call[-1][0, -1]))
    logits = {}
    try:
        for caches in (True, False):
            chat = Chat(model, image, caches=caches, max_new_tokens=4)
            chat.ask(first, regions=[box])
            chat.ask(second)
            chat.move(1, moved)
            logits[caches] = torch.stack(seen)
            seen.clear()
    finally:
        hook.remove()

    chat = Chat(model, image, max_new_tokens=1)

    def first_round(keep_keys_and_values: bool):
        chat.clear()
        chat.ask(first, regions=[box])
        if not keep_keys_and_values:
            chat._past, chat._past_keys = None, []  # there is no reason for a user to drop these alone

    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(max(repeats, 1) * 5 + 1):  # short runs: more of them, the first is a warm-up
        for keep in seconds:
            first_round(keep)
            start = time.perf_counter()
            chat.ask(second)
            seconds[keep].append(time.perf_counter() - start)
    medians = {keep: statistics.median(each[1:]) for keep, each in seconds.items()}
    return {
        "second_question_speedup": medians[False] / medians[True],
        "max_logit_difference": (logits[True] - logits[False]).abs().max().item(),
    }


def small_language_model():
    """A random model: 256 image tokens, the Vicuna template, a language model of GPT-2 small's size (12 layers of 768)."""
    from transformers import CLIPVisionConfig, LlamaConfig

    from .processing import train_tokenizer
    from .weights import build

    torch.manual_seed(0)
    words = "The assistant gives helpful, detailed, and polite answers to the human's questions. What is region1 doing?"
    tokenizer = train_tokenizer([words] * 2, 512)
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=5, num_attention_heads=4,
        image_size=PAPER_GRID * PATCH, patch_size=PATCH,
    )  # fmt: skip
    language = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=2048, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    region = {
        "width": 32,
        "fusion_rounds": 2,
        "norm_groups": 4,
        "hidden_size": 64,
        "position_hidden_size": 16,
        "roi_size": 7,
    }
    return build(vision, language, region, "vicuna_v0", tokenizer, device="cpu", dtype=torch.float32)


def paper_region_encoder() -> tuple[RegionEncoder, list[Tensor], list[Tensor]]:
    """A region encoder of paper size with random weights (1.2 GB), levels [1, 256, 1024] of one picture and two boxes."""
    torch.manual_seed(0)
    config = RegionConfig()
    levels = [torch.randn(1, PAPER_GRID**2, width) for width in config.level_widths]
    boxes = [torch.tensor([[0.1, 0.2, 0.5, 0.9], [0.4, 0.4, 0.55, 0.6]])]
    return RegionEncoder(config).eval(), levels, boxes


def measure_region_memory(formulation: str) -> float:
    """Peak bytes above the weights and inputs while one formulation ("ours", "literal") runs once, in a process of its own."""
    code = f"import roilab.bench as bench; print(bench._region_memory({formulation!r}))"
    package = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


@torch.no_grad()
def _region_memory(formulation: str) -> int:
    encoder, levels, boxes = paper_region_encoder()
    before = _reset_peak_memory()
    if formulation == "literal":
        literal_region_embeddings(encoder, levels, boxes)
    else:
        encoder(levels, boxes)
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


BENCHMARKS: dict[str, Callable[[int], dict[str, float]]] = {
    "second_question": bench_second_question,
    "region_encoder": bench_region_encoder,
    "moved_box": bench_moved_box,
}


def literal_region_embeddings(
    encoder: RegionEncoder, levels: list[Tensor], boxes: list[Tensor], grid: tuple[int, int] | None = None
) -> list[Tensor]:
    """Region embeddings by the published steps 1 to 7, one after the other, with the parameters of `encoder`.

    Args:
        encoder: only its parameters and config are used.
        levels, boxes, grid: as in `RegionEncoder.forward`: L tensors [B, P, C_i] or [B, C_i, H, W]; B tensors [N, 4], normalised xyxy.
    Returns:
        B tensors [N, D].
    """
    config, fusion = encoder.config, encoder.fusion
    maps = []
    for level in levels:
        if level.dim() == 3:
            side = int(level.shape[1] ** 0.5)
            height, width = grid or (side, side)
            level = level.transpose(1, 2).reshape(level.shape[0], level.shape[2], height, width)
        maps.append(level)

    # 1. Every level on its own grid.  2. Coordinates, 1x1 convolution.
    last_height, last_width = maps[-1].shape[-2:]
    count = len(maps)
    pyramid = []
    for i in range(count):
        size = (last_height * 2 ** (count - 1 - i), last_width * 2 ** (count - 1 - i))
        level = F.interpolate(maps[i], size=size, mode="bilinear", align_corners=True)
        x = torch.linspace(-1, 1, size[1]).repeat(size[0], 1)
        y = torch.linspace(-1, 1, size[0]).repeat(size[1], 1).T
        coordinates = torch.stack([x, y]).repeat(len(level), 1, 1, 1)
        level = torch.cat([level, coordinates], dim=1)
        pyramid.append(F.conv2d(level, fusion.inputs[i].weight, fusion.inputs[i].bias))

    # 3. Fusion rounds.
    half, quarter = config.width // 2, config.width // 4
    for each in fusion.rounds:
        fused = []
        for i in range(count):
            size = pyramid[i].shape[-2:]
            kept = pyramid[i][:, :half]
            following = pyramid[min(i + 1, count - 1)][:, half + quarter :]
            previous = pyramid[max(i - 1, 0)][:, half : half + quarter]
            following = F.interpolate(following, size=size, mode="bilinear", align_corners=True)
            previous = F.interpolate(previous, size=size, mode="bilinear", align_corners=True)
            mixed = torch.cat([kept, following, previous], dim=1)
            mixed = F.conv2d(mixed, each.conv.weight, padding=1)
            mixed = F.group_norm(mixed, config.norm_groups, each.norm.weight, each.norm.bias, each.norm.eps)
            fused.append(F.relu(mixed))
        pyramid = fused

    # 4. RoIAlign on every level.  5. Convolutions, sum, flatten.
    unit = torch.tensor([last_width, last_height, last_width, last_height]) * PATCH
    pixels = [each * unit for each in boxes]
    cells = 0
    for i in range(count):
        stride = PATCH / 2 ** (count - 1 - i)
        features = roi_align(
            pyramid[i], pixels, config.roi_size, 1 / stride, sampling_ratio=config.sampling_ratio, aligned=True
        )
        conv = encoder.cells.convs[i]
        cells = cells + F.conv2d(features, conv.weight, conv.bias, padding=1)
    content = F.linear(F.relu(cells).flatten(1), encoder.content.weight, encoder.content.bias)

    # 6. The box itself.  7. To the width of the language model.
    position = encoder.position(torch.cat(boxes))
    embeddings = F.linear(content + position, encoder.output.weight, encoder.output.bias)
    return list(embeddings.split([len(each) for each in boxes]))
