"""Regions that are no boxes: outlines (a lasso) and points, as a box and a mask of its RoI cells.

An outline reaches the model as its bounding box, in which cells outside the outline are zeroed before they are flattened (`RegionEncoder.pool`).
No published weights, nor those of the tiny model, were trained on masks: take the answers with care.
"""

from __future__ import annotations

import math
import reprlib

import torch
from torch import Tensor

from .boxes import listed, normalise_boxes, numbers, validate_box

CORNERS = 24  # of the polygon that stands for a disc
RADIUS = 0.04  # of a point's disc, as a share of the picture's shorter side


def is_outline(region) -> bool:
    """Whether a region is given by points, not by the four numbers of a box."""
    region = region.tolist() if hasattr(region, "tolist") else region
    if isinstance(region, str) or not hasattr(region, "__iter__"):
        return False
    points = list(region)
    return bool(points) and all(hasattr(each, "__len__") and not isinstance(each, str) for each in points)


def validate_regions(regions, image_size: tuple[int, int]) -> list[list]:
    """Check regions against their picture, boxes as `validate_boxes` does, outlines as `outline_box`.

    Args:
        regions: boxes (x1, y1, x2, y2), or outlines of three or more points (x, y); pixels, origin top left.
        image_size: (width, height) of the picture in pixels.
    Returns:
        A list of four floats for a box, a list of [x, y] for an outline; what hangs over the border is clipped.
    Raises:
        ValueError: names the region (from 1) and what is wrong with it.
    """
    return [validate_region(region, number, image_size) for number, region in enumerate(listed(regions), start=1)]


def validate_region(region, number: int, image_size: tuple[int, int]) -> list:
    """One region, as in `validate_regions`; `number` is what errors call it."""
    return _clipped(region, number, image_size) if is_outline(region) else validate_box(region, number, image_size)


def bounding_box(region) -> list[float]:
    """xyxy of a box, as it is, or of an outline."""
    if not is_outline(region):
        return list(region)
    x, y = zip(*region, strict=True)
    return [min(x), min(y), max(x), max(y)]


def normalise_regions(regions, image_size: tuple[int, int], roi_size: int) -> tuple[Tensor, Tensor | None]:
    """Validated regions in the model's unit: boxes [N, 4] as of `normalise_boxes`, masks [N, r, r] as of `cell_mask`, None if all are boxes."""
    boxes = [bounding_box(region) for region in regions]
    masks = None
    if any(map(is_outline, regions)):
        whole = torch.ones(roi_size, roi_size)
        masks = torch.stack(
            [
                cell_mask(each, box, roi_size) if is_outline(each) else whole
                for each, box in zip(regions, boxes, strict=True)
            ]
        )
    return normalise_boxes(boxes, image_size), masks


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
    x, y = x1 + share * (x2 - x1), y1 + share * (y2 - y1)
    mask = _within(points, x, y)
    if not mask.any():
        middle = points.mean(0)
        mask[(y - middle[1]).abs().argmin(), (x - middle[0]).abs().argmin()] = True
    return mask.float()


def grid_mask(region, image_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """[rows, columns] bool: which cells of a grid over a whole picture have their middle in a box or an outline.

    Args:
        region: in pixels of the picture. image_size: its (width, height). grid: (rows, columns).
    """
    (width, height), (rows, columns) = image_size, grid
    x = (torch.arange(columns, dtype=torch.float64) + 0.5) * width / columns
    y = (torch.arange(rows, dtype=torch.float64) + 0.5) * height / rows
    if is_outline(region):
        return _within(_points(region, 1), x, y)
    x1, y1, x2, y2 = region
    return ((y >= y1) & (y <= y2))[:, None] & ((x >= x1) & (x <= x2))[None]


def _within(points: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[len(y), len(x)] bool: places in an outline, by the number of edges to their right."""
    x, y = x[None, :, None], y[:, None, None]
    (ax, ay), (bx, by) = points.T, points.roll(-1, 0).T  # edges from a to b
    crosses = (ay > y) != (by > y)
    at = ax + (y - ay) * (bx - ax) / torch.where(by == ay, torch.ones_like(by), by - ay)
    return (crosses & (x < at)).sum(2) % 2 == 1


def _clipped(outline, number: int, image_size: tuple[int, int]) -> list[list[float]]:
    outline_box(outline, number, image_size)
    width, height = image_size
    return [
        [min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))] for x, y in _points(outline, number).tolist()
    ]


def _points(outline, number: int) -> Tensor:
    """[P, 2] float64."""
    given = outline.tolist() if hasattr(outline, "tolist") else outline
    try:
        points = torch.tensor([numbers(point) for point in given], dtype=torch.float64)
    except (TypeError, ValueError, OverflowError):
        points = torch.zeros(0)
    if points.dim() != 2 or points.shape[1] != 2 or len(points) < 3:
        raise ValueError(f"region {number}: an outline is three or more points (x, y), got {reprlib.repr(given)}")
    if not points.isfinite().all():
        raise ValueError(f"region {number}: a point of the outline is not finite")
    return points


def _area(points: Tensor) -> float:
    (x, y), (next_x, next_y) = points.T, points.roll(-1, 0).T
    return abs((x * next_y - next_x * y).sum().item()) / 2
