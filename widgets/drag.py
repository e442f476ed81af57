"""One press of the mouse or a finger that has not ended, and what becomes of it: a new region, a moved or a resized one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from roilab.regions import disc

from .boxes import resized, spanned
from .outlines import LEAST_AREA, area, edges, simplified
from .regions import RegionSet

CLICK = 4  # canvas pixels: what moves less is a click
PATH_STEP = 2  # canvas pixels between two points of a lasso that is drawn
PATH_MOST = 150  # of its points stay when it has twice as many
PATH_TOLERANCE = 1.0  # canvas pixels that a finished lasso may lie beside its path


@dataclass
class Drag:
    """A press that has not ended.

    Attributes:
        doing: "new", "point", "lasso", "move", "resize" or "pan".
        start, last: where it began and is, in pixels of the canvas.
        begun, at: the same on the picture, in its pixels.
        scale: canvas pixels per pixel of the picture.
        number: the region it changes, if there is one already.
        handle: a key of `HANDLES`, when resizing.
        moved: it went far enough not to be a click.
        path: of a lasso, where it went, in pixels of the picture.
    """

    doing: str
    start: tuple[float, float]
    last: tuple[float, float]
    begun: tuple[float, float]
    at: tuple[float, float]
    scale: float = 1.0
    number: int | None = None
    handle: str | None = None
    moved: bool = False
    path: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self):
        self.path.append(self.begun)

    def move(self, last: tuple[float, float], at: tuple[float, float]):
        """Go on to a point, given on the canvas and on the picture."""
        self.last, self.at = last, at
        self.moved = self.moved or math.dist(self.start, last) >= CLICK
        if self.doing == "lasso":
            if math.dist(at, self.path[-1]) * self.scale >= PATH_STEP:
                self.path.append(at)
            if len(self.path) > 2 * PATH_MOST:
                self.path = simplified(self.path, 0.5 / self.scale, PATH_MOST)

    def changes(self, regions: RegionSet) -> bool:
        """Whether a release would change the regions, as far as can be said now."""
        if self.number is not None and self.number not in regions:
            return False  # it was removed meanwhile
        if self.doing == "resize" and regions[self.number].kind == "point":
            return False  # it became one meanwhile
        return self.doing == "point" or (self.moved and self.doing != "pan")

    def draft(self, regions: RegionSet):
        """The box xyxy or outline that is seen meanwhile, in pixels of the picture. A lasso that has just begun may be a line."""
        if self.doing == "new":
            return spanned(self.begun, self.at, regions.size)
        if self.doing == "point":
            return tuple(map(tuple, disc(*self.target, regions.size)))
        if self.doing == "lasso":
            return *self.path, self.at
        region = regions[self.number]
        if self.doing == "move":
            region = region.moved(*self.step, regions.size)
        else:
            region = region.fitted(self.stretched(regions), regions.size)
        return region.outline or region.box

    def commit(self, regions: RegionSet):
        """Make the change."""
        if self.doing == "new":
            regions.add(self.draft(regions))
        elif self.doing == "point":
            regions.add_point(*self.target)
        elif self.doing == "lasso":
            outline = self.outline
            if area(outline) >= LEAST_AREA:  # else it is a line, which encloses nothing
                regions.add(outline)
        elif self.doing == "move":
            regions.move(self.number, *self.step)
        else:
            regions.resize(self.number, self.stretched(regions))

    @property
    def pulled(self) -> tuple[float, float]:
        """How far it went on the picture."""
        return self.at[0] - self.begun[0], self.at[1] - self.begun[1]

    @property
    def step(self) -> tuple[int, int]:
        """How far it moves a region: whole pixels."""
        return round(self.pulled[0]), round(self.pulled[1])

    @property
    def target(self) -> tuple[float, float]:
        """Where a new point goes: on whole pixels."""
        return float(round(self.at[0])), float(round(self.at[1]))

    @property
    def outline(self) -> list[tuple[float, float]]:
        """What a lasso encloses: a few dozen points on tenths of a pixel."""
        path = simplified([*self.path, self.at], PATH_TOLERANCE / self.scale)
        rounded = [(round(x, 1), round(y, 1)) for x, y in path]
        return [one for one, following in edges(rounded) if one != following]

    def stretched(self, regions: RegionSet) -> tuple[float, float, float, float]:
        """The box of the region that is resized, with its edges where they are pulled."""
        return resized(regions[self.number].box, self.handle, *self.pulled, regions.size)
