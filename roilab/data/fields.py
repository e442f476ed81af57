"""Checked access to the fields of a raw record: a wrong one is `Malformed`, with the field and what was found."""

from __future__ import annotations

import math
import sys
from typing import Any

from ..dialogues import escape_regions
from .report import Filtered, Malformed

_KINDS = {int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "an object"}
LARGEST_SIDE = 1_000_000  # pixels; no picture is as large, and a table column ends at 2^31
_MOST = 2**63  # what a column of whole numbers can hold
NO_AREA = "area 0, a side under 1 px, or outside the picture"


def field(record: Any, key: str, kind: type) -> Any:
    """`record[key]` as `kind` (int, float, str, list or dict).

    A whole float passes as int, an int as float; a bool is no number, and a text is never read as a number.

    Raises:
        Malformed: the record is no object, lacks the key, or holds another kind.
    """
    if not isinstance(record, dict):
        raise Malformed(f"{shown(record)} stands where an object is expected")
    if key not in record:
        raise Malformed(f"{key!r} is missing")
    return checked(record[key], kind, repr(key))


def checked(value: Any, kind: type, name: str) -> Any:
    """`value` as `kind`, as in `field`; `name` is what errors call it."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int and number and abs(value) < _MOST and value == int(value):
        return int(value)
    if kind is float and number and abs(value) < sys.float_info.max:
        return float(value)
    if kind is float and isinstance(value, float):
        return value  # not finite: who asks for a number decides
    if kind in (str, list, dict) and isinstance(value, kind):
        return value
    raise Malformed(f"{name} is {shown(value)}, expected {_KINDS[kind]}")


def size(record: dict) -> tuple[int, int]:
    """(width, height) of a picture in pixels, both positive and at most `LARGEST_SIDE`."""
    width, height = field(record, "width", int), field(record, "height", int)
    if min(width, height) < 1 or max(width, height) > LARGEST_SIDE:
        raise Malformed(f"a picture of {width} x {height} pixels")
    return width, height


def box_xywh(value: Any, width: int, height: int) -> list[float]:
    """[x, y, width, height] in pixels of a `width` x `height` picture -> [x1, y1, x2, y2], clipped to it.

    Raises:
        Malformed: not four finite numbers, or a negative side.
        Filtered: see `box_xyxy`.
    """
    x, y, w, h = _four(value)
    if w < 0 or h < 0:
        raise Malformed(f"box {shown(value)} (x, y, width, height) has a negative side")
    return _clipped([x, y, x + w, y + h], width, height)


def box_xyxy(value: Any, width: int, height: int) -> list[float]:
    """[x1, y1, x2, y2] in pixels of a `width` x `height` picture, clipped to it.

    Raises:
        Malformed: not four finite numbers, or reversed.
        Filtered: nothing of it, or less than a pixel on one side, lies in the picture.
    """
    x1, y1, x2, y2 = box = _four(value)
    if x1 > x2 or y1 > y2:
        raise Malformed(f"box {shown(value)} (x1, y1, x2, y2) is reversed")
    return _clipped(box, width, height)


def _four(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        raise Malformed(f"box {shown(value)}, expected four numbers")
    numbers = [side if type(side) is float else checked(side, float, f"a side of box {shown(value)}") for side in value]
    if not all(map(math.isfinite, numbers)):
        raise Malformed(f"box {shown(value)} has a side that is not finite")
    return numbers


def _clipped(box: list[float], width: int, height: int) -> list[float]:
    x1, y1, x2, y2 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
    if x2 - x1 < 1 or y2 - y1 < 1:
        raise Filtered(NO_AREA)
    return [x1, y1, x2, y2]


def raw(text: Any, name: str = "text") -> str:
    """A text of a file as it may stand in a turn: outer blanks off, and a literal `<region1>` in it quoted, so that it stays text.

    Raises:
        Malformed: not a text, or an empty one.
    """
    text = checked(text, str, name).strip()
    if not text:
        raise Malformed(f"{name} is empty")
    return escape_regions(text)


def shown(value: Any) -> str:
    """`repr`, shortened to what fits in a message."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # lists in lists in lists; a whole number of thousands of digits
        text = f"a {type(value).__name__} that is too deep or too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."
