"""Boxes: the record every reader yields, and the one place where boxes are checked and change their unit."""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class RegionDialogue:
    """A dialogue about regions of one picture: the record of every data set.

    `boxes` are absolute pixels of the picture, xyxy; `turns` are `{"role": "user" | "assistant", "content": text}` where
    `<region1>` names `boxes[0]`.
    """

    id: str
    source: str
    image: str
    width: int
    height: int
    boxes: list[list[float]]
    labels: list[str] | None
    turns: list[dict[str, str]]
    choices: dict[str, Any] | None = None


def validate_boxes(boxes, image_size: tuple[int, int]) -> list[list[float]]:
    """Check boxes against their picture and clip what overlaps its border.

    Args:
        boxes: N boxes (x1, y1, x2, y2) in absolute pixels, origin top left; lists, numpy or torch. `None` means no boxes.
        image_size: (width, height) of the picture in pixels.
    Returns:
        N lists of four floats inside [0, width] x [0, height].
    Raises:
        ValueError: a box is not four finite numbers, is reversed, has no area, or lies outside. Names the region (from 1).
    """
    width, height = image_size
    if not (width > 0 and height > 0):
        raise ValueError(f"image size {width} x {height}: both sides must be positive")
    return [validate_box(box, number, image_size) for number, box in enumerate(listed(boxes), start=1)]


def listed(regions) -> list:
    """Regions as a list, `None` as an empty one; ValueError for what is no sequence of regions."""
    if regions is None:
        return []
    regions = regions.tolist() if hasattr(regions, "tolist") else regions
    if isinstance(regions, (str, bytes, dict, set, frozenset)) or not hasattr(regions, "__iter__"):
        raise ValueError(
            f"the regions are {reprlib.repr(regions)}, expected a list of boxes (x1, y1, x2, y2) or outlines"
        )
    return list(regions)


def numbers(values) -> list[float]:
    """Numbers as floats.

    Raises:
        TypeError, ValueError, OverflowError: texts, truth values and whatever has no order are none.
    """
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, (str, bytes, bytearray, dict, set, frozenset)):
        raise TypeError(f"{type(values).__name__} holds no numbers in an order")
    values = list(values)
    if any(isinstance(value, (str, bytes, bool)) for value in values):
        raise TypeError("a text or a truth value is no number")
    return [float(value) for value in values]


def validate_box(box, number: int, image_size: tuple[int, int]) -> list[float]:
    """One box, as in `validate_boxes`; `number` is what errors call its region."""
    width, height = image_size

    def refuse(problem: str) -> ValueError:
        return ValueError(f"region {number}: {problem}; the image is {width:g} x {height:g} pixels")

    try:
        values = numbers(box)
    except (TypeError, ValueError, OverflowError):
        values = []
    if len(values) != 4:
        raise refuse(f"a box is four numbers (x1, y1, x2, y2), got {reprlib.repr(box)}")
    shown = "(" + ", ".join(f"{value:g}" for value in values) + ")"
    if not all(map(math.isfinite, values)):
        raise refuse(f"box {shown} has a coordinate that is not finite")
    x1, y1, x2, y2 = values
    for axis, low, high in (("x", x1, x2), ("y", y1, y2)):
        if low > high:
            raise refuse(f"box {shown} is reversed, {axis}1 {low:g} is greater than {axis}2 {high:g}")
        if low == high:
            raise refuse(f"box {shown} has no area, {axis}1 and {axis}2 are both {low:g}")
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise refuse(f"box {shown} lies outside the image")
    return [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))]


def normalise_boxes(boxes, image_size: tuple[int, int]) -> Tensor:
    """Validated boxes in the model's unit.

    Args:
        boxes, image_size: as in `validate_boxes` (xyxy pixels; width, height).
    Returns:
        float32 [N, 4], xyxy, each in [0, 1]; [0, 4] for no boxes.
    Raises:
        ValueError: as `validate_boxes`.
    """
    pixels = torch.tensor(validate_boxes(boxes, image_size), dtype=torch.float64).reshape(-1, 4)
    return (pixels / pixels.new_tensor([*image_size, *image_size])).float()


def denormalise_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """The way back of `normalise_boxes`: [N, 4] xyxy in [0, 1] -> [N, 4] xyxy in pixels of a (width, height) picture."""
    return boxes * boxes.new_tensor([*image_size, *image_size])
