"""The region encoder at the paper's size: against its literal formulation, against a floor, and a moved box against one from scratch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..regions import RegionEncoder
from .literal import PAPER_GRID, PATCH, literal_region_embeddings, paper_region_encoder
from .measure import compared, timed

BATCHES = {"region_encoder": 1, "region_encoder_16": 16}
"""Rows of the table -> pictures at once. A CPU has the first one."""


def bench_region_encoder(repeats: int = 3, device: str = "cpu") -> dict[str, float]:
    """The region encoder of paper size against the literal formulation, pictures with two regions each; in bfloat16 on a GPU."""
    results = {}
    for name, batch in BATCHES.items():
        if batch > 1 and device == "cpu":
            continue
        # Peaks of the same computation differ by a fifth from one process to the next.
        found, (literal, ours), seconds = compared(
            name, encoder_ways, repeats, device, peaks=min(repeats, 3), batch=batch
        )
        scale = 1 if device == "cpu" else literal.abs().max()  # of bfloat16 the relative error is what counts
        results |= found | {f"{name}_max_difference": ((literal - ours).abs().max() / scale).item()}
        results[f"{name}_floor_ratio"] = seconds["ours"] / floor_seconds(*paper_inputs(device, batch))
    return results


def paper_inputs(device: str, batch: int = 1) -> tuple[RegionEncoder, list[Tensor], list[Tensor]]:
    """`paper_region_encoder` for a batch, in float32 on a CPU and in bfloat16 elsewhere."""
    encoder, levels, boxes = paper_region_encoder()
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    levels = [level.expand(batch, -1, -1).to(device, dtype) for level in levels]
    return encoder.to(device, dtype), levels, [box.to(device) for box in boxes * batch]


def encoder_ways(device: str, batch: int = 1) -> tuple[Callable, Callable]:
    """Two ways to [batch * 2, D]."""
    encoder, levels, boxes = paper_inputs(device, batch)

    @torch.no_grad()
    def plain():
        return torch.cat(literal_region_embeddings(encoder, levels, boxes))

    @torch.no_grad()
    def ours():
        return torch.cat(encoder(levels, boxes))

    return plain, ours


def floor_seconds(encoder: RegionEncoder, levels: list[Tensor], boxes: list[Tensor]) -> float:
    """A time below which nothing that does these multiplications gets on this device.

    The multiplications of the encoder as it runs on a GPU, at the speed of a large matrix product; or, if that takes longer, weights and levels
    read once at the speed of a copy.
    """
    weight = next(encoder.parameters())
    moved = sum(each.numel() * each.element_size() for each in (*encoder.parameters(), *levels))
    product = torch.ones(4096, 4096, device=weight.device, dtype=weight.dtype)
    copy = torch.ones(2**28, device=weight.device, dtype=torch.uint8)
    rate = 2 * len(product) ** 3 / min(timed(lambda: product @ product) for _ in range(5))
    bandwidth = 2 * len(copy) / min(timed(copy.clone) for _ in range(5))  # read and written
    return max(count_flops(encoder, levels, boxes) / rate, moved / bandwidth)


@torch.no_grad()
def count_flops(encoder: RegionEncoder, levels: list[Tensor], boxes: list[Tensor]) -> int:
    """Twice the multiplications of the encoder as it runs on a GPU; nothing is computed."""
    with torch.device("meta"):
        encoder = RegionEncoder(encoder.config)
    with FlopCounterMode(display=False) as counter:
        encoder([level.float().to("meta") for level in levels], [box.to("meta") for box in boxes])
    return counter.get_total_flops()


def bench_moved_box(repeats: int = 3, device: str = "cpu") -> dict[str, float]:
    """A moved box of a known picture against the same box from scratch, at paper size with a vision tower of CLIP ViT-L/14's shape.

    From scratch is what the embedding of the moved box costs without any cache: vision tower, fusion, pooling.
    """
    found, (scratch, cache), _ = compared("moved_box", moved_box_ways, repeats, device)
    return found | {"moved_box_max_difference": (scratch - cache).abs().max().item()}


def moved_box_ways(device: str) -> tuple[Callable, Callable]:
    from ..presets import paper_7b
    from ..vision import VisionTower

    encoder, (level, *_), _ = paper_inputs(device)
    vision = VisionTower(paper_7b().vision_config, feature_layers=[-11, -8, -5, -2], image_layer=-2).eval().to(level)
    pixels = torch.randn(1, 3, PAPER_GRID * PATCH, PAPER_GRID * PATCH).to(level)
    moved = [torch.tensor([[0.3, 0.25, 0.7, 0.8]], device=device)]

    @torch.no_grad()
    def from_scratch() -> Tensor:
        features = vision(pixels)
        return encoder(features.levels, moved, features.grid)[0]

    with torch.no_grad():
        features = vision(pixels)
        fused = encoder.fuse(features.levels, features.grid)

    @torch.no_grad()
    def from_cache() -> Tensor:
        return encoder.pool(fused, moved)[0]

    return from_scratch, from_cache
