"""Which part of a picture is seen, and how large: pixels of the picture <-> pixels of the canvas."""

from __future__ import annotations

STEP = 1.5  # one press of a zoom button
LARGEST = 32.0  # canvas pixels per picture pixel, at most (more if fitting needs more)
SMALLEST_SIDE = 64  # of the canvas, so that a strip of a picture can still be hit


class View:
    """A window on the picture.

    Args:
        picture_size: (width, height) in pixels.
        width, height: room on the screen, in CSS pixels; the canvas takes the part of it that the whole picture fills.

    Attributes:
        width, height: size of the canvas in CSS pixels.
        scale: canvas pixels per picture pixel.
        left, top: the picture's point in the upper left corner of the canvas, in its pixels.
    """

    def __init__(self, picture_size: tuple[int, int], width: int, height: int):
        if width < SMALLEST_SIDE or height < SMALLEST_SIDE:
            raise ValueError(
                f"a canvas of {width} x {height} pixels, expected at least {SMALLEST_SIDE} x {SMALLEST_SIDE}"
            )
        self.picture_size = picture_size
        self.fitting = min(width / picture_size[0], height / picture_size[1])
        self.width, self.height = (max(SMALLEST_SIDE, round(side * self.fitting)) for side in picture_size)
        self.fit()

    def fit(self):
        """The whole picture."""
        self.scale, self.left, self.top = self.fitting, 0.0, 0.0

    @property
    def is_fitting(self) -> bool:
        return self.scale <= self.fitting

    @property
    def visible(self) -> tuple[float, float, float, float]:
        """The part of the picture that is seen, xyxy in its pixels."""
        width, height = self.picture_size
        right, bottom = self.left + self.width / self.scale, self.top + self.height / self.scale
        return self.left, self.top, min(right, width), min(bottom, height)

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        return self.left + x / self.scale, self.top + y / self.scale

    def to_canvas(self, x: float, y: float) -> tuple[float, float]:
        return (x - self.left) * self.scale, (y - self.top) * self.scale

    def box_to_canvas(self, box) -> tuple[float, float, float, float]:
        return (*self.to_canvas(*box[:2]), *self.to_canvas(*box[2:]))

    def zoom(self, factor: float, x: float | None = None, y: float | None = None):
        """Larger (factor above 1) or smaller; the point under (x, y) of the canvas, by default its middle, stays where it is."""
        self.set_scale(self.scale * factor, x, y)

    def set_scale(self, scale: float, x: float | None = None, y: float | None = None):
        """Canvas pixels per picture pixel, from the whole picture up to `LARGEST`; the point under (x, y) stays where it is."""
        x, y = self.width / 2 if x is None else x, self.height / 2 if y is None else y
        held = self.to_picture(x, y)
        self.scale = max(self.fitting, min(scale, max(LARGEST, self.fitting)))
        self.left, self.top = held[0] - x / self.scale, held[1] - y / self.scale
        self._keep_inside()

    def pan(self, dx: float, dy: float):
        """Move the picture under the window by canvas pixels."""
        self.left, self.top = self.left - dx / self.scale, self.top - dy / self.scale
        self._keep_inside()

    def reveal(self, box):
        """Move as little as shows a box (its middle, if it is larger than the window)."""
        left, top, right, bottom = self.visible
        self.left += _shift(box[0], box[2], left, right)
        self.top += _shift(box[1], box[3], top, bottom)
        self._keep_inside()

    def _keep_inside(self):
        width, height = self.picture_size
        self.left = max(0.0, min(self.left, width - self.width / self.scale))
        self.top = max(0.0, min(self.top, height - self.height / self.scale))


def _shift(low: float, high: float, start: float, end: float) -> float:
    if high - low > end - start:
        return (low + high - start - end) / 2
    return min(0.0, low - start) + max(0.0, high - end)
