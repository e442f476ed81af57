"""Regions of one picture as plain data: the state behind every widget, without a browser.

Coordinates are pixels of the picture, xyxy, origin at the upper left corner. A region's id is the number that `<regionN>` names: it
stays with its region whatever happens to the others. A change replaces regions, it never changes one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from roilab.pictures import read_picture

from .region import Region, checked_region, checked_regions, one_line, picture_hash, shape_record

JSON_FORMAT = "roilab.regions.1"
LONGEST_SIDE = 1_000_000  # pixels


class RegionSet:
    """The regions of one picture: edits, selection, undo and redo, observers, JSON.

    The list's order is the order of drawing, the last on top. Safe to use from several threads.

    Args:
        size: (width, height) of the picture in pixels.
        regions: `Region`s, dicts as of `to_dict`, or boxes and outlines (which take the free numbers).
        image_hash: as of `picture_hash`; it travels with the JSON.
    Raises:
        ValueError: as `validate_box` and `outline_box`; two regions of one number.
    """

    def __init__(self, size: tuple[int, int], regions: Iterable = (), image_hash: str | None = None):
        width, height = (int(side) for side in size)
        if not (1 <= width <= LONGEST_SIDE and 1 <= height <= LONGEST_SIDE):
            raise ValueError(
                f"image size {width} x {height}: both sides must be positive, and at most {LONGEST_SIDE:,}"
            )
        self.size, self.image_hash = (width, height), image_hash
        self.lock = threading.RLock()
        self._reserved: dict[object, set[int]] = {}
        self._observers: list[Callable[[RegionSet], None]] = []
        self._regions: tuple[Region, ...] = self.normalise(regions)
        self._selected: int | None = None
        self._past: list[tuple[Region, ...]] = []
        self._future: list[tuple[Region, ...]] = []
        self._merging = None  # what the newest step of the past was, if the next one of its kind joins it

    @classmethod
    def of_picture(cls, image, regions: Iterable = ()) -> RegionSet:
        """The (first) regions of anything `read_picture` takes."""
        picture = read_picture(image)
        return cls(picture.size, regions, picture_hash(picture))

    # What is there

    @property
    def regions(self) -> tuple[Region, ...]:
        return self._regions

    @property
    def selected(self) -> int | None:
        """Number of the selected region, or None."""
        return self._selected

    @property
    def boxes(self) -> list[list[float] | None]:
        """Boxes by number: `boxes[0]` is region1; None where there is no such region. Those of outlines and points hold them."""
        return self._by_number({each.id: list(each.box) for each in self._regions})

    @property
    def shapes(self) -> list[list | None]:
        """What the model gets, by number as `boxes`: boxes, and outlines for polygons and points. `Chat` and the figures take it."""
        return self._by_number({each.id: each.shape for each in self._regions})

    @property
    def labels(self) -> list[str]:
        """Labels by number, beside `boxes`."""
        return self._by_number({each.id: each.label for each in self._regions}, "")

    @property
    def next_number(self) -> int:
        """The number that `add` gives: the smallest free one."""
        return self._free(each.id for each in self._regions)

    def __len__(self) -> int:
        return len(self._regions)

    def __iter__(self):
        return iter(self._regions)

    def __contains__(self, number: int) -> bool:
        return any(each.id == number for each in self._regions)

    def __getitem__(self, number: int) -> Region:
        for each in self._regions:
            if each.id == number:
                return each
        there = ", ".join(str(each.id) for each in sorted(self._regions, key=lambda each: each.id)) or "none"
        raise ValueError(f"there is no region {number}; the regions: {there}")

    # Edits; each is one step of undo

    def add(self, shape, label: str = "") -> int:
        """A new region on top, selected: a box, or an outline of three or more (x, y). Returns its number, the smallest that is free."""
        return self._add(shape_record(shape), label)

    add_box = add

    def add_point(self, x: float, y: float, label: str = "") -> int:
        """A new point on top, selected; returns its number."""
        return self._add({"place": (x, y)}, label)

    def resize(self, number: int, box, merge: bool = False):
        """Give a region another box; a polygon is stretched to it. With `merge`, a row of such edits of one region is a single step of undo."""
        with self.lock:
            self._put(self[number].fitted(box, self.size), ("resize", number) if merge else None)

    def move(self, number: int, dx: float, dy: float, merge: bool = False):
        """Shift a region by pixels of the picture; it stops at the border with its shape kept."""
        with self.lock:
            self._put(self[number].moved(dx, dy, self.size), ("move", number) if merge else None)

    def relabel(self, number: int, label: str, merge: bool = False):
        """Give a region another label; `merge` as for `resize`."""
        with self.lock:
            self._put(replace(self[number], label=one_line(label)), ("label", number) if merge else None)

    def remove(self, number: int):
        """Take a region away; the others keep their numbers."""
        with self.lock:
            gone = self[number]
            self._commit(tuple(each for each in self._regions if each is not gone))

    def reorder(self, number: int, place: int):
        """Put a region at a place of the drawing order, 0 at the bottom; beyond the ends means at the end."""
        with self.lock:
            moved = self[number]
            rest = [each for each in self._regions if each is not moved]
            rest.insert(max(0, min(place, len(rest))), moved)
            self._commit(tuple(rest))

    def replace(self, regions: Iterable):
        """All regions at once, as for the constructor."""
        with self.lock:
            self._commit(self.normalise(regions))

    def clear(self):
        self.replace(())

    def reserve(self, numbers: Iterable[int], owner=None):
        """No new region takes these numbers: a conversation (`owner`) uses them. They replace what this owner reserved before."""
        self._reserved[owner] = set(numbers)

    def undo(self) -> bool:
        """Take the last edit back; False if there is none."""
        return self._step(self._past, self._future)

    def redo(self) -> bool:
        """Do again what `undo` took back; False if there is nothing."""
        return self._step(self._future, self._past)

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        return bool(self._future)

    # Selection: no step of undo

    def select(self, number: int | None):
        """Select a region, or none."""
        with self.lock:
            if number is not None:
                self[number]
            self._merging = None
            if number != self._selected:
                self._selected = number
                self._tell()

    def select_next(self, step: int = 1):
        """Select the region after the selected one by number, round and round; `step` -1 goes backwards."""
        with self.lock:
            numbers = sorted(each.id for each in self._regions)
            if not numbers:
                return
            if self._selected is None:
                self.select(numbers[0 if step > 0 else -1])
            else:
                self.select(numbers[(numbers.index(self._selected) + step) % len(numbers)])

    def smallest_at(self, x: float, y: float, reach: float = 0.0) -> int | None:
        """Number of the smallest region that holds a point (pixels of the picture); of equal ones the upper. `reach` as for `Region.contains`."""
        there = [each for each in reversed(self._regions) if each.contains(x, y, reach)]
        return min(there, key=lambda each: each.area).id if there else None

    # Observers

    def observe(self, callback: Callable[[RegionSet], None]) -> Callable[[], None]:
        """Call back after every change of regions or selection; returns a function that ends this."""
        self._observers.append(callback)
        return lambda: self._observers.remove(callback) if callback in self._observers else None

    # Keeping

    def to_dict(self) -> dict:
        width, height = self.size
        return {
            "format": JSON_FORMAT,
            "image": {"width": width, "height": height, "sha256": self.image_hash},
            "regions": [each.to_dict() for each in self._regions],
        }

    def to_json(self) -> str:
        """Regions, size and hash of the picture as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls, record: dict) -> RegionSet:
        """What `to_dict` gave.

        Raises:
            ValueError: it is no such record, or its boxes do not fit its picture.
        """
        try:
            found, image, regions = record["format"], record["image"], list(record["regions"])
            size, image_hash = (int(image["width"]), int(image["height"])), image.get("sha256")
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"not saved regions: {type(error).__name__}: {error}") from error
        if image_hash is not None and not isinstance(image_hash, str):
            raise ValueError(f"not saved regions: sha256 is {image_hash!r}, expected a text")
        if found != JSON_FORMAT:
            raise ValueError(f"the regions have the format {found!r}, expected {JSON_FORMAT!r}")
        return cls(size, regions, image_hash)

    @classmethod
    def from_json(cls, text: str) -> RegionSet:
        """What `to_json` wrote; errors as of `from_dict`."""
        try:
            record = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not saved regions: {type(error).__name__}: {error}") from error
        return cls.from_dict(record)

    def check_picture(self, image):
        """Raises ValueError unless these regions are about this picture."""
        picture = read_picture(image)
        if picture.size != self.size:
            raise ValueError(
                f"the regions are about a picture of {self.size[0]} x {self.size[1]} pixels, "
                f"this one has {picture.width} x {picture.height}"
            )
        if self.image_hash is not None and (found := picture_hash(picture)) != self.image_hash:
            raise ValueError(
                f"the regions are about another picture of this size: their sha256 begins {self.image_hash[:12]}, this one's {found[:12]}"
            )

    def normalise(self, regions: Iterable) -> tuple[Region, ...]:
        """`Region`s, dicts, boxes or outlines -> checked `Region`s; what has no number takes the smallest free one."""
        return checked_regions(regions, self.size, self._free)

    # Inside

    def _free(self, taken) -> int:
        taken = set(taken).union(*self._reserved.values())
        return next(number for number in range(1, len(taken) + 2) if number not in taken)

    def _by_number(self, by_id: dict, missing=None) -> list:
        return [by_id.get(number, missing) for number in range(1, max(by_id, default=0) + 1)]

    def _add(self, record: dict, label: str) -> int:
        with self.lock:
            number = self.next_number
            new = checked_region({**record, "id": number, "label": label}, self.size)
            self._commit((*self._regions, new), selected=number)
            return number

    def _put(self, new: Region, merging=None):
        self._commit(tuple(new if each.id == new.id else each for each in self._regions), merging=merging)

    def _commit(self, regions: tuple[Region, ...], selected: int | None = None, merging=None):
        if regions == self._regions:
            return
        if merging is None or merging != self._merging:
            self._past.append(self._regions)
        self._merging = merging
        self._future.clear()
        self._regions = regions
        if selected is not None:
            self._selected = selected
        self._tell()

    def _step(self, source: list, target: list) -> bool:
        with self.lock:
            if not source:
                return False
            target.append(self._regions)
            self._regions, self._merging = source.pop(), None
            self._tell()
            return True

    def _tell(self):
        if self._selected is not None and self._selected not in self:
            self._selected = None
        errors = []
        for callback in tuple(self._observers):
            try:
                callback(self)
            except Exception as error:  # noqa: BLE001 - the others are told all the same
                errors.append(error)
        if errors:
            raise errors[0]
