"""`RegionCanvas` without a browser: events as ipycanvas hands them on, what is painted, the number table, what is kept."""

import base64
import io
import json

import ipywidgets
import numpy as np
import pytest
import traitlets
from ipycanvas.canvas import _CANVAS_MANAGER
from pages import Page, walk
from PIL import Image

import roilab.widgets.canvas
from roilab.plotting.style import region_colour
from roilab.regions import disc
from roilab.widgets import Region, RegionCanvas, RegionSet
from roilab.widgets.painting import SHARP, batch
from roilab.widgets.parts import png_bundle
from roilab.widgets.view import View

A, B, C = (1, 2, 30, 40), (10, 5, 60, 20), (5, 5, 20, 30)
TRIANGLE = ((10, 10), (30, 20), (12, 40))
HOSTILE = ["<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "**x** <b>&amp;", "\"' onload=alert(1) x='"]


@pytest.fixture(autouse=True)
def every_frame_at_once(monkeypatch):
    monkeypatch.setattr(roilab.widgets.canvas, "FRAME", 0)


@pytest.fixture
def canvas(picture):
    """64 x 48 pixels on 640 x 480: ten CSS pixels each."""
    made = RegionCanvas(picture, width=640, height=480)
    yield made
    made.close()


def fire(widget, event, x=0.0, y=0.0, **more):
    """An event at a point of the picture, when each of its pixels takes 10 CSS pixels."""
    place = {"x": 10 * SHARP * x, "y": 10 * SHARP * y}
    widget.canvas[2]._handle_frontend_event(None, {"event": event, **place, **more}, [])


def drag(widget, start, end):
    fire(widget, "mouse_down", *start)
    fire(widget, "mouse_move", *end)
    fire(widget, "mouse_up", *end)


def press(widget, key, shift=False, ctrl=False, meta=False):
    fire(widget, "key_down", key=key, shift_key=shift, ctrl_key=ctrl, meta_key=meta)


def boxes(widget):
    return [each.box for each in widget.regions]


def status(widget):
    return Page(widget._status.value).text


def is_error(widget):
    return "roilab-error" in widget._status.value


def find_button(widget, text):
    (found,) = [each for each in walk(widget) if isinstance(each, ipywidgets.Button) and each.description == text]
    return found


class Sent:
    """Counts the messages to the browser's canvases and the layers that are drawn."""

    def __init__(self, widget, monkeypatch):
        self.messages, self.layers = [], []
        monkeypatch.setattr(_CANVAS_MANAGER, "_send_custom", lambda command, buffers=(): self.messages.append(command))
        painter = widget._painter
        for name in ("_paint_picture", "_paint_regions", "_paint_draft"):
            method = getattr(painter, name)

            def counted(*args, name=name, method=method, **kwargs):
                self.layers.append(name.removeprefix("_paint_"))
                return method(*args, **kwargs)

            monkeypatch.setattr(painter, name, counted)

    def take(self):
        taken = (len(self.messages), self.layers[:])
        self.messages.clear()
        self.layers.clear()
        return taken


# Events


def test_a_drag_on_the_canvas_is_a_region(canvas):
    seen = []
    canvas.observe(lambda change: seen.append((change["old"], change["new"])), "regions")
    before = canvas.regions
    drag(canvas, (5, 6), (20, 30))
    assert canvas.regions == (Region(1, (5, 6, 20, 30)),) and canvas.selected == 1
    assert seen == [((), canvas.regions)] and before == (), "replaced, not changed"
    assert isinstance(canvas.regions, tuple)
    assert "5, 6 to 20, 30 (15 × 24 pixels)" in status(canvas)


def test_all_events_reach_the_editor(canvas):
    drag(canvas, (5, 5), (20, 20))
    press(canvas, "ArrowRight", shift=True)
    assert boxes(canvas) == [(15, 5, 30, 20)]
    press(canvas, "z", ctrl=True)
    press(canvas, "z", meta=True)
    assert boxes(canvas) == []
    press(canvas, "Z", shift=True, ctrl=True)
    assert boxes(canvas) == [(5, 5, 20, 20)]
    press(canvas, "+")
    view = canvas.editor.view
    view.left = view.top = 0
    fire(canvas, "mouse_wheel", 4, 0)
    assert view.left > 0
    press(canvas, "0")
    fire(canvas, "mouse_move", 40, 40)
    fire(canvas, "mouse_out")
    assert canvas.editor.hover is None
    fire(canvas, "touch_start", touches=[{"x": 800, "y": 600}])
    fire(canvas, "touch_move", touches=[{"x": 900, "y": 800}])
    fire(canvas, "touch_end", touches=[])
    assert boxes(canvas)[1:] == [(40, 30, 45, 40)]
    fire(canvas, "touch_start", touches=[{"x": 800, "y": 100}])
    fire(canvas, "touch_move", touches=[{"x": 900, "y": 200}])
    fire(canvas, "touch_cancel", touches=[])
    fire(canvas, "touch_end", touches=[])
    assert len(canvas.regions) == 2 and not is_error(canvas)


def test_enter_asks_and_escape_leaves_the_canvas(canvas, monkeypatch):
    asked, blurred = [], []
    canvas.on_ask(lambda: asked.append(1))
    monkeypatch.setattr(type(canvas.canvas), "blur", lambda self: blurred.append(1), raising=False)
    press(canvas, "Enter")
    press(canvas, "Escape")
    assert asked == [1] and blurred == [1]
    fire(canvas, "mouse_down", 5, 5)
    fire(canvas, "mouse_move", 20, 20)
    press(canvas, "Escape")
    assert blurred == [1] and canvas.editor.drag is None


def test_toolbar_buttons_do_what_keys_do(canvas):
    drag(canvas, (5, 5), (20, 20))
    drag(canvas, (30, 30), (40, 40))
    for name, check in (
        ("Undo", lambda: len(canvas.regions) == 1), ("Redo", lambda: len(canvas.regions) == 2), ("Next", lambda: canvas.selected == 1),
        ("Delete", lambda: boxes(canvas) == [(30, 30, 40, 40)]), ("+", lambda: canvas.editor.view.scale == 15),
        ("Fit", lambda: canvas.editor.view.is_fitting),
    ):  # fmt: skip
        find_button(canvas, name).click()
        assert check(), name
    canvas.toolbar._tools.value = "box"
    assert canvas.editor.tool == "box"
    press(canvas, "h")
    assert canvas.toolbar._tools.value == "pan"


def test_buttons_are_enabled_when_they_can_do_something(canvas):
    names = ("Undo", "Redo", "Next", "Delete", "Cancel", "Fit", "−")

    def enabled():
        return {name for name in names if not find_button(canvas, name).disabled}

    assert enabled() == set()
    fire(canvas, "mouse_down", 5, 5)
    fire(canvas, "mouse_move", 20, 20)
    assert enabled() == {"Cancel"}
    fire(canvas, "mouse_up", 20, 20)
    assert enabled() == {"Undo", "Next", "Delete"}
    press(canvas, "z", ctrl=True)
    assert enabled() == {"Redo"}
    canvas.zoom_to(20)
    assert enabled() == {"Redo", "Fit", "−"}


def test_the_cursor_is_a_class_of_the_canvas(canvas):
    canvas.regions = [A]
    fire(canvas, "mouse_move", 15, 20)
    assert "roilab-move" in canvas.canvas._dom_classes
    fire(canvas, "mouse_move", 60, 45)
    assert "roilab-move" not in canvas.canvas._dom_classes and "roilab-crosshair" in canvas.canvas._dom_classes


def test_the_hint_stays_until_the_first_event(canvas):
    def hint():
        return [
            each for each in walk(canvas) if isinstance(each, ipywidgets.HTML) and "Drag on the picture" in each.value
        ]

    (shown,) = hint()
    canvas.regions = [A]
    find_button(canvas, "Next").click()
    assert "roilab-hidden" not in shown._dom_classes, "the canvas itself has sent nothing yet"
    fire(canvas, "mouse_move", 3, 3)
    assert "roilab-hidden" in shown._dom_classes


def test_the_label_field_is_about_the_selected_region(canvas):
    canvas.regions = [{"id": 1, "box": A, "label": "one"}, B]
    assert canvas.toolbar._label.disabled and canvas.toolbar._label.value == ""
    canvas.selected = 1
    assert not canvas.toolbar._label.disabled and canvas.toolbar._label.value == "one"
    for typed in (
        "a",
        "a ",
        "a  d",
        "a  dog",
    ):  # letter by letter; the blank that will be followed by more stays in the field
        canvas.toolbar._label.value = typed
        assert canvas.toolbar._label.value == typed and canvas.regions[0].label == " ".join(typed.split())
    assert [each.label for each in canvas.regions] == ["a dog", ""]
    canvas.region_set.undo()
    assert canvas.toolbar._label.value == canvas.regions[0].label == "one"  # one step
    canvas.region_set.redo()
    assert canvas.toolbar._label.value == "a dog"
    canvas.selected = 2
    assert canvas.toolbar._label.value == ""
    canvas.selected = None
    assert [each.label for each in canvas.regions] == ["a dog", ""]


# The traitlets


@pytest.mark.parametrize(
    "value",
    [
        [A, B], np.array([A, B]), (list(A), list(B)), [Region(1, A), Region(2, B)], [{"id": 1, "box": A}, {"box": B}],
        [{"box": A}, Region(2, B)], iter([A, B]),
    ],
)  # fmt: skip
def test_regions_may_be_assigned_in_any_form(canvas, value):
    seen = []
    canvas.observe(lambda change: seen.append(change["new"]), "regions")
    canvas.regions = value
    assert canvas.regions == (Region(1, A), Region(2, B)) == canvas.region_set.regions
    assert seen == [canvas.regions]
    canvas.regions = []
    assert canvas.regions == ()
    canvas.region_set.undo()
    assert boxes(canvas) == [A, B]


def test_none_means_no_regions(canvas):
    canvas.regions = [A]
    canvas.regions = None
    assert canvas.regions == () == canvas.region_set.regions


@pytest.mark.parametrize(
    "value",
    [
        [A, (70, 5, 80, 20)], [(3, 2, 1, 4)], "abc", [None], [5], [{"id": 1}], [Region(1, A)] * 2, [{"id": 0, "box": A}], A,
        [{"id": [1], "box": A}], [{"id": 1, "box": A, "kind": "mask"}],
    ],
)  # fmt: skip
def test_bad_regions_are_refused_and_leave_the_state_whole(canvas, value):
    canvas.regions = [B]
    canvas.selected = 1
    seen = []
    canvas.observe(seen.append, ["regions", "selected"])
    before = canvas.region_set.to_json(), canvas.regions, canvas.selected
    with pytest.raises(ValueError):
        canvas.regions = value
    assert (canvas.region_set.to_json(), canvas.regions, canvas.selected) == before and seen == []
    canvas.region_set.undo()
    assert canvas.regions == ()


def test_selected_goes_both_ways(canvas):
    canvas.regions = [A, B]
    canvas.selected = 2
    assert canvas.region_set.selected == 2
    press(canvas, "Tab")
    assert canvas.selected == 1
    canvas.selected = None
    assert canvas.region_set.selected is None
    canvas.region_set.select(2)
    assert canvas.selected == 2
    canvas.region_set.remove(2)
    assert canvas.selected is None


@pytest.mark.parametrize(("value", "error"), [(9, ValueError), ("1", traitlets.TraitError)])
def test_a_region_that_is_not_there_cannot_be_selected(canvas, value, error):
    canvas.regions = [A]
    canvas.selected = 1
    with pytest.raises(error):
        canvas.selected = value
    assert canvas.selected == canvas.region_set.selected == 1


def test_two_canvases_on_one_set_follow_each_other(canvas, picture):
    other = RegionCanvas(picture, canvas.region_set, width=320, height=240)
    drag(canvas, (5, 6), (20, 30))
    assert other.regions == canvas.regions and other.selected == 1
    other.regions = [B]
    assert boxes(canvas) == [B] and canvas.selected == 1
    assert sides(canvas, 1) == list(B)
    other.selected = None
    assert canvas.selected is None
    other.close()
    other.close()
    drag(canvas, (1, 30), (8, 40))
    assert len(canvas.regions) == 2 and len(other.regions) == 1, "the set goes on, the closed one does not follow"
    assert len(canvas.region_set._observers) == 1


def test_a_set_of_another_picture_is_refused(canvas):
    with pytest.raises(ValueError, match="64 x 48 pixels, this one has 10 x 10"):
        RegionCanvas(Image.new("RGB", (10, 10)), canvas.region_set)
    with pytest.raises(ValueError, match="another picture"):
        RegionCanvas(Image.new("RGB", (64, 48)), canvas.region_set)
    with pytest.raises(ValueError, match="at least 64 x 64"):
        RegionCanvas(Image.new("RGB", (64, 48)), width=10)


# Painting


def test_nothing_is_painted_when_nothing_changed(canvas, monkeypatch):
    canvas.regions = [A]
    fire(canvas, "mouse_move", 40, 5)
    sent = Sent(canvas, monkeypatch)
    for _ in range(3):
        fire(canvas, "mouse_move", 41, 6)
        fire(canvas, "mouse_out")
        press(canvas, "q")
        canvas.regions = canvas.regions
        canvas.region_set.move(1, 0, 0)
    assert sent.take() == (0, [])
    press(canvas, "ArrowRight")
    press(canvas, "Tab")
    messages, layers = sent.take()
    assert messages == len(layers) == 1 and layers == ["regions"], "one message for the change of the selection"


def test_a_drag_repaints_only_the_layer_on_top(canvas, monkeypatch):
    canvas.regions = [A, B]
    sent = Sent(canvas, monkeypatch)
    fire(canvas, "mouse_down", 40, 30)
    assert sent.take() == (0, [])
    for place in (42, 45, 50):
        fire(canvas, "mouse_move", place, 40)
        assert sent.take() == (1, ["draft"])
    fire(canvas, "mouse_up", 50, 40)
    assert sent.take() == (1, ["regions", "draft"])


def test_a_moved_region_is_taken_off_its_layer_once(canvas, monkeypatch):
    canvas.regions = [A, B]
    canvas.selected = 2
    sent = Sent(canvas, monkeypatch)
    fire(canvas, "mouse_down", 40, 12)
    fire(canvas, "mouse_move", 41, 13)
    assert sent.take() == (1, ["regions", "draft"])
    fire(canvas, "mouse_move", 42, 14)
    assert sent.take() == (1, ["draft"])
    press(canvas, "Escape")
    assert sent.take() == (1, ["regions", "draft"])


def test_only_zooming_and_panning_send_the_picture_again(canvas, monkeypatch):
    sent = Sent(canvas, monkeypatch)
    press(canvas, "+")
    assert sent.take() == (1, ["picture", "regions", "draft"])
    canvas.zoom_to(canvas.editor.view.scale)
    assert sent.take() == (0, [])
    canvas._show_grid(True)
    assert sent.take() == (1, ["regions"])
    canvas.zoom_to(1000)
    canvas.zoom_to(1000)
    assert sent.take() == (1, ["picture", "regions", "draft"])


def test_a_new_page_gets_everything(canvas, monkeypatch):
    sent = Sent(canvas, monkeypatch)
    fire(canvas, "client_ready")
    assert sent.take() == (1, ["picture", "regions", "draft"])


def test_moves_between_two_frames_are_painted_once(canvas, monkeypatch):
    fire(canvas, "mouse_down", 5, 5)
    monkeypatch.setattr(roilab.widgets.canvas, "FRAME", 1000)
    sent = Sent(canvas, monkeypatch)
    for place in (10, 20, 30):
        fire(canvas, "mouse_move", place, 30)
    assert sent.take() == (0, [])
    canvas._timer.cancel()
    canvas._paint_late()
    assert sent.take() == (1, ["draft"]) and canvas._painter._shown[2][2] == (5, 5, 30, 30)
    fire(canvas, "mouse_move", 40, 30)
    canvas._timer.cancel()
    fire(canvas, "mouse_up", 40, 30)
    assert sent.take()[0] == 1 and boxes(canvas) == [(5, 5, 40, 30)], "the release is shown at once"


def test_a_frame_that_comes_after_closing_sends_nothing(picture, monkeypatch):
    canvas = RegionCanvas(picture, width=640, height=480)
    fire(canvas, "mouse_down", 5, 5)
    monkeypatch.setattr(roilab.widgets.canvas, "FRAME", 1000)
    fire(canvas, "mouse_move", 20, 20)
    canvas._timer.cancel()
    canvas.close()
    sent = Sent(canvas, monkeypatch)
    canvas._paint_late()
    assert sent.take() == (0, [])


def test_the_picture_is_sent_no_larger_than_the_canvas():
    canvas = RegionCanvas(Image.new("RGB", (4000, 3000), "red"), width=320, height=320)
    assert (canvas.canvas.width, canvas.canvas.height) == (320 * SHARP, 240 * SHARP)
    for scale in (0, 0.3, 5, 32):
        canvas.zoom_to(scale)
        image = canvas._painter._images[-1]
        seen = Image.open(io.BytesIO(image.value))
        assert 0 < seen.width <= canvas.canvas.width + 1 and 0 < seen.height <= canvas.canvas.height + 1
        assert image.format == "jpeg" == seen.format.lower()
    assert len(canvas._painter._images) == 2


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4000, 20), (20, 3000)])
def test_pictures_of_any_shape_can_be_painted_and_drawn_on(size):
    canvas = RegionCanvas(Image.new("RGB", size), [(0, 0, *size)], width=320, height=240)
    for scale in (1000, 0):
        canvas.zoom_to(scale)
        canvas._show_grid(True)
    view = canvas.editor.view
    canvas.toolbar._tools.value = "box"
    for event, x, y in (
        ("mouse_down", 0, 0),
        ("mouse_move", view.width, view.height),
        ("mouse_up", view.width, view.height),
    ):
        canvas.canvas[2]._handle_frontend_event(None, {"event": event, "x": SHARP * x, "y": SHARP * y}, [])
    assert boxes(canvas) == [(0, 0, *size)] * 2 and not is_error(canvas)
    assert canvas.editor.view.visible == pytest.approx(View(size, 320, 240).visible)


def test_an_error_while_painting_closes_the_batch_and_is_shown(canvas, monkeypatch):
    sent = Sent(canvas, monkeypatch)
    with monkeypatch.context() as broken:
        broken.setattr(canvas._painter, "_paint_draft", lambda *args: 1 / 0)
        fire(canvas, "mouse_down", 5, 5)
        fire(canvas, "mouse_move", 20, 20)
        assert is_error(canvas) and "ZeroDivisionError" in status(canvas)
        assert not _CANVAS_MANAGER._caching
    sent.take()
    fire(canvas, "mouse_move", 21, 21)
    assert sent.take() == (1, ["draft"]) and not _CANVAS_MANAGER._caching
    fire(canvas, "mouse_up", 21, 21)
    assert boxes(canvas) == [(5, 5, 21, 21)]


def test_a_batch_ends_when_its_drawing_raises():
    with pytest.raises(KeyError, match="drawing"):
        with batch():
            raise KeyError("drawing")
    assert not _CANVAS_MANAGER._caching


def test_an_error_of_an_observer_is_shown_and_the_canvas_goes_on(canvas):
    def refuse(change):
        raise RuntimeError("not <b>this</b> one")

    canvas.observe(refuse, "regions")
    drag(canvas, (5, 5), (20, 20))
    assert is_error(canvas) and status(canvas) == "not <b>this</b> one" and "<b>" not in canvas._status.value
    assert not _CANVAS_MANAGER._caching and canvas.editor.drag is None
    assert boxes(canvas) == [(5, 5, 20, 20)]
    assert canvas.selected == canvas.region_set.selected == 1
    canvas.unobserve(refuse, "regions")
    drag(canvas, (30, 30), (40, 40))
    assert len(canvas.regions) == 2 and not is_error(canvas)


# The regions as numbers


def row(canvas, number):
    canvas._opener.value = True
    return canvas.table._rows[number]


def sides(canvas, number):
    return [field.value for field in row(canvas, number)._sides]


def test_the_table_shows_the_regions_and_changes_them(canvas):
    drag(canvas, (5, 6), (20, 30))
    assert sides(canvas, 1) == [5, 6, 20, 30] and row(canvas, 1)._label.value == ""
    row(canvas, 1)._sides[2].value = 25.5
    assert boxes(canvas) == [(5, 6, 25.5, 30)]
    row(canvas, 1)._label.value = "  a  dog "
    assert canvas.regions[0].label == "a dog" == row(canvas, 1)._label.value
    press(canvas, "ArrowRight")
    assert sides(canvas, 1) == [6, 6, 26.5, 30]
    canvas.region_set.undo()
    canvas.region_set.undo()
    assert row(canvas, 1)._label.value == "" and sides(canvas, 1) == [5, 6, 25.5, 30]


@pytest.mark.parametrize(
    ("side", "value", "words"),
    [(0, 50, "reversed"), (2, 5, "no area"), (1, 48, "reversed"), (0, float("nan"), "not finite")],
)
def test_what_the_table_refuses_is_said_and_the_field_goes_back(canvas, side, value, words):
    canvas.regions = [(5, 6, 20, 30)]
    row(canvas, 1)._sides[side].value = value
    assert is_error(canvas) and "region 1" in status(canvas) and words in status(canvas)
    assert sides(canvas, 1) == [5, 6, 20, 30] and boxes(canvas) == [(5, 6, 20, 30)]
    row(canvas, 1)._sides[2].value = 999
    assert sides(canvas, 1) == [5, 6, 64, 30], "what lies outside is clipped, and the field shows it"


def test_chips_select_and_crosses_delete(canvas):
    canvas.regions = [A, {"id": 4, "box": B}]
    row(canvas, 4)._chip.click()
    assert canvas.selected == 4 and "roilab-selected" in row(canvas, 4)._dom_classes
    assert "roilab-selected" not in row(canvas, 1)._dom_classes
    (cross,) = [
        each for each in walk(row(canvas, 4)) if isinstance(each, ipywidgets.Button) and each.description == "✕"
    ]
    cross.click()
    assert boxes(canvas) == [A] and canvas.selected is None and list(canvas.table._rows) == [1]
    canvas.regions = []
    assert "No regions yet." in [each.value for each in walk(canvas.table) if isinstance(each, ipywidgets.Label)]


def test_boxes_can_be_added_without_a_mouse(canvas):
    find_button(canvas.table, "Add box").click()
    canvas.table._cells.value = "b2:D5"
    find_button(canvas.table, "Add cells").click()
    assert boxes(canvas) == [(16, 12, 48, 36), (8, 6, 32, 30)] and canvas.selected == 2
    canvas.table._cells.value = "Z9"
    find_button(canvas.table, "Add cells").click()
    assert is_error(canvas) and "'Z9' does not name cells" in status(canvas) and len(canvas.regions) == 2
    tiny = RegionCanvas(Image.new("RGB", (1, 1)), width=64, height=64)
    find_button(tiny.table, "Add box").click()
    assert boxes(tiny) == [(0, 0, 1, 1)]


def test_arrow_buttons_and_the_drawing_order(canvas):
    canvas.regions = [A, B]
    canvas._opener.value = True
    assert find_button(canvas.table, "→").disabled and find_button(canvas.table, "Lower").disabled
    canvas.selected = 1
    assert not find_button(canvas.table, "→").disabled
    find_button(canvas.table, "→").click()
    canvas.table._step.value = 10
    find_button(canvas.table, "↓").click()
    assert boxes(canvas)[0] == (2, 10, 31, 48)
    find_button(canvas.table, "Higher").click()
    assert [each.id for each in canvas.regions] == [2, 1] == list(canvas.table._rows)
    find_button(canvas.table, "Higher").click()
    find_button(canvas.table, "Lower").click()
    find_button(canvas.table, "Lower").click()
    assert [each.id for each in canvas.regions] == [1, 2] and not is_error(canvas)


def test_the_still_picture_is_drawn_only_when_the_table_is_open(canvas):
    still = canvas.table._still
    canvas.regions = [A]
    assert not still.value
    canvas._opener.value = True
    first = still.value
    assert Image.open(io.BytesIO(first)).width > 64
    canvas.regions = [B]
    second = still.value
    assert second != first
    canvas._opener.value = False
    canvas.regions = [C]
    assert still.value == second
    canvas._opener.value = True
    canvas.table._grid.value = True
    assert still.value not in (first, second) and canvas._painter.grid


# Outlines and points


def test_a_lasso_and_a_point_on_the_canvas(canvas):
    press(canvas, "g")
    assert canvas.toolbar._tools.value == "lasso"
    fire(canvas, "mouse_down", 10, 10)
    for place in ((30, 12), (25, 40), (11, 30)):
        fire(canvas, "mouse_move", *place)
    fire(canvas, "mouse_up", 11, 30)
    assert canvas.regions[0].outline == ((10, 10), (30, 12), (25, 40), (11, 30))
    assert status(canvas) == "region1: outline of 4 points, 10, 10 to 30, 40 (20 × 30 pixels)"
    canvas.toolbar._tools.value = "point"
    fire(canvas, "mouse_down", 50, 20)
    fire(canvas, "mouse_up", 50, 20)
    assert canvas.regions[1].place == (50, 20) and canvas.regions[1].shape == disc(50, 20, (64, 48))
    assert status(canvas) == "region2: point at 50, 20" and not is_error(canvas)
    assert canvas.regions == canvas.region_set.regions


def test_it_is_said_once_that_the_weights_know_no_outlines(canvas):
    def said():
        return (
            "roilab-hidden" not in canvas._note._dom_classes
            and "trained on boxes only" in Page(canvas._note.value).text
        )

    canvas.regions = [A]
    assert not said()
    values = []
    canvas._note.observe(lambda change: values.append(change["new"]), "value")
    canvas.region_set.add_point(5, 5)
    canvas.region_set.add(TRIANGLE)
    press(canvas, "ArrowRight")
    assert said() and len(values) == 1
    canvas.regions = [A]
    assert not said()
    canvas.region_set.undo()
    assert said() and len(values) == 1


def drawn(canvas, monkeypatch, *shapes):
    """The polygons and colours that are drawn on the layer of the regions."""
    found, layer = [], canvas.canvas[1]
    monkeypatch.setattr(
        type(layer), "stroke_polygon", lambda self, points: found.append((self.stroke_style, self.line_width, points))
    )
    canvas.regions = list(shapes)
    return found


def test_outlines_are_drawn_in_the_colour_of_their_number(canvas, monkeypatch):
    found = drawn(canvas, monkeypatch, A, TRIANGLE, {"place": (50, 20)})
    places = {2: [(10 * x, 10 * y) for x, y in TRIANGLE], 3: [(10 * x, 10 * y) for x, y in disc(50, 20, (64, 48))]}
    assert [(colour, width) for colour, width, _ in found[-4:]] == [
        ("#FFFFFF", 6), (region_colour(2), 3), ("#FFFFFF", 6), (region_colour(3), 3),
    ]  # fmt: skip
    for (_, _, points), number in zip(found[-4:], (2, 2, 3, 3), strict=True):
        assert points == [pytest.approx(place) for place in places[number]]


def test_the_numbers_of_an_outline_stretch_it_and_those_of_a_point_move_it(canvas):
    canvas.regions = [TRIANGLE, {"place": (50, 20)}]
    assert sides(canvas, 1) == [10, 10, 30, 40]
    row(canvas, 1)._sides[2].value = 50
    assert canvas.regions[0].outline == ((10, 10), (50, 20), (14, 40)) and canvas.regions[0].kind == "polygon"
    row(canvas, 1)._sides[0].value = 60
    assert is_error(canvas) and canvas.regions[0].box == (10, 10, 50, 40) and sides(canvas, 1) == [10, 10, 50, 40]
    x, y, *rest = row(canvas, 2)._sides
    assert (x.value, y.value) == (50, 20) and all(each.disabled and each.layout.visibility == "hidden" for each in rest)
    x.value, y.value = 3.5, 90
    assert canvas.regions[1].place == (3.5, 48) and y.value == 48 and canvas.regions[1].kind == "point"
    row(canvas, 2)._label.value = "here"
    assert (canvas.regions[1].label, canvas.regions[1].place) == ("here", (3.5, 48))
    canvas.regions = [TRIANGLE, A]
    assert sides(canvas, 2) == list(A) and not any(each.disabled for each in row(canvas, 2)._sides)


def test_points_and_outlines_can_be_added_without_a_mouse(canvas):
    find_button(canvas.table, "Add point").click()
    assert canvas.regions[0].place == (32, 24)
    find_button(canvas.table, "Add outline").click()
    assert is_error(canvas) and "write the corners first" in status(canvas)
    for wrong in ("a", "1,2 3,4", "1,2 3,4 5", "<b>,2 3,4 5,6", "1,1 2,2 3,3", "90,90 95,90 90,95"):
        canvas.table._corners.value = wrong
        find_button(canvas.table, "Add outline").click()
        assert is_error(canvas) and "region 2" in status(canvas) and len(canvas.regions) == 1, wrong
        assert not [tag for tag, _ in Page(canvas._status.value).tags if tag != "span"]
    canvas.table._corners.value = " 10,10  30,20 12,40.5"
    find_button(canvas.table, "Add outline").click()
    assert canvas.regions[1].outline == ((10, 10), (30, 20), (12, 40.5)) and canvas.selected == 2


def test_a_lasso_repaints_only_the_layer_on_top(canvas, monkeypatch):
    press(canvas, "g")
    fire(canvas, "mouse_down", 5, 5)
    fire(canvas, "mouse_move", 10, 5)
    sent = Sent(canvas, monkeypatch)
    for step in range(20):
        fire(canvas, "mouse_move", 11 + step, 6 + step)
    messages, layers = sent.take()
    assert set(layers) == {"draft"} and messages == 20


def test_the_still_picture_has_the_outlines(canvas):
    canvas.regions = [A, TRIANGLE]
    outlined = canvas.figure()._repr_png_()
    canvas.regions = [A, (10, 10, 30, 40)]
    assert canvas.figure()._repr_png_() != outlined


# Hostile words


@pytest.mark.parametrize("words", HOSTILE)
def test_hostile_labels_are_only_ever_text(canvas, words):
    canvas.regions = [{"id": 1, "box": A, "label": words}, B]
    canvas._opener.value = True
    press(canvas, "1")
    assert status(canvas).startswith(f"region1 ({words}):")
    row(canvas, 2)._label.value = words
    canvas.say(words, error=True)
    assert status(canvas) == words
    found = [each for each in walk(canvas) if isinstance(each, ipywidgets.HTML | ipywidgets.HTMLMath)]
    assert len(found) >= 3
    for each in found:
        page = Page(each.value)
        assert "<" not in words or words not in each.value
        assert {tag for tag, _ in page.tags} <= {"span", "div", "style"}
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert [each.label for each in canvas.regions] == [words, words]
    assert row(canvas, 1)._label.value == words
    assert canvas.figure()._repr_png_()


# What is kept


def test_the_bundle_holds_a_still_picture_beside_the_widget(canvas):
    canvas.regions = [A]
    bundle = canvas._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "text/plain" in bundle
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).format == "PNG"
    assert png_bundle(canvas.figure())["image/png"] == bundle["image/png"]


def test_saving(canvas, picture, tmp_path):
    canvas.regions = [{"id": 3, "box": A, "label": "é <b>"}]
    canvas.save(tmp_path / "regions.json")
    again = RegionSet.from_json((tmp_path / "regions.json").read_text(encoding="utf-8"))
    assert again.regions == canvas.regions and json.loads(canvas.region_set.to_json())["image"]["width"] == 64
    RegionCanvas(picture, again).close()
    canvas.save(str(tmp_path / "figure.PNG"))
    assert Image.open(tmp_path / "figure.PNG").width > 64
    assert canvas.figure().axes and canvas.regions[0].id == 3


def test_figures_of_regions_with_gaps_and_of_none(canvas):
    blank = canvas.figure()._repr_png_()
    canvas.regions = [{"id": 9, "box": A}]
    assert canvas.figure()._repr_png_() != blank


def test_closing_twice(picture):
    shared = RegionSet.of_picture(picture, [A])
    canvas = RegionCanvas(picture, shared)
    canvas.close()
    canvas.close()
    shared.add(B)
    assert len(shared) == 2 and len(canvas.regions) == 1 and shared._observers == []


def test_closing_leaves_no_widgets_behind(picture):
    from ipywidgets.widgets.widget import _instances

    before = set(_instances)
    canvas = RegionCanvas(picture, [A, B])
    canvas._opener.value = True
    canvas.regions = [B]
    assert len(set(_instances) - before) > 20
    canvas.close()
    assert set(_instances) - before <= {canvas.layout.model_id}


@pytest.mark.parametrize("size", [(4000, 3000), (1999, 1501), (64, 48)])
@pytest.mark.parametrize("zoom", [1, 1.7, 4, 30])
def test_what_is_sent_of_a_picture_is_what_is_seen_of_it(size, zoom):
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    image = Image.fromarray(np.stack([across, down, 255 - across], 2).astype(np.uint8))
    canvas = RegionCanvas(image, width=320, height=240)
    canvas.zoom_to(zoom * canvas.editor.view.fitting)
    sent = Image.open(io.BytesIO(canvas._painter._images[-1].value))
    whole = image.resize(sent.size, Image.Resampling.BOX, box=canvas.editor.view.visible)
    assert np.abs(np.asarray(sent, float) - np.asarray(whole, float)).max() <= 8  # JPEG, and another filter
    canvas.close()
