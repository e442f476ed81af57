"""Drawing on ipycanvas: the picture, its regions, and what is being dragged, each on a layer of its own.

Only the layers that changed are drawn again, so that a drag costs a few hundred bytes a frame.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading

import ipywidgets
from ipycanvas import MultiCanvas, hold_canvas
from PIL import Image

from roilab.plotting.regions import tag_box, tag_place
from roilab.plotting.style import PALETTE, contrast, font_of, measuring_renderer, region_colour, text_colour, text_width
from roilab.regions import CELLS, bounding_box, cell_names, is_outline

from .boxes import HANDLES
from .editor import Editor
from .parts import close_tree

SHARP = 2  # pixels of the canvas per CSS pixel, for screens that show them
TAG, FONT_SIZE = 20, 14  # height of a tag and size of its letters, CSS pixels
FONT = f"bold {FONT_SIZE}px 'DejaVu Sans', Arial, sans-serif"
TAG_LETTERS = 24
PIXELS_SHOWN = 6  # from this scale on, the picture's pixels are shown as squares
DARK, LIGHT = "#1B1F24", "#FFFFFF"
_BATCH = threading.RLock()  # ipycanvas collects the commands of all canvases in one list


@contextlib.contextmanager
def batch():
    """`hold_canvas` for one thread at a time, which also ends when the drawing raises."""
    with _BATCH:
        error = None
        with hold_canvas():
            try:
                yield
            except BaseException as raised:  # noqa: BLE001 - raised again as soon as the batch is closed
                error = raised
        if error is not None:
            raise error


class Painter:
    """Keeps a `MultiCanvas` of three layers showing what an `Editor` holds.

    Args:
        canvas: its size is the view's, times `SHARP`.
        picture: PIL picture, RGB.
        editor: what to show.
    """

    def __init__(self, canvas: MultiCanvas, picture: Image.Image, editor: Editor):
        self.canvas, self.picture, self.editor = canvas, picture, editor
        self.grid = False
        self._shown: dict[int, object] = {}
        self._images: list[ipywidgets.Image] = []
        self._sources: dict[int, Image.Image] = {1: picture}

    def forget(self):
        """The canvas is blank (a new page shows it): the next `paint` draws everything."""
        self._shown.clear()

    def show_picture(self, picture: Image.Image):
        """Draw another picture of the same size."""
        if picture is not self.picture:
            self.picture, self._sources = picture, {1: picture}
            self._shown.pop(0, None)
            self.paint()

    def close(self):
        """Forget the pictures that were sent."""
        for image in self._images:
            close_tree(image)
        self._images.clear()

    def paint(self):
        """Draw the layers that are not up to date."""
        editor = self.editor
        view, regions = editor.view, editor.regions
        window = (view.scale, view.left, view.top)
        number, shape = editor.draft or (None, None)
        with batch():
            self._layer(0, window, self._paint_picture)
            content = (window, regions.regions, regions.selected, number, self.grid)
            self._layer(1, content, lambda layer: self._paint_regions(layer, hidden=number))
            self._layer(2, (window, number, shape), lambda layer: self._paint_draft(layer, number, shape))

    def _layer(self, index: int, content, draw):
        if self._shown.get(index, self) == content:
            return
        layer = self.canvas[index]
        layer.clear()
        layer.save()
        layer.scale(SHARP, SHARP)
        try:
            draw(layer)
        finally:
            layer.restore()
        self._shown[index] = content

    def _paint_picture(self, layer):
        view = self.editor.view
        x1, y1, x2, y2 = view.box_to_canvas(view.visible)
        size = max(1, round((x2 - x1) * SHARP)), max(1, round((y2 - y1) * SHARP))
        resample = Image.Resampling.NEAREST if view.scale >= PIXELS_SHOWN else Image.Resampling.BICUBIC
        shrink, source = self._source(view.scale * SHARP)
        seen = source.resize(size, resample, box=tuple(side / shrink for side in view.visible))
        data = io.BytesIO()
        seen.save(data, "JPEG", quality=90, subsampling=0)
        image = ipywidgets.Image(value=data.getvalue(), format="jpeg")
        layer.draw_image(image, x1, y1, x2 - x1, y2 - y1)
        self._images.append(image)
        while len(self._images) > 2:  # the browser may still be drawing the last one
            close_tree(self._images.pop(0))

    def _source(self, scale: float) -> tuple[int, Image.Image]:
        """The picture shrunk by a power of two, no smaller than what is shown, so that a large photograph moves as fast as a small one."""
        shrink = 2 ** max(0, math.floor(-math.log2(scale)))
        if shrink not in self._sources:
            self._sources[shrink] = self.picture.reduce(shrink)
        return shrink, self._sources[shrink]

    def _paint_regions(self, layer, hidden: int | None):
        editor = self.editor
        if self.grid:
            self._paint_grid(layer)
        taken: list = []
        shown = [each for each in editor.regions if each.id != hidden]
        for each in shown:
            self._paint_shape(layer, each.shape, each.id, each.id == editor.regions.selected, each.kind == "point")
        for each in shown:
            self._paint_tag(layer, each.shape, each.id, each.label, taken)

    def _paint_draft(self, layer, number: int | None, shape):
        if shape is None:
            return
        regions, drag = self.editor.regions, self.editor.drag
        shown = regions.next_number if number is None else number
        point = drag.doing == "point" or (number is not None and regions[number].kind == "point")
        self._paint_shape(layer, shape, shown, drag.doing != "lasso", point)
        x1, y1, x2, y2 = bounding_box(shape)
        width, height = (round(side, 0 if is_outline(shape) else 1) for side in (x2 - x1, y2 - y1))
        self._paint_tag(layer, shape, shown, "" if point else f"{width:g} × {height:g}", [])

    def _paint_shape(self, layer, shape, number: int, selected: bool, point: bool):
        """A box or an outline; what is selected has handles, an outline also the box that they belong to, a point only that."""
        view = self.editor.view
        place = view.box_to_canvas(bounding_box(shape))
        if is_outline(shape):
            _paint_line(layer, number, layer.stroke_polygon, [view.to_canvas(*point) for point in shape])
            if selected:
                _paint_frame(layer, place, 6 if point else 0)
        else:
            x1, y1, x2, y2 = place
            _paint_line(layer, number, layer.stroke_rect, x1, y1, x2 - x1, y2 - y1)
        if selected and not point:
            _paint_handles(layer, place, number)

    def _paint_tag(self, layer, shape, number: int, label: str, taken: list):
        view = self.editor.view
        place = view.box_to_canvas(bounding_box(shape))
        if place[0] > view.width or place[1] > view.height or place[2] < 0 or place[3] < 0:
            return  # zoomed out of sight
        label = label if len(label) <= TAG_LETTERS else label[: TAG_LETTERS - 1] + "…"
        text, fill = f"{number} {label}".strip(), region_colour(number)
        width = min(
            view.width, max(TAG, text_width(measuring_renderer(), text, font_of(FONT_SIZE, weight="bold")) + 10)
        )
        x, y = tag_place(view.box_to_canvas(tag_box(shape)), (width, TAG), (view.width, view.height), taken)
        layer.fill_style = LIGHT
        layer.fill_rect(x - 1, y - 1, width + 2, TAG + 2)
        layer.fill_style = fill
        layer.fill_rect(x, y, width, TAG)
        layer.fill_style = text_colour(fill)
        layer.font, layer.text_align, layer.text_baseline = FONT, "center", "middle"
        layer.fill_text(text, x + width / 2, y + TAG / 2 + 1, width - 4)

    def _paint_grid(self, layer):
        view, (width, height) = self.editor.view, self.editor.regions.size
        layer.font, layer.text_align, layer.text_baseline = FONT, "center", "middle"
        for colour, line in ((LIGHT, 3), (DARK, 1)):
            layer.stroke_style, layer.line_width, layer.global_alpha = colour, line, 0.7
            for k in range(1, CELLS):
                x, y = view.to_canvas(k * width / CELLS, k * height / CELLS)
                layer.stroke_line(x, 0, x, view.height)
                layer.stroke_line(0, y, view.width, y)
        layer.global_alpha = 1
        columns, rows = cell_names()
        for k in range(CELLS):
            x, y = view.to_canvas((k + 0.5) * width / CELLS, (k + 0.5) * height / CELLS)
            for text, at in ((columns[k], (x, 11)), (rows[k], (11, y))):
                layer.fill_style = LIGHT
                layer.fill_rect(at[0] - 9, at[1] - 9, 18, 18)
                layer.fill_style = DARK
                layer.fill_text(text, at[0], at[1] + 1)


def _paint_line(layer, number: int, stroke, *args):
    """A line in the colour of a region on a light one, with nothing inside: its colours are asked about."""
    layer.line_join = "round" if stroke == layer.stroke_polygon else "miter"
    layer.stroke_style, layer.line_width, layer.global_alpha = LIGHT, 6, 0.85
    stroke(*args)
    layer.stroke_style, layer.line_width, layer.global_alpha = region_colour(number), 3, 1
    layer.set_line_dash([] if number <= len(PALETTE) else [10, 4])  # as in the figures: colours repeat after seven
    stroke(*args)
    layer.set_line_dash([])


def _paint_frame(layer, place, away: int):
    """The box around a selected outline, thin and in dashes, some pixels away from it."""
    x1, y1, x2, y2 = place[0] - away, place[1] - away, place[2] + away, place[3] + away
    for colour, dash in ((LIGHT, []), (DARK, [4, 4])):
        layer.stroke_style, layer.line_width = colour, 1
        layer.set_line_dash(dash)
        layer.stroke_rect(x1, y1, x2 - x1, y2 - y1)
    layer.set_line_dash([])


def _paint_handles(layer, place, number: int):
    (x1, y1, x2, y2), colour = place, region_colour(number)
    edge = colour if contrast(colour, LIGHT) >= 3 else DARK
    for right, down in HANDLES.values():
        x, y = x1 + right * (x2 - x1), y1 + down * (y2 - y1)
        layer.fill_style = edge
        layer.fill_rect(x - 5, y - 5, 10, 10)
        layer.fill_style = LIGHT
        layer.fill_rect(x - 3, y - 3, 6, 6)
