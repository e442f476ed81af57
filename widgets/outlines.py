"""Outlines under the pointer: polygons of (x, y) points in pixels of the picture, as plain Python because the pointer asks often."""

from __future__ import annotations

import math

MOST = 40  # points of an outline that was drawn by hand
LEAST_AREA = 0.01  # square pixels: what encloses less is a line


def encloses(outline, x: float, y: float) -> bool:
    """Whether a point lies in an outline, by the number of edges to its right, as the model's masks count it."""
    inside = False
    for (ax, ay), (bx, by) in edges(outline):
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            inside = not inside
    return inside


def area(outline) -> float:
    """In square pixels; where an outline crosses itself, its parts count against each other."""
    return abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in edges(outline))) / 2


def edges(outline):
    """Pairs of neighbours, the last with the first too."""
    return zip(outline, (*outline[1:], *outline[:1]), strict=True)


def scaled(outline, old, new) -> tuple[tuple[float, float], ...]:
    """An outline whose bounding box was `old`, stretched to `new`; both xyxy."""

    def along(value: float, start: float, end: float, low: float, high: float) -> float:
        part = (value - start) / (end - start)
        return min(max((1 - part) * low + part * high, low), high)  # exact at both ends

    return tuple(
        (along(x, old[0], old[2], new[0], new[2]), along(y, old[1], old[3], new[1], new[3])) for x, y in outline
    )


def simplified(path, tolerance: float, most: int = MOST) -> list:
    """A path with fewer points: what is left out lies within the tolerance of what stays (Douglas and Peucker's way).

    Args:
        path: points in order; the first and the last stay.
        tolerance: in pixels of the picture; it grows until no more than `most` points stay.
    """
    path = list(path)
    kept = _kept(path, tolerance)
    while len(kept) > max(most, 3):
        tolerance = max(1.4 * tolerance, 1e-3)
        kept = _kept(path, tolerance)
    return kept


def _kept(path: list, tolerance: float) -> list:
    if len(path) < 3:
        return path
    stay, spans = {0, len(path) - 1}, [(0, len(path) - 1)]
    while spans:
        start, end = spans.pop()
        far, place = max(
            ((_distance(path[i], path[start], path[end]), i) for i in range(start + 1, end)), default=(0.0, start)
        )
        if far > tolerance:
            stay.add(place)
            spans += [(start, place), (place, end)]
    return [path[i] for i in sorted(stay)]


def _distance(point, one, other) -> float:
    """From a point to a line between two others."""
    (x, y), (ax, ay), (bx, by) = point, one, other
    length = (bx - ax) ** 2 + (by - ay) ** 2
    part = 0.0 if length == 0 else min(max(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length, 0.0), 1.0)
    return math.hypot(x - ax - part * (bx - ax), y - ay - part * (by - ay))
