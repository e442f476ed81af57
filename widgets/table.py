"""The regions as numbers: a table of fields, grid cells, arrows, and a still picture, on core ipywidgets alone.

It drives the same `RegionSet` as the canvas, and works where the canvas does not.
"""

from __future__ import annotations

import contextlib

import ipywidgets

from roilab.plotting import draw_regions
from roilab.plotting.regions import draw_grid
from roilab.regions import cells_box

from .editor import Editor
from .parts import button, close_tree, guarded, plain, region_button, set_class, visible

SIDES = ("x1", "y1", "x2", "y2")
ARROWS = (("←", -1, 0, "left"), ("↑", 0, -1, "up"), ("↓", 0, 1, "down"), ("→", 1, 0, "right"))
STEPS = {"1 px": 1, "10 px": 10}


class NumberTable(ipywidgets.VBox):
    """A row of fields for every region, both ways: the sides of its box (an outline is stretched to them), or the place of a point.

    Args:
        editor: whose regions are shown and changed.
        picture: PIL picture, for the still picture.
        say: `say(text, error=False)` shows a message.
        show_grid: `show_grid(bool)` shows or hides the cells on the canvas.
    """

    def __init__(self, editor: Editor, picture, say, show_grid):
        self.editor, self.regions, self.picture, self.say = editor, editor.regions, picture, say
        self._show_grid = show_grid
        self.lock = editor.regions.lock
        self.is_open = False
        self._rows: dict[int, _Row] = {}
        self._shown = None
        self._heads, self._empty = _heads(), ipywidgets.Label("No regions yet.")
        self._list = ipywidgets.VBox([self._heads, self._empty])
        self._list.add_class("roilab-rows")
        self._cells = ipywidgets.Text(
            placeholder="B2 or B2:D5", description="Cells", continuous_update=False, style={"description_width": "auto"},
            layout={"width": "170px"},
        )  # fmt: skip
        self._grid = ipywidgets.Checkbox(
            value=False, description="Show cells A1 to H8", indent=False, layout={"width": "auto"}
        )
        self._grid.observe(self._grid_wanted, "value")
        self._step = ipywidgets.Dropdown(options=list(STEPS.items()), value=1, layout={"width": "80px"})
        arrows = [
            button(sign, f"Move the selected region {word}", lambda dx=dx, dy=dy: self._nudge(dx, dy))
            for sign, dx, dy, word in ARROWS
        ]
        self._still = ipywidgets.Image(format="png", layout={"max_width": "100%", "width": "460px"})
        visible(self._still, False)
        adding = ipywidgets.HBox(
            [button("Add box", "A box in the middle of the picture, to be moved by its numbers", self._add_middle),
             button("Add point", "A point in the middle of the picture, to be moved by its numbers", self._add_point),
             self._cells, button("Add cells", "A box over these cells", self._add_cells), self._grid],
        )  # fmt: skip
        self._corners = ipywidgets.Text(
            placeholder="10,20 90,20 50,80", description="Corners", continuous_update=False,
            style={"description_width": "auto"}, layout={"width": "260px"},
        )  # fmt: skip
        outlining = ipywidgets.HBox(
            [self._corners, button("Add outline", "An outline with these corners, each x,y", self._add_outline)]
        )
        lower = button("Lower", "Draw the selected region under the next one", lambda: self._reorder(-1))
        higher = button("Higher", "Draw the selected region over the next one", lambda: self._reorder(1))
        self._moving = [*arrows, lower, higher]
        moving = ipywidgets.HBox([ipywidgets.Label("Selected:"), *arrows, self._step, lower, higher])
        for row in (adding, outlining, moving):
            row.add_class("roilab-bar")
        super().__init__([self._list, adding, outlining, moving, self._still])
        self.add_class("roilab-table")

    def update(self):
        """Show the regions as they are, if anybody looks."""
        if not self.is_open:
            return
        if [row.number for row in self._rows.values()] != [each.id for each in self.regions]:
            old = dict(self._rows)
            self._rows = {each.id: old.pop(each.id, None) or _Row(self, each.id) for each in self.regions}
            self._list.children = [self._heads, self._empty, *self._rows.values()]
            visible(self._heads, bool(self._rows))
            visible(self._empty, not self._rows)
            for gone in old.values():
                close_tree(gone)
        for each in self.regions:
            self._rows[each.id].show(each, each.id == self.regions.selected)
        for each in self._moving:
            each.disabled = self.regions.selected is None
        self._show_still()

    def opened(self, is_open: bool):
        """Whether anybody sees the table."""
        self.is_open = is_open
        self.update()

    def _show_still(self):
        state = (self.regions.regions, self._grid.value)
        if not self.is_open or state == self._shown:
            return
        self._shown = state
        axes = draw_regions(self.picture, self.regions.shapes, labels=self.regions.labels)
        if self._grid.value:
            draw_grid(axes)
        self._still.value = axes.figure._repr_png_()
        visible(self._still, True)

    @guarded
    def _grid_wanted(self, change):
        self._show_grid(change["new"])
        self._show_still()

    @guarded
    def _add_middle(self):
        width, height = self.regions.size
        self.regions.add(
            (round(0.25 * width), round(0.25 * height), max(1, round(0.75 * width)), max(1, round(0.75 * height)))
        )

    @guarded
    def _add_point(self):
        width, height = self.regions.size
        self.regions.add_point(round(0.5 * width), round(0.5 * height))

    @guarded
    def _add_outline(self):
        corners = [corner.split(",") for corner in self._corners.value.split()]
        with contextlib.suppress(ValueError):  # what is no number, the regions refuse
            corners = [[float(side) for side in corner] for corner in corners]
        if not corners:
            raise ValueError("write the corners first, three or more: 10,20 90,20 50,80")
        self.regions.add(corners)

    @guarded
    def _add_cells(self):
        self.regions.add(cells_box(self._cells.value, self.regions.size))

    @guarded
    def _nudge(self, dx: int, dy: int):
        self.editor.nudge(dx, dy, self._step.value)

    @guarded
    def _reorder(self, step: int):
        order = [each.id for each in self.regions]
        self.regions.reorder(self.regions.selected, order.index(self.regions.selected) + step)


class _Row(ipywidgets.HBox):
    """The fields of one region."""

    def __init__(self, table: NumberTable, number: int):
        self.table, self.number = table, number
        self.regions, self.say, self.lock = table.regions, table.say, table.lock
        self._chip = region_button(number, str(number), f"Select region {number}", self._select)
        room = {"width": "auto", "min_width": "0"}  # the style sheet's grid gives it
        self._sides = [
            ipywidgets.FloatText(step=1, continuous_update=False, tooltip=f"{side} of region {number}", layout=room)
            for side in SIDES
        ]
        self._label = ipywidgets.Text(
            placeholder="label", continuous_update=False, tooltip=f"Label of region {number}", layout=room
        )
        remove = button("✕", f"Delete region {number}", self._remove)
        self._showing = False
        for field in (*self._sides, self._label):
            field.observe(self._edited, "value")
        super().__init__([self._chip, *self._sides, self._label, remove])
        self.add_class("roilab-row")

    def show(self, region, selected: bool):
        self._showing = True
        try:
            is_point = region.place is not None
            for field, side in zip(self._sides, (*region.place, 0, 0) if is_point else region.box, strict=True):
                field.value = round(side, 1)  # what is not edited keeps its decimals
            for field in self._sides[2:]:
                field.layout.visibility = "hidden" if is_point else "visible"
                field.disabled = is_point
            self._label.value = region.label
        finally:
            self._showing = False
        set_class(self, "roilab-selected", selected)

    @guarded
    def _edited(self, change):
        if self._showing:
            return
        try:
            if change["owner"] is self._label:
                self.regions.relabel(self.number, change["new"])
            else:
                self._set_side(self._sides.index(change["owner"]), change["new"])
        finally:
            self.table.update()  # also what was refused, clipped or shortened

    def _set_side(self, side: int, value: float):
        region = self.regions[self.number]
        if region.place is not None:
            by = value - region.place[side]
            self.regions.move(self.number, *((by, 0) if side == 0 else (0, by)))
        else:
            box = list(region.box)
            box[side] = value
            self.regions.resize(self.number, box)

    @guarded
    def _select(self):
        self.table.editor.select(self.number)

    @guarded
    def _remove(self):
        self.regions.remove(self.number)


def _heads() -> ipywidgets.HTML:
    cells = "".join(f"<span>{plain(each)}</span>" for each in ("", *SIDES, "label"))
    return ipywidgets.HTML(f'<div class="roilab-heads">{cells}</div>')
