"""One region of a picture as plain data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from roilab.pictures import read_picture
from roilab.plotting.style import region_colour
from roilab.regions import validate_box

KINDS = ("box",)
LABEL_LENGTH = 200


@dataclass(frozen=True)
class Region:
    """One region.

    Attributes:
        id: the number in `<regionN>`, from 1.
        box: (x1, y1, x2, y2) in pixels of the picture.
        label: any text, for people; the model does not see it.
        kind: "box".
    """

    id: int
    box: tuple[float, float, float, float]
    label: str = ""
    kind: str = "box"

    @property
    def colour(self) -> str:
        """The colour of this number everywhere, "#rrggbb"."""
        return region_colour(self.id)

    @property
    def name(self) -> str:
        return f"region{self.id}"

    @property
    def area(self) -> float:
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)

    def contains(self, x: float, y: float) -> bool:
        x1, y1, x2, y2 = self.box
        return x1 <= x <= x2 and y1 <= y <= y2

    def to_dict(self) -> dict:
        return {
            "id": self.id, "kind": self.kind, "box": list(self.box), "label": self.label, "colour": self.colour,
        }  # fmt: skip


def picture_hash(image) -> str:
    """SHA-256 over the size and the RGB pixels of a picture, as hexadecimal digits."""
    picture = read_picture(image)
    return hashlib.sha256(f"{picture.width}x{picture.height}:".encode() + picture.tobytes()).hexdigest()


def one_line(label) -> str:
    """A label as it is kept: one line, at most `LABEL_LENGTH` letters."""
    label = (
        ("" if label is None else str(label)).encode("utf-8", "replace").decode("utf-8")
    )  # lone surrogates cannot be saved
    return " ".join(label.split())[:LABEL_LENGTH].rstrip()


def checked_region(fields: dict, size: tuple[int, int]) -> Region:
    """A region of a picture of this (width, height) from `id` and `box`, and perhaps `label` and `kind`, as in `Region.to_dict`.

    Raises:
        ValueError: as `validate_box`; a number that is no whole number from 1, an unknown kind, no box.
    """
    number, kind, label = fields["id"], fields.get("kind", "box"), fields.get("label", "")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"a region has the number {number!r}, expected a whole number from 1")
    if kind not in KINDS:
        raise ValueError(f"region {number} is of the kind {kind!r}, expected one of {', '.join(KINDS)}")
    if "box" not in fields:
        raise ValueError(f"region {number} has no box, only {sorted(fields)}")
    return Region(number, tuple(validate_box(fields["box"], number, size)), one_line(label), kind)


def checked_regions(regions: Iterable, size: tuple[int, int], free: Callable[[set[int]], int]) -> tuple[Region, ...]:
    """`Region`s, dicts as of `Region.to_dict`, or boxes of a picture of this (width, height) -> checked regions, in their order.

    Args:
        free: from the numbers that are taken to the one that a region without a number gets.
    Raises:
        ValueError: as `checked_region`; two regions of one number.
    """
    regions = regions.tolist() if hasattr(regions, "tolist") else list(regions)
    records = [each.to_dict() if isinstance(each, Region) else each for each in regions]
    records = [dict(each) if isinstance(each, dict) else {"box": each} for each in records]
    given = [checked_region(each, size).id for each in records if "id" in each]
    doubled = sorted({number for number in given if given.count(number) > 1})
    if doubled:
        raise ValueError(f"{given.count(doubled[0])} regions have the number {doubled[0]}, expected 1")
    taken = set(given)
    for each in records:
        taken.add(each.setdefault("id", free(taken)))
    return tuple(checked_region(each, size) for each in records)
