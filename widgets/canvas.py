"""`RegionCanvas`: draw regions on a picture with mouse, fingers, keys or numbers."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import ipywidgets
import traitlets
from ipycanvas import MultiCanvas

from roilab.notebook import on_colab
from roilab.pictures import read_picture
from roilab.plotting import draw_regions
from roilab.plotting.style import SAVED_DPI

from .editor import Editor
from .painting import SHARP, Painter
from .parts import StaticTwin, close_tree, guarded, message, plain, style_sheet, visible
from .regions import RegionSet
from .table import NumberTable
from .toolbar import Toolbar
from .view import View

NARROWEST = 420  # CSS pixels: what the controls need
FRAME = 1 / 30  # seconds between two frames of a drag
UNTRAINED = "Outlines and points: the shipped weights were trained on boxes only. Take answers about them with care."
HINT = "Drag on the picture to draw a box. If nothing happens while no cell is running, use “Boxes as numbers” below."


class OnCanvas:
    """For widgets around a `RegionCanvas`, their `canvas`."""

    @property
    def regions(self):
        """The regions, as `RegionCanvas.regions`; may be assigned."""
        return self.canvas.regions

    @regions.setter
    def regions(self, value):
        self.canvas.regions = value


class RegionCanvas(StaticTwin, ipywidgets.VBox):
    """A picture on which boxes, outlines and points are drawn, moved, resized, named and deleted.

    Drag on the picture: a new box. Click: select. Drag a region: move it; drag a handle: resize it. "New box" draws inside other boxes too,
    "Lasso" draws an outline, "Point" makes a point, which reaches a model as a small disc.
    Keys, once the picture was clicked: V, B, P, G, H the tools; 1-9 select; Tab the next one; arrows move by 1 pixel, with Shift by 10; Delete;
    Ctrl+Z, Shift+Ctrl+Z; + - 0 zoom; Esc cancels, then leaves the canvas. Touch: one finger draws, two zoom and move.

    Args:
        image: anything `read_picture` takes.
        regions: a `RegionSet` to share, or `Region`s, dicts, boxes (x1, y1, x2, y2) or outlines of (x, y) in pixels of the picture.
        width, height: room on the screen in CSS pixels; the picture is fitted into it.

    Attributes:
        regions: traitlet, a tuple of `Region`; observe it, or assign what the argument takes. It is replaced, never changed in place.
        selected: traitlet, number of the selected region or None.
        region_set: the `RegionSet` behind it, with undo and JSON.
    """

    regions = traitlets.Any(())
    selected = traitlets.Int(None, allow_none=True)

    def __init__(self, image, regions=None, width: int = 560, height: int = 480):
        self.image = read_picture(image)
        if isinstance(regions, RegionSet):
            regions.check_picture(self.image)
            self.region_set = regions
        else:
            self.region_set = RegionSet.of_picture(self.image, () if regions is None else regions)
        self.lock = self.region_set.lock
        self.editor = Editor(self.region_set, View(self.image.size, width, height))
        view = self.editor.view
        self.canvas = MultiCanvas(
            3, width=view.width * SHARP, height=view.height * SHARP,
            layout={"width": f"{view.width}px", "max_width": "calc(100% - 8px)", "order": "1"},
        )  # fmt: skip
        self._cursor = "crosshair"
        self.canvas.add_class("roilab-canvas")
        self._painter = Painter(self.canvas, self.image, self.editor)
        self._painted, self._timer = 0.0, None
        self._alive = False  # whether the canvas has ever sent an event
        self._ask_callbacks: list = []
        self._drag_callbacks: list = []
        self._status, self._note, self._hint = (
            ipywidgets.HTML(text, layout={"order": "2"}) for text in ("", "", plain(HINT))
        )
        for each in (self._status, self._note, self._hint):
            each.add_class("roilab-status")
        visible(self._note, False)
        self.toolbar = Toolbar(self.editor, self._refresh, self.say)
        self.table = NumberTable(self.editor, self.image, self.say, self._show_grid)
        # Not an Accordion: the Tab key does not reach its titles.
        self._opener = ipywidgets.ToggleButton(
            description="Boxes as numbers", icon="caret-right", layout={"order": "3", "width": "auto"}
        )
        self._opener.observe(lambda change: self._open_table(change["new"]), "value")
        self.table.layout.order = "4"
        visible(self.table, False)
        # Tab order is that of the page: the controls first, the canvas, which keeps the Tab key, last.
        room = {"width": f"{max(view.width + 8, NARROWEST)}px", "max_width": "100%"}
        super().__init__(
            [style_sheet(), self.toolbar, self._opener, self.table, self._status, self._note, self._hint, self.canvas],
            layout=room,
        )
        self.add_class("roilab")
        self._listen()
        self._opener.value = on_colab()  # untried there: the numbers are at hand should the canvas hear nothing
        self._stop_observing = self.region_set.observe(lambda _: self._changed())
        self._changed()

    # Showing

    def say(self, text: str, error: bool = False):
        """Show a line under the picture."""
        self._status.value = message(text, error)

    def figure(self):
        """The picture with its regions as a matplotlib figure: the static twin of the widget."""
        return draw_regions(self.image, self.region_set.shapes, labels=self.region_set.labels).figure

    def save(self, path):
        """Write the regions (`.json`) or the figure (`.png` and what matplotlib knows)."""
        if Path(path).suffix.lower() == ".json":
            Path(path).write_text(self.region_set.to_json() + "\n", encoding="utf-8")
        else:
            self.figure().savefig(path, dpi=SAVED_DPI)

    def zoom_to(self, scale: float):
        """Show this many screen pixels per pixel of the picture, as far as the picture and the canvas allow."""
        with self.lock:
            self.editor.view.set_scale(scale)
            self._refresh()

    def on_ask(self, callback):
        """Call back when Enter is pressed on the canvas."""
        self._ask_callbacks.append(callback)

    def on_drag(self, callback):
        """Call back after every event of the picture, also within a drag, when `region_set.shapes` does not know of it yet: see `shapes`."""
        self._drag_callbacks.append(callback)

    @property
    def shapes(self) -> list:
        """`region_set.shapes`, with the one that is being dragged where it is now; a new one that is being drawn is left out."""
        shapes, draft = self.region_set.shapes, self.editor.draft
        if draft is not None and draft[0] is not None:
            number, shape = draft
            shapes[number - 1] = [list(each) if isinstance(each, tuple) else each for each in shape]
        return shapes

    def show_picture(self, picture=None):
        """Show another picture of the same size under the regions, such as one with a map over it; None: the picture itself.

        Raises:
            ValueError: another size.
        """
        picture = self.image if picture is None else read_picture(picture)
        if picture.size != self.image.size:
            raise ValueError(
                f"a picture of {picture.width} x {picture.height} pixels in the place of one of {self.image.width} x {self.image.height}"
            )
        with self.lock:
            self._painter.show_picture(picture)

    def close(self):
        """End the widget; a shared `RegionSet` goes on."""
        if self.comm is not None:  # it may be closed twice
            self._stop_observing()
            self._painter.close()
            for child in self.children:
                close_tree(child)
        super().close()

    # The traitlets and the RegionSet

    @traitlets.validate("regions")
    def _normalise(self, proposal):
        return self.region_set.normalise(proposal["value"])

    @traitlets.observe("regions")
    def _assigned(self, change):
        if change["new"] is None:  # which no validator sees
            self.regions = ()
        elif change["new"] != self.region_set.regions:
            self.region_set.replace(change["new"])

    @traitlets.validate("selected")
    def _existing(self, proposal):
        if proposal["value"] is not None:
            self.region_set[proposal["value"]]
        return proposal["value"]

    @traitlets.observe("selected")
    def _chosen(self, change):
        self.region_set.select(change["new"])

    def _changed(self):
        with self.lock:
            # First what is looked at while drawing, then the controls; last the traits.
            self._painter.paint()
            self._tell()
            self._refresh()
            self.table.update()
            try:
                self.regions = self.region_set.regions
            finally:  # whoever observes the regions may raise
                self.selected = self.region_set.selected

    # The canvas

    def _listen(self):
        def scaled(points):
            return [(x / SHARP, y / SHARP) for x, y in points]

        editor, canvas = self.editor, self.canvas
        canvas.on_client_ready(self._shown_anew)
        canvas.on_mouse_down(lambda x, y: self._event(editor.down, x / SHARP, y / SHARP))
        canvas.on_mouse_move(lambda x, y: self._event(editor.move, x / SHARP, y / SHARP, soon=True))
        canvas.on_mouse_up(lambda x, y: self._event(editor.up, x / SHARP, y / SHARP))
        canvas.on_mouse_out(lambda x, y: self._event(editor.out))
        canvas.on_mouse_wheel(lambda x, y: self._event(editor.wheel, x, y, soon=True))
        canvas.on_touch_start(lambda touches: self._event(editor.touch_start, scaled(touches)))
        canvas.on_touch_move(lambda touches: self._event(editor.touch_move, scaled(touches), soon=True))
        canvas.on_touch_end(lambda touches: self._event(editor.touch_end, scaled(touches)))
        canvas.on_touch_cancel(lambda touches: self._event(editor.touch_cancel))
        canvas.on_key_down(self._key)

    @guarded
    def _event(self, handle, *args, soon: bool = False):
        """An event of the canvas; `soon`: one of many, the next frame will show it."""
        if not self._alive:  # events do arrive: the hint has done its duty
            self._alive = True
            visible(self._hint, False)
        result = handle(*args)
        self._refresh(soon)
        for callback in tuple(self._drag_callbacks):
            callback()
        return result

    @guarded
    def _key(self, key, shift, ctrl, meta):
        wish = self._event(self.editor.key, key, shift, ctrl, meta)
        if wish == "release":
            self.canvas.blur()
        elif wish == "ask":
            for callback in tuple(self._ask_callbacks):
                callback()

    @guarded
    def _shown_anew(self):
        self._painter.forget()
        self._painter.paint()

    def _refresh(self, soon: bool = False):
        """Paint now, or with the next frame; never twice for one state."""
        wait = self._painted + FRAME - time.monotonic()
        if soon and wait > 0:
            if self._timer is None:
                self._timer = threading.Timer(wait, self._paint_late)
                self._timer.daemon = True
                self._timer.start()
            return
        self._painter.paint()
        self._painted = time.monotonic()
        self.toolbar.show()
        self._show_cursor()

    @guarded
    def _paint_late(self):
        self._timer = None
        if self.comm is not None:
            self._refresh()

    def _tell(self):
        """One line on what has just happened to the selected region."""
        number = self.region_set.selected
        if number is None and not self.region_set.regions:
            self.say("No regions yet.")
        elif number is None:
            self.say(f"{len(self.region_set)} region{'' if len(self.region_set) == 1 else 's'}, none selected.")
        else:
            region = self.region_set[number]
            x1, y1, x2, y2 = region.box
            label = f" ({region.label})" if region.label else ""
            what = f"outline of {len(region.outline)} points, " if region.kind == "polygon" else ""
            where = f"{_px(x1)}, {_px(y1)} to {_px(x2)}, {_px(y2)} ({_px(x2 - x1)} × {_px(y2 - y1)} pixels)"
            if region.place is not None:
                where = f"point at {_px(region.place[0])}, {_px(region.place[1])}"
            self.say(f"region{number}{label}: {what}{where}")
        outlines = any(each.outline for each in self.region_set)
        if outlines and not self._note.value:
            self._note.value = message(UNTRAINED)
        visible(self._note, outlines)

    def _show_cursor(self):
        cursor = self.editor.cursor()
        if cursor != self._cursor:
            self.canvas.remove_class(f"roilab-{self._cursor}")
            self.canvas.add_class(f"roilab-{cursor}")
            self._cursor = cursor

    @guarded
    def _open_table(self, is_open: bool):
        self._opener.icon = "caret-down" if is_open else "caret-right"
        self.table.opened(is_open)
        visible(self.table, is_open)

    @guarded
    def _show_grid(self, shown: bool):
        self._painter.grid = shown
        self._refresh()


def _px(length: float) -> str:
    return f"{round(length, 1):g}"
