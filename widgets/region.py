"""One region of a picture as plain data."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from roilab.pictures import read_picture
from roilab.plotting.style import region_colour
from roilab.regions import bounding_box, disc, is_outline, outline_box, validate_box

from .outlines import area, encloses, scaled

KINDS = ("box", "polygon", "point")
LABEL_LENGTH = 200
MOST_REGIONS = 10_000  # lists by number have a place for each


@dataclass(frozen=True)
class Region:
    """One region. Lengths are pixels of the picture.

    Attributes:
        id: the number in `<regionN>`, from 1.
        box: (x1, y1, x2, y2); of an outline the smallest box that holds it.
        label: any text, for people; the model does not see it.
        kind: "box", "polygon" (drawn with the lasso) or "point".
        outline: (x, y) points: of a polygon its corners, of a point the small disc that stands for it, of a box none.
        place: (x, y) of a point, else None.
    """

    id: int
    box: tuple[float, float, float, float]
    label: str = ""
    kind: str = "box"
    outline: tuple[tuple[float, float], ...] = ()
    place: tuple[float, float] | None = None

    @property
    def colour(self) -> str:
        """The colour of this number everywhere, "#rrggbb"."""
        return region_colour(self.id)

    @property
    def name(self) -> str:
        return f"region{self.id}"

    @property
    def shape(self) -> list:
        """What the model gets, as `Chat.regions` takes it: the four numbers of a box, or an outline's [x, y] points."""
        return [list(point) for point in self.outline] or list(self.box)

    @property
    def area(self) -> float:
        x1, y1, x2, y2 = self.box
        return area(self.outline) if self.outline else (x2 - x1) * (y2 - y1)

    def contains(self, x: float, y: float, reach: float = 0.0) -> bool:
        """Whether a point lies in the box or the outline; of a point also within `reach` of its place."""
        x1, y1, x2, y2 = self.box
        if self.place is not None and math.dist(self.place, (x, y)) <= reach:
            return True
        return x1 <= x <= x2 and y1 <= y <= y2 and (not self.outline or encloses(self.outline, x, y))

    def moved(self, dx: float, dy: float, size: tuple[int, int]) -> Region:
        """Shifted with its shape kept, as far as a picture of this (width, height) allows; a point's place stays on the picture."""
        x1, y1, x2, y2 = self.box if self.place is None else (*self.place, *self.place)
        dx, dy = max(-x1, min(dx, size[0] - x2)), max(-y1, min(dy, size[1] - y2))
        (x1, y1), (x2, y2), *outline = (
            clipped(x + dx, y + dy, size) for x, y in ((x1, y1), (x2, y2), *self.outline)
        )  # sums of fractions may miss the border
        if self.place is not None:
            return pointed(self, (x1, y1), size)
        return replace(self, box=(x1, y1, x2, y2), outline=tuple(outline))

    def fitted(self, box, size: tuple[int, int]) -> Region:
        """With another box; an outline is stretched to it.

        Raises:
            ValueError: as `validate_box`; a point, which has no size.
        """
        if self.place is not None:
            raise ValueError(f"region {self.id} is a point: it has no size, it can only be moved")
        box = tuple(validate_box(box, self.id, size))
        return replace(self, box=box, outline=scaled(self.outline, self.box, box))

    def to_dict(self) -> dict:
        record = {
            "id": self.id, "kind": self.kind, "box": list(self.box), "label": self.label, "colour": self.colour,
        }  # fmt: skip
        if self.kind == "polygon":
            record["outline"] = self.shape
        elif self.kind == "point":
            record["place"] = list(self.place)
        return record


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


def clipped(x: float, y: float, size: tuple[int, int]) -> tuple[float, float]:
    """The point of a picture of this (width, height) that is nearest to (x, y)."""
    return max(0.0, min(x, float(size[0]))), max(0.0, min(y, float(size[1])))


def pointed(region: Region, place, size: tuple[int, int]) -> Region:
    """The region as a point at a place (x, y) of a picture of this (width, height)."""
    outline = tuple(map(tuple, disc(*place, size)))
    return replace(region, kind="point", box=tuple(bounding_box(outline)), outline=outline, place=tuple(place))


def checked_region(fields: dict, size: tuple[int, int]) -> Region:
    """A region of a picture of this (width, height) from `id` and `box`, `outline` or `place`, perhaps `label` and `kind`, as in `Region.to_dict`.

    Raises:
        ValueError: as `validate_box` and `outline_box`; a number that is no whole number from 1, an unknown kind, a kind without what it
            needs, a place outside of the picture.
    """
    number, label = fields["id"], one_line(fields.get("label", ""))
    kind = fields.get("kind", "polygon" if "outline" in fields else "point" if "place" in fields else "box")
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST_REGIONS:
        raise ValueError(f"a region has the number {number!r}, expected a whole number from 1 to {MOST_REGIONS:,}")
    if kind not in KINDS:
        raise ValueError(f"region {number} is of the kind {kind!r}, expected one of {', '.join(KINDS)}")
    needed = {"box": "box", "polygon": "outline", "point": "place"}[kind]
    if needed not in fields:
        raise ValueError(f"region {number} has no {needed}, only {sorted(fields)}")
    if kind == "box":
        return Region(number, tuple(validate_box(fields["box"], number, size)), label)
    if kind == "point":
        return pointed(Region(number, (), label), _checked_place(fields["place"], number, size), size)
    outline_box(fields["outline"], number, size)
    outline = tuple(clipped(float(x), float(y), size) for x, y in fields["outline"])
    return Region(number, tuple(outline_box(outline, number, size)), label, kind, outline)


def _checked_place(place, number: int, size: tuple[int, int]) -> tuple[float, float]:
    try:
        x, y = (float(value) for value in place)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"region {number}: a point is two numbers (x, y), got {place!r}") from None
    if not (0 <= x <= size[0] and 0 <= y <= size[1]):
        raise ValueError(
            f"region {number}: the point ({x:g}, {y:g}) lies outside the image of {size[0]} x {size[1]} pixels"
        )
    return x, y


def checked_regions(regions: Iterable, size: tuple[int, int], free: Callable[[set[int]], int]) -> tuple[Region, ...]:
    """`Region`s, dicts as of `Region.to_dict`, boxes or outlines of a picture of this (width, height) -> checked regions, in their order.

    Args:
        free: from the numbers that are taken to the one that a region without a number gets.
    Raises:
        ValueError: as `checked_region`; two regions of one number.
    """
    regions = regions.tolist() if hasattr(regions, "tolist") else list(regions)
    records = [each.to_dict() if isinstance(each, Region) else each for each in regions]
    records = [dict(each) if isinstance(each, dict) else shape_record(each) for each in records]
    given = [checked_region(each, size).id for each in records if "id" in each]
    doubled = sorted(number for number, count in Counter(given).items() if count > 1)
    if doubled:
        raise ValueError(f"{given.count(doubled[0])} regions have the number {doubled[0]}, expected 1")
    taken = set(given)
    for each in records:
        taken.add(each.setdefault("id", free(taken)))
    return tuple(checked_region(each, size) for each in records)


def shape_record(shape) -> dict:
    """A bare box or outline as a record for `checked_region`."""
    shape = list(shape) if hasattr(shape, "__next__") else shape  # which can be read only once
    return {"outline" if is_outline(shape) else "box": shape}
