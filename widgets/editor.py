"""What the mouse, fingers and keys do, as a plain state machine: no browser, no widgets.

`Editor` turns presses, moves, releases and keys into edits of a `RegionSet` and a `View`. Positions come in pixels of the canvas; drawn
edges and points snap to whole pixels of the picture, a lasso to tenths. Nothing reaches the `RegionSet` before a drag ends; until then it
is `draft`.

    press ── under 4 px ── release          a click: select the smallest region there, or none; with the point tool: a new point
          ── 4 px or more: a drag ── release, or Enter: done     Esc: as if it had never been
                              leaving the canvas: the drag goes on; a release that was lost there is made up for by the next one
"""

from __future__ import annotations

import math

from .boxes import CURSORS, handle_at
from .drag import Drag
from .region import clipped
from .regions import RegionSet
from .view import STEP, View

HANDLE = {"mouse": 8, "touch": 18}  # how far from a handle it still takes hold
TOOLS = {"select": "v", "box": "b", "point": "p", "lasso": "g", "pan": "h"}
ARROWS = {"ArrowLeft": (-1, 0), "ArrowRight": (1, 0), "ArrowUp": (0, -1), "ArrowDown": (0, 1)}
ACTIONS = ("undo", "redo", "delete", "next", "previous", "zoom_in", "zoom_out", "zoom_fit", "cancel")


class Editor:
    """Tools, drags and keys on the regions of a picture.

    Attributes:
        tool: "select" (a drag inside a region moves it, elsewhere it draws), "box" (every drag draws, also inside regions), "point" (a
            click makes a point), "lasso" (a drag draws an outline, closed where it ends) or "pan".
        drag: the press that has not ended, or None.
        hover: where the pointer is, in pixels of the canvas, or None.
    """

    def __init__(self, regions: RegionSet, view: View):
        self.regions, self.view = regions, view
        self.tool = "select"
        self.drag: Drag | None = None
        self.hover: tuple[float, float] | None = None
        self._touches: list[tuple[float, float]] = []

    @property
    def draft(self) -> tuple[int | None, tuple] | None:
        """What is being dragged, as (number or None for a new one, a box xyxy or an outline, in pixels of the picture); None if nothing is.

        A lasso that has just begun may be a line.
        """
        drag = self.drag
        return None if drag is None or not drag.changes(self.regions) else (drag.number, drag.draft(self.regions))

    # The mouse

    def down(self, x: float, y: float, pointer: str = "mouse"):
        """A press. If the release before it was lost, the old drag goes on."""
        self.hover = (x, y)
        if self.drag is not None:
            self.move(x, y)
            return
        doing, number, handle = self._grasp(x, y, pointer)
        place = self._point(x, y)
        self.drag = Drag(doing, (x, y), (x, y), place, place, self.view.scale, number, handle)
        if doing == "move" and number != self.regions.selected:
            self.regions.select(number)

    def move(self, x: float, y: float):
        self.hover = (x, y)
        drag = self.drag
        if drag is None:
            return
        if drag.doing == "pan":
            self.view.pan(x - drag.last[0], y - drag.last[1])
        drag.move((x, y), self._point(x, y))

    def up(self, x: float, y: float):
        """A release: the drag is done, or it was a click."""
        if self.drag is not None:
            self.move(x, y)
            self.finish()

    def out(self):
        """The pointer left the canvas; a drag goes on."""
        self.hover = None

    def finish(self) -> bool:
        """End the drag where it is; False if there is none."""
        drag, self.drag = self.drag, None
        if drag is None:
            return False
        if drag.changes(self.regions):
            drag.commit(self.regions)
        elif not drag.moved and drag.doing != "pan":
            self.regions.select(self._smallest_at(*drag.begun))
        return True

    def cancel(self) -> bool:
        """Forget the drag; False if there is none."""
        was, self.drag = self.drag, None
        return was is not None

    def wheel(self, dx: float, dy: float):
        """A turn of the wheel, in pixels: moves a picture that is larger than the canvas."""
        if self.drag is None:
            self.view.pan(-dx, -dy)

    # Fingers: one draws, two move and zoom

    def touch_start(self, touches: list[tuple[float, float]]):
        self._touches = list(touches)
        if len(touches) == 1:
            self.down(*touches[0], pointer="touch")
        else:
            self.cancel()

    def touch_move(self, touches: list[tuple[float, float]]):
        before, self._touches = self._touches, list(touches)
        if len(touches) == 1 == len(before):
            self.move(*touches[0])
        elif len(touches) == 2 == len(before):
            middle, old = _middle(touches), _middle(before)
            self.view.pan(middle[0] - old[0], middle[1] - old[1])
            self.view.zoom(max(1.0, math.dist(*touches)) / max(1.0, math.dist(*before)), *middle)

    def touch_end(self, touches: list[tuple[float, float]]):
        """`touches` are the fingers that are left."""
        self._touches = list(touches)
        if not touches and self.drag is not None:
            self.finish()
        self.hover = None

    def touch_cancel(self):
        self._touches, self.hover = [], None
        self.cancel()

    # Keys and buttons

    def key(self, key: str, shift: bool = False, ctrl: bool = False, meta: bool = False) -> str | None:
        """A key, named as the browser's `KeyboardEvent.key`.

        Returns:
            "ask" (Enter) or "release" (Esc) when there was no drag to end: both are for others to do.
        """
        letter = key.lower() if len(key) == 1 else key
        if ctrl or meta:
            if letter == "z":
                self.act("redo" if shift else "undo")
            elif letter == "y":
                self.act("redo")
        elif key == "Enter":
            return None if self.finish() else "ask"
        elif key == "Escape":
            return None if self.cancel() else "release"
        elif key in ARROWS:
            self.nudge(*ARROWS[key], 10 if shift else 1)
        elif key == "Tab":
            self.act("previous" if shift else "next")
        elif key in ("Delete", "Backspace"):
            self.act("delete")
        elif letter in TOOLS.values():
            self.use(next(tool for tool, its_key in TOOLS.items() if its_key == letter))
        elif key in ("+", "="):
            self.act("zoom_in")
        elif key in ("-", "_"):
            self.act("zoom_out")
        elif key == "0":
            self.act("zoom_fit")
        elif key.isdecimal() and key.isascii() and int(key) in self.regions:
            self.select(int(key))
        return None

    def act(self, action: str):
        """One of `ACTIONS`; the drag, if there is one, is forgotten first."""
        self.cancel()
        if action == "undo":
            self.regions.undo()
        elif action == "redo":
            self.regions.redo()
        elif action == "delete":
            if self.regions.selected is not None:
                self.regions.remove(self.regions.selected)
        elif action in ("next", "previous"):
            self.regions.select_next(1 if action == "next" else -1)
            self._reveal()
        elif action == "zoom_fit":
            self.view.fit()
        elif action in ("zoom_in", "zoom_out"):
            self.view.zoom(STEP if action == "zoom_in" else 1 / STEP, *self._zoom_centre())
        elif action != "cancel":
            raise ValueError(f"the action is {action!r}, expected one of {', '.join(ACTIONS)}")

    def use(self, tool: str):
        """Take up one of `TOOLS`."""
        if tool not in TOOLS:
            raise ValueError(f"the tool is {tool!r}, expected one of {', '.join(TOOLS)}")
        self.cancel()
        self.tool = tool

    def select(self, number: int | None):
        """Select a region and bring it into view."""
        self.cancel()
        self.regions.select(number)
        self._reveal()

    def nudge(self, dx: int, dy: int, step: int = 1):
        """Move the selected region by whole pixels of the picture; without one, move the view."""
        self.cancel()
        if self.regions.selected is None:
            self.view.pan(-40 * dx, -40 * dy)
        else:
            self.regions.move(self.regions.selected, dx * step, dy * step, merge=True)
            self._reveal()

    def cursor(self) -> str:
        """What the pointer would do, as a CSS cursor."""
        if self.drag is not None:
            doing, handle = self.drag.doing, self.drag.handle
        elif self.hover is not None:
            doing, _, handle = self._grasp(*self.hover, "mouse")
        else:
            return "crosshair"
        if doing == "resize":
            return f"{CURSORS[handle]}-resize"
        return {"move": "move", "pan": "grab"}.get(doing, "crosshair")

    # Inside

    def _grasp(self, x: float, y: float, pointer: str) -> tuple[str, int | None, str | None]:
        """What a drag from here does: (doing, number, handle)."""
        if self.tool == "pan":
            return "pan", None, None
        if self.tool in ("box", "point", "lasso"):
            return {"box": "new"}.get(self.tool, self.tool), None, None
        selected = self.regions.selected
        if selected is not None and self.regions[selected].kind != "point":
            handle = handle_at(self.view.box_to_canvas(self.regions[selected].box), x, y, HANDLE[pointer])
            if handle:
                return "resize", selected, handle
        px, py = self.view.to_picture(x, y)
        if selected is not None and self.regions[selected].contains(px, py, HANDLE[pointer] / self.view.scale):
            return "move", selected, None
        under = self._smallest_at(px, py, pointer)
        return ("new", None, None) if under is None else ("move", under, None)

    def _smallest_at(self, x: float, y: float, pointer: str = "mouse") -> int | None:
        """The smallest region at a point of the picture; points are hit from a little way off."""
        return self.regions.smallest_at(x, y, HANDLE[pointer] / self.view.scale)

    def _point(self, x: float, y: float) -> tuple[float, float]:
        """The point of the picture under a point of the canvas; outside the picture the nearest one inside."""
        return clipped(*self.view.to_picture(x, y), self.regions.size)

    def _zoom_centre(self) -> tuple[float, float]:
        """Zooming keeps the pointer's place, or the selected region's, or the middle."""
        if self.hover is not None:
            return self.hover
        if self.regions.selected is not None:
            x1, y1, x2, y2 = self.view.box_to_canvas(self.regions[self.regions.selected].box)
            if 0 <= x1 and x2 <= self.view.width and 0 <= y1 and y2 <= self.view.height:
                return (x1 + x2) / 2, (y1 + y2) / 2
        return self.view.width / 2, self.view.height / 2

    def _reveal(self):
        if self.regions.selected is not None:
            self.view.reveal(self.regions[self.regions.selected].box)


def _middle(touches) -> tuple[float, float]:
    return sum(x for x, _ in touches) / len(touches), sum(y for _, y in touches) / len(touches)
