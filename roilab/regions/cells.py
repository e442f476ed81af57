"""Grid cells: a picture in 8 x 8 cells, columns A to H from the left, rows 1 to 8 from above, as on a map."""

from __future__ import annotations

import re

CELLS = 8
_CELL = re.compile(r"\s*([A-Za-z])\s*([0-9])\s*")


def cell_names() -> tuple[list[str], list[str]]:
    """Names of the columns and of the rows."""
    return [chr(ord("A") + k) for k in range(CELLS)], [str(k + 1) for k in range(CELLS)]


def cells_box(text: str, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """ "B2" or "B2:D5" -> the box (xyxy, pixels) that these cells cover in a picture of this (width, height).

    The two cells are any two opposite corners. Edges are rounded to whole pixels.

    Raises:
        ValueError: not one or two cells from A1 to H8.
    """
    parts = re.split(r"[:\-–]", text.strip())
    corners = [_cell(part, text) for part in parts]
    if len(corners) > 2:
        raise ValueError(f"{text!r} names {len(corners)} cells, expected one (B2) or two corners (B2:D5)")
    columns, rows = zip(*corners)
    (width, height), (left, right), (top, bottom) = size, (min(columns), max(columns) + 1), (min(rows), max(rows) + 1)
    x1, x2 = round(left * width / CELLS), round(right * width / CELLS)
    y1, y2 = round(top * height / CELLS), round(bottom * height / CELLS)
    if x1 == x2 or y1 == y2:
        raise ValueError(f"the cells {text!r} have no pixels in a picture of {width} x {height}: take more of them")
    return float(x1), float(y1), float(x2), float(y2)


def _cell(text: str, whole: str) -> tuple[int, int]:
    match = _CELL.fullmatch(text)
    column, row = (ord(match[1].upper()) - ord("A"), int(match[2]) - 1) if match else (-1, -1)
    if not (0 <= column < CELLS and 0 <= row < CELLS):
        raise ValueError(
            f"{whole.strip()!r} does not name cells: expected one from A1 to H8, or two corners like B2:D5"
        )
    return column, row
