"""Boxes under the pointer: handles, and edges that follow it on whole pixels of the picture."""

from __future__ import annotations

import math

# Where each handle is, as parts of the box's width and height.
HANDLES = {
    "nw": (0, 0), "n": (0.5, 0), "ne": (1, 0), "e": (1, 0.5), "se": (1, 1), "s": (0.5, 1), "sw": (0, 1), "w": (0, 0.5),
}  # fmt: skip
CURSORS = {"n": "ns", "s": "ns", "e": "ew", "w": "ew", "nw": "nwse", "se": "nwse", "ne": "nesw", "sw": "nesw"}


def handle_at(place, x: float, y: float, reach: float) -> str | None:
    """The handle of a box that takes hold at a point, or None; all in pixels of the canvas.

    Args:
        place: the box, xyxy.
        reach: how far from its handle a point may be, horizontally and vertically.
    """
    x1, y1, x2, y2 = place
    # Inside a small box the handles leave the middle free, so that it can be moved.
    inside = x1 < x < x2 and y1 < y < y2
    reach_x, reach_y = (min(reach, (x2 - x1) / 4), min(reach, (y2 - y1) / 4)) if inside else (reach, reach)
    near = {}
    for name, (right, down) in HANDLES.items():
        dx, dy = abs(x - (x1 + right * (x2 - x1))), abs(y - (y1 + down * (y2 - y1)))
        if dx <= reach_x and dy <= reach_y:
            near[name] = math.hypot(dx, dy)
    return min(near, key=near.get) if near else None


def spanned(one, other, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box between two points of a picture of this (width, height), on whole pixels, at least one of them wide and high."""
    (left, right), (top, bottom) = _snapped(one[0], other[0], size[0]), _snapped(one[1], other[1], size[1])
    return left, top, right, bottom


def resized(box, handle: str, dx: float, dy: float, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The edges at the handle follow the pointer; the others stay as they are, also when they are crossed."""
    width, height = size
    x1, y1, x2, y2 = box
    if "w" in handle:
        x1, x2 = _edge(x1 + dx, x2, width)
    elif "e" in handle:
        x1, x2 = _edge(x2 + dx, x1, width)
    if "n" in handle:
        y1, y2 = _edge(y1 + dy, y2, height)
    elif "s" in handle:
        y1, y2 = _edge(y2 + dy, y1, height)
    return x1, y1, x2, y2


def _snapped(one: float, two: float, limit: int) -> tuple[float, float]:
    """Two positions -> whole numbers in order, at least 1 apart, within 0..limit."""
    low, high = sorted((round(one), round(two)))
    if low == high:
        low, high = (low, high + 1) if high < limit else (low - 1, high)
    return float(low), float(high)


def _edge(moved: float, fixed: float, limit: int) -> tuple[float, float]:
    """An edge on a whole pixel within 0..limit and the opposite one, in order, at least one pixel apart where there is room."""
    moved = float(max(0, min(round(moved), limit)))
    if abs(moved - fixed) < 1:
        moved = fixed + 1 if fixed + 1 <= limit else fixed - 1
    return min(moved, fixed), max(moved, fixed)
