"""Every action on the regions of a picture as a button, and the label of the selected one."""

from __future__ import annotations

import ipywidgets

from .editor import Editor
from .parts import button, guarded
from .region import one_line

TOOLS = [("Select", "select"), ("New box", "box"), ("Point", "point"), ("Lasso", "lasso"), ("Pan", "pan")]
TOOLTIPS = [
    "V: click selects, a drag moves, resizes, or draws a box where no region is",
    "B: every drag draws a box, also inside others",
    "P: a click makes a point",
    "G: a drag draws an outline, closed where it ends",
    "H: a drag moves a picture that is larger than its window",
]


class Toolbar(ipywidgets.HBox):
    """Buttons for an `Editor`.

    Args:
        editor: what the buttons act on.
        refresh: `refresh()` is called when they have changed what is seen, beside the regions.
        say: `say(text, error=False)` shows a message.
    """

    def __init__(self, editor: Editor, refresh, say):
        self.editor, self.regions, self._refresh, self.say = editor, editor.regions, refresh, say
        self.lock = editor.regions.lock
        self._showing = False  # while the controls are set from here
        self._tools = ipywidgets.ToggleButtons(
            options=TOOLS, value=editor.tool, style={"button_width": "auto"}, tooltips=TOOLTIPS
        )
        self._tools.observe(self._take_tool, "value")
        self._zoom = ipywidgets.Label(layout={"width": "54px"})
        self._zoom.add_class("roilab-zoom")

        def action(text, tooltip, name):
            return button(text, tooltip, lambda: self._act(name))

        self._buttons = {
            "zoom_out": action("−", "-: show more of the picture", "zoom_out"),
            "zoom_in": action("+", "+: show the picture larger", "zoom_in"),
            "zoom_fit": action("Fit", "0: the whole picture", "zoom_fit"),
            "undo": action("Undo", "Ctrl+Z", "undo"),
            "redo": action("Redo", "Shift+Ctrl+Z", "redo"),
            "next": action("Next", "Tab: select the next region", "next"),
            "delete": action("Delete", "Delete: remove the selected region", "delete"),
            "cancel": action("Cancel", "Esc: forget the drag that has not ended", "cancel"),
        }
        self._label = ipywidgets.Text(
            placeholder="label", tooltip="Label of the selected region", layout={"width": "110px"}
        )
        self._label.observe(self._relabelled, "value")
        zooming = [self._buttons["zoom_out"], self._zoom, self._buttons["zoom_in"], self._buttons["zoom_fit"]]
        editing = [self._buttons[name] for name in ("undo", "redo", "next", "delete", "cancel")]
        groups = [
            self._tools,
            ipywidgets.HBox(zooming),
            ipywidgets.HBox([*editing, self._label]),
        ]
        super().__init__(groups, layout={"order": "0"})
        self.add_class("roilab-bar")
        self.show()

    def show(self):
        """Bring the controls up to date."""
        view, regions, buttons = self.editor.view, self.regions, self._buttons
        self._showing = True
        label = "" if regions.selected is None else regions[regions.selected].label
        if one_line(self._label.value) != label:  # a blank that is being typed stays
            self._label.value = label
        self._showing = False
        self._label.disabled = regions.selected is None
        self._tools.value = self.editor.tool
        self._zoom.value = f"{100 * view.scale:.0f} %"
        buttons["zoom_out"].disabled = buttons["zoom_fit"].disabled = view.is_fitting
        buttons["undo"].disabled, buttons["redo"].disabled = not regions.can_undo, not regions.can_redo
        buttons["next"].disabled, buttons["delete"].disabled = len(regions) == 0, regions.selected is None
        buttons["cancel"].disabled = self.editor.drag is None

    @guarded
    def _act(self, name: str):
        self.editor.act(name)
        self._refresh()

    @guarded
    def _take_tool(self, change):
        if change["new"] != self.editor.tool:
            self.editor.use(change["new"])
            self._refresh()

    @guarded
    def _relabelled(self, change):
        if not self._showing and self.regions.selected is not None:
            # With every letter: what waits for the field to lose focus would come after the press that selects another region.
            self.regions.relabel(self.regions.selected, change["new"], merge=True)
