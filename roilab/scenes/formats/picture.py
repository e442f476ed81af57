"""What the formats share: a drawn picture with its number, boxes and outlines in a file's terms, and what a format has to say for itself."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from ..dialogue import SPLITS
from ..wording import Box, View
from ..world import KINDS, Scene
from .references import Describer

MOST = 1_000_000  # scenes in one split of a directory
PER_PICTURE = 100  # ids that one picture may use in one file
CATEGORIES = {"person": 1} | {kind: 4 + 2 * i for i, kind in enumerate(KINDS)}
"""Category id of every kind, with gaps as in the COCO files: an id is no position in a list."""


@dataclass(frozen=True)
class Picture:
    """The `index`-th scene of a split, as a picture of a data directory."""

    scene: Scene
    split: str
    index: int

    @property
    def number(self) -> int:
        """Id of the picture, another one in every split."""
        return list(SPLITS).index(self.split) * MOST + self.index + 1

    @cached_property
    def view(self) -> View:
        return View(self.scene)

    @cached_property
    def describer(self) -> Describer:
        return Describer(self.view)

    @cached_property
    def jpeg(self) -> bytes:
        buffer = io.BytesIO()
        self.scene.image.save(buffer, "JPEG", quality=95, subsampling=0)
        return buffer.getvalue()

    @cached_property
    def outlines(self) -> dict[int, list[list[list[float]]]]:
        """Object id -> its silhouette as polygons [[x, y], ...] in pixels, tenths; their union counts."""
        return {
            item.id: [[[round(x, 1), round(y, 1)] for x, y in points] for points in item.polygons]
            for item in self.scene.objects
        }

    @cached_property
    def areas(self) -> dict[int, float]:
        """Object id -> square pixels of its silhouette."""
        return {id: outline_area(polygons, self.scene.size) for id, polygons in self.outlines.items()}

    @property
    def size(self) -> dict[str, int]:
        return {"height": self.scene.size, "width": self.scene.size}

    def id(self, position: int) -> int:
        """Id of the `position`-th thing that a file says of this picture."""
        if not 0 <= position < PER_PICTURE:
            raise ValueError(f"a picture has ids 0 to {PER_PICTURE - 1}, asked for {position}")
        return self.number * PER_PICTURE + position


def split_of(number: int) -> str:
    """Split of the picture with this number."""
    return list(SPLITS)[(number - 1) // MOST]


def xywh(box: Box) -> list[float]:
    """(x1, y1, x2, y2) in pixels -> [x, y, width, height] in pixels, hundredths."""
    x1, y1, x2, y2 = (round(value, 2) for value in box)
    return [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]


def area(box: Box) -> float:
    _, _, width, height = xywh(box)
    return round(width * height, 2)


def outline_area(polygons: list[list[list[float]]], size: int, finer: int = 4) -> float:
    """Square pixels that the union of polygons covers on a picture of `size` x `size`, counted on a `finer` grid."""
    mask = Image.new("L", (size * finer, size * finer))
    pen = ImageDraw.Draw(mask)
    for points in polygons:
        pen.polygon([(x * finer, y * finer) for x, y in points], fill=1)
    return mask.histogram()[1] / finer**2


class Entry(NamedTuple):
    """One record: the file it belongs into, the list in that file (None: the file is a list itself), the record, and how many it counts."""

    file: str
    list: str | None
    record: Any
    counts: int = 0


@dataclass(frozen=True)
class Format:
    """A data set's files.

    Args:
        splits: those that the data set has.
        files: split -> {file, relative to the data directory: what it holds beside the records}.
        image: picture -> its image file, relative to the data directory.
        describe: (picture, rng) -> the records that say something true of it. A picture without a record is not written.
        beside: picture -> further JSON files of its own.
        shared: the file is one for all splits: an export replaces those of its split.
    """

    splits: tuple[str, ...]
    files: Callable[[str], dict[str, dict[str, Any]]]
    image: Callable[[Picture], str]
    describe: Callable[[Picture, random.Random], Iterable[Entry]]
    beside: Callable[[Picture], dict[str, Any]] = field(default=lambda picture: {})
    shared: bool = False
