"""Pictures in the place of a target's picture: baselines that say nothing, and controls that say something else."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

BASELINES = ("mean", "blur", "black")


def baseline_pixels(model, pixel_values: Tensor, kind: str) -> Tensor:
    """Preprocessed pixels [1, 3, H, W] of a picture that says nothing.

    Args:
        kind: "mean" (the picture's own mean colour), "blur" (Gaussian, an eighth of the longer side) or "black".
    Raises:
        ValueError: another kind.
    """
    if kind == "mean":
        return pixel_values.mean((2, 3), keepdim=True).expand_as(pixel_values).clone()
    if kind == "blur":
        sigma = max(pixel_values.shape[2:]) / 8
        size = [min(2 * math.ceil(2 * sigma) + 1, 2 * (side // 2) - 1) for side in pixel_values.shape[:1:-1]]
        return gaussian_blur(pixel_values, size, sigma)
    if kind == "black":
        processor = model.processor.image_processor
        mean, std = (
            pixel_values.new_tensor(each)[:, None, None] for each in (processor.image_mean, processor.image_std)
        )
        return (-mean / std).expand_as(pixel_values).clone()
    raise ValueError(f"baseline {kind!r}, expected one of {', '.join(BASELINES)}")


def shuffled_patches(pixel_values: Tensor, grid: tuple[int, int], seed: int = 0) -> Tensor:
    """Preprocessed pixels [B, 3, H, W] with the patches in another order: the same colours, no objects."""
    batch, channels, height, width = pixel_values.shape
    rows, columns = grid
    tiles = pixel_values.reshape(batch, channels, rows, height // rows, columns, width // columns)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(seed)).to(tiles.device)
    tiles = tiles[:, order].unflatten(1, grid).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(pixel_values.shape)
