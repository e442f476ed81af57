"""Regions that are no boxes: outlines (a lasso) and points, as a box and a mask of its RoI cells.

An outline reaches the model as its bounding box, in which cells outside the outline are zeroed before they are flattened (`RegionEncoder.pool`).
No published weights, nor those of the tiny model, were trained on masks: take the answers with care.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .boxes import validate_box

CORNERS = 24  # of the polygon that stands for a disc
RADIUS = 0.04  # of a point's disc, as a share of the picture's shorter side


def outline_box(outline, number: int, image_size: tuple[int, int]) -> list[float]:
    """The bounding box of an outline, xyxy in pixels, clipped to the picture.

    Args:
        outline: three or more points (x, y) in pixels. number: what errors call its region. image_size: (width, height).
    Raises:
        ValueError: fewer points, a coordinate that is no finite number, no area, or outside of the picture.
    """
    points = _points(outline, number)
    x, y = points[:, 0], points[:, 1]
    if _area(points) == 0:
        raise ValueError(f"region {number}: an outline of {len(points)} points in a line has no area")
    return validate_box([x.min().item(), y.min().item(), x.max().item(), y.max().item()], number, image_size)


def disc(x: float, y: float, image_size: tuple[int, int]) -> list[list[float]]:
    """The outline that stands for a point of a picture of this (width, height): a small disc, cut off at the border."""
    width, height = image_size
    radius, found = RADIUS * min(width, height), []
    for i in range(CORNERS):
        angle = 2 * math.pi * i / CORNERS
        corner = (x + radius * math.cos(angle), y + radius * math.sin(angle))
        found.append([min(max(corner[0], 0.0), float(width)), min(max(corner[1], 0.0), float(height))])
    return found


def cell_mask(outline, box, roi_size: int) -> Tensor:
    """[r, r] float32: 1 for the cells of a box whose middle lies in the outline (even-odd rule), 0 for the others.

    A box that is so flat, or an outline so thin, that no middle lies in it keeps the cell that is nearest to the outline's middle.

    Args:
        outline: points (x, y); box: xyxy in the same unit.
    """
    points = _points(outline, 1)
    x1, y1, x2, y2 = (float(side) for side in box)
    share = (torch.arange(roi_size, dtype=torch.float64) + 0.5) / roi_size
    x, y = (x1 + share * (x2 - x1))[None, :, None], (y1 + share * (y2 - y1))[:, None, None]  # [1, r, 1], [r, 1, 1]
    (ax, ay), (bx, by) = points.T, points.roll(-1, 0).T  # edges from a to b
    crosses = (ay > y) != (by > y)
    at = ax + (y - ay) * (bx - ax) / torch.where(by == ay, torch.ones_like(by), by - ay)
    mask = (crosses & (x < at)).sum(2) % 2
    if not mask.any():
        middle = points.mean(0)
        mask[(y[:, 0, 0] - middle[1]).abs().argmin(), (x[0, :, 0] - middle[0]).abs().argmin()] = 1
    return mask.float()


def _points(outline, number: int) -> Tensor:
    """[P, 2] float64."""
    given = outline.tolist() if hasattr(outline, "tolist") else outline
    try:
        points = torch.tensor([[float(value) for value in point] for point in given], dtype=torch.float64)
    except (TypeError, ValueError, OverflowError):
        points = torch.zeros(0)
    if points.dim() != 2 or points.shape[1] != 2 or len(points) < 3:
        raise ValueError(f"region {number}: an outline is three or more points (x, y), got {given!r}")
    if not points.isfinite().all():
        raise ValueError(f"region {number}: a point of the outline is not finite")
    return points


def _area(points: Tensor) -> float:
    (x, y), (next_x, next_y) = points.T, points.roll(-1, 0).T
    return abs((x * next_y - next_x * y).sum().item()) / 2
