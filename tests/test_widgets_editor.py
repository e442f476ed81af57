"""What the mouse, fingers and keys do to the regions, without a browser."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roilab.regions import bounding_box, disc, validate_boxes, validate_regions
from roilab.widgets import RegionSet
from roilab.widgets.boxes import HANDLES
from roilab.widgets.drag import PATH_MOST
from roilab.widgets.editor import ACTIONS, HANDLE, TOOLS, Editor
from roilab.widgets.outlines import MOST, area, encloses, simplified
from roilab.widgets.view import View

SIZE = (64, 48)
SCALE = 10  # canvas pixels per pixel of the picture, when all of it is seen
BIG, SMALL = (10, 10, 50, 40), (20, 15, 30, 25)


def make(*boxes, size=SIZE, room=(640, 480)):
    regions = RegionSet(size, boxes)
    return Editor(regions, View(size, *room)), regions


def at(x, y):
    return x * SCALE, y * SCALE


def drag(editor, start, end, steps=2, up=True):
    """Pull from one point of the picture to another."""
    editor.down(*at(*start))
    for step in range(1, steps + 1):
        part = step / steps
        editor.move(*at(start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1])))
    if up:
        editor.up(*at(*end))


def click(editor, x, y):
    editor.down(*at(x, y))
    editor.up(*at(x, y))


def boxes(regions):
    return [each.box for each in regions]


# Drawing

points = st.tuples(st.floats(0, SIZE[0]), st.floats(0, SIZE[1]))
far_points = st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))


def test_a_drag_draws_a_box_and_selects_it():
    editor, regions = make()
    drag(editor, (5, 6), (20, 30), up=False)
    assert editor.draft == (None, (5, 6, 20, 30)) and len(regions) == 0 and not regions.can_undo
    editor.up(*at(20, 31))
    assert boxes(regions) == [(5, 6, 20, 31)] and regions.selected == 1
    assert editor.drag is None and editor.draft is None
    regions.undo()
    assert len(regions) == 0 and not regions.can_undo, "one drag is one step"


@settings(max_examples=60, deadline=None)
@given(points, points)
def test_a_reversed_drag_gives_the_same_box(start, end):
    found = []
    for one, two in ((start, end), (end, start), ((start[0], end[1]), (end[0], start[1]))):
        editor, regions = make()
        drag(editor, one, two)
        found.append(boxes(regions))
    assert found[0] == found[1] == found[2]


@settings(max_examples=60, deadline=None)
@given(points, far_points)
def test_drawn_boxes_are_whole_pixels_inside_the_picture(start, end):
    editor, regions = make()
    drag(editor, start, end)
    for box in boxes(regions):
        assert all(side == round(side) for side in box)
        assert validate_boxes([box], SIZE) == [list(box)]
        for low, high, one, two, limit in (
            (box[0], box[2], start[0], end[0], 64),
            (box[1], box[3], start[1], end[1], 48),
        ):
            clamped = sorted((one, max(0, min(two, limit))))
            assert abs(low - clamped[0]) <= 1.5 and abs(high - clamped[1]) <= 1.5


def test_drawing_stops_at_the_border_and_begins_there_too():
    editor, regions = make()
    drag(editor, (50, 40), (900, -900))
    assert boxes(regions) == [(50, 0, 64, 40)]
    regions.clear()
    drag(editor, (-3, 60), (5, 40))
    assert boxes(regions) == [(0, 40, 5, 48)]


def test_a_thin_drag_gets_one_pixel():
    editor, regions = make()
    drag(editor, (10, 5), (10.1, 20))
    drag(editor, (64, 30), (64, 35))
    assert boxes(regions) == [(10, 5, 11, 20), (63, 30, 64, 35)]


def test_edges_snap_to_whole_pixels():
    editor, regions = make()
    drag(editor, (5.4, 6.6), (20.49, 30.51))
    assert boxes(regions) == [(5, 7, 20, 31)]


# Clicks


@pytest.mark.parametrize(("length", "drawn"), [(0, 0), (3.9, 0), (4, 1)])
def test_under_four_canvas_pixels_it_is_a_click(length, drawn):
    editor, regions = make()
    editor.down(300, 200)
    editor.move(300 + length, 200)
    assert (editor.draft is not None) == bool(drawn)
    editor.up(300 + length, 200)
    assert len(regions) == drawn


def test_a_drag_that_returns_is_no_click():
    editor, regions = make(BIG)
    editor.down(*at(5, 5))
    editor.move(*at(20, 20))
    editor.move(*at(5, 5))
    editor.up(*at(5, 5))
    assert boxes(regions)[1:] == [(5, 5, 6, 6)] and regions.selected == 2


def test_a_click_selects_the_smallest_region_there_or_none():
    editor, regions = make(SMALL, BIG)
    for place, selected in (((25, 20), 1), ((45, 35), 2), ((25, 20), 1), ((60, 45), None)):
        click(editor, *place)
        assert regions.selected == selected
    assert not regions.can_undo


# Moving


def test_a_drag_inside_a_region_moves_it():
    editor, regions = make(BIG, SMALL)
    editor.down(*at(25, 20))
    assert regions.selected == 2
    editor.move(*at(27.6, 19))
    assert editor.draft == (2, (23, 14, 33, 24)) and boxes(regions) == [BIG, SMALL]
    editor.up(*at(27.6, 19))
    assert boxes(regions) == [BIG, (23, 14, 33, 24)]


def test_the_selected_region_is_moved_although_a_smaller_one_lies_above_and_a_click_takes_the_smaller():
    editor, regions = make(BIG, SMALL)
    regions.select(1)
    drag(editor, (25, 20), (26, 22))
    assert boxes(regions) == [(11, 12, 51, 42), SMALL] and regions.selected == 1
    click(editor, 25, 20)
    assert regions.selected == 2


@settings(max_examples=60, deadline=None)
@given(far_points)
def test_moving_keeps_the_size_and_stays_inside(end):
    editor, regions = make(BIG)
    drag(editor, (30, 25), end)
    x1, y1, x2, y2 = regions[1].box
    assert (x2 - x1, y2 - y1) == (40, 30) and validate_boxes([regions[1].box], SIZE) == [[x1, y1, x2, y2]]


def test_moving_keeps_fractions_of_a_pixel():
    editor, regions = make((10.25, 10.5, 20.25, 20.5))
    drag(editor, (15, 15), (18, 14))
    assert boxes(regions) == [(13.25, 9.5, 23.25, 19.5)]


# Handles


def handle_of(box, name):
    right, down = HANDLES[name]
    return box[0] + right * (box[2] - box[0]), box[1] + down * (box[3] - box[1])


@pytest.mark.parametrize("name", HANDLES)
def test_each_handle_moves_its_edges_and_no_others(name):
    editor, regions = make(BIG)
    regions.select(1)
    x, y = handle_of(BIG, name)
    drag(editor, (x, y), (x + 3, y + 2))
    expected = list(BIG)
    for letter, place, by in (("w", 0, 3), ("n", 1, 2), ("e", 2, 3), ("s", 3, 2)):
        expected[place] += by * (letter in name)
    assert boxes(regions) == [tuple(expected)]


@pytest.mark.parametrize("name", HANDLES)
def test_crossing_the_opposite_edge_turns_the_box_over(name):
    editor, regions = make(BIG)
    regions.select(1)
    opposite = {"n": "s", "s": "n", "e": "w", "w": "e"}
    x, y = handle_of(BIG, name)
    fx, fy = handle_of(BIG, "".join(opposite[letter] for letter in name))
    end = (fx + (5 if "e" not in name else -5), fy + (5 if "s" not in name else -5))
    drag(editor, (x, y), end)
    expected = list(BIG)
    if "w" in name or "e" in name:
        expected[0::2] = sorted((fx, end[0]))
    if "n" in name or "s" in name:
        expected[1::2] = sorted((fy, end[1]))
    assert boxes(regions) == [tuple(expected)]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(sorted(HANDLES)),
    far_points,
    st.sampled_from([BIG, (0, 0, 64, 48), (10.3, 10.6, 50.7, 40.2), (63, 47, 64, 48)]),
)
def test_resizing_gives_a_valid_box_and_keeps_the_other_edges(name, end, box):
    editor, regions = make(box)
    regions.select(1)
    drag(editor, handle_of(box, name), end)
    after = regions[1].box
    assert validate_boxes([after], SIZE) == [list(after)]
    if "w" not in name and "e" not in name:
        assert after[0::2] == box[0::2]
    else:
        assert box[2 if "w" in name else 0] in after[0::2]
    if "n" not in name and "s" not in name:
        assert after[1::2] == box[1::2]
    else:
        assert box[3 if "n" in name else 1] in after[1::2]


def test_only_the_selected_region_has_handles():
    editor, regions = make(BIG)
    drag(editor, (50, 40), (55, 45))
    assert boxes(regions) == [(15, 15, 55, 45)], "held at its corner, it is moved"


def test_how_near_a_handle_takes_hold():
    for pointer, reach in HANDLE.items():
        for distance, taken in ((reach, "resize"), (reach + 1, "new")):
            editor, regions = make(BIG)
            regions.select(1)
            editor.down(500 + distance, 400, pointer)
            assert editor.drag.doing == taken


def test_the_middle_of_a_tiny_selected_box_moves_it():
    editor, regions = make((30, 20, 31, 21))
    regions.select(1)
    drag(editor, (30.5, 20.5), (40.5, 25.5))
    assert boxes(regions) == [(40, 25, 41, 26)]


# Lost releases, Enter, Esc


def test_a_release_lost_outside_is_made_up_for_by_the_next_one():
    editor, regions = make()
    drag(editor, (5, 5), (20, 20), up=False)
    editor.out()
    assert editor.drag is not None and editor.hover is None
    editor.move(*at(30, 30))
    editor.down(*at(35, 32))
    assert len(regions) == 0 and editor.drag.start == at(5, 5), "the press begins nothing"
    editor.up(*at(36, 33))
    assert boxes(regions) == [(5, 5, 36, 33)]
    editor.up(*at(50, 40))
    assert len(regions) == 1


def test_enter_commits_a_drag_and_asks_without_one():
    editor, regions = make()
    drag(editor, (5, 5), (20, 20), up=False)
    assert editor.key("Enter") is None and boxes(regions) == [(5, 5, 20, 20)]
    editor.up(*at(40, 40))
    assert len(regions) == 1
    assert editor.key("Enter") == "ask" and len(regions) == 1


def test_escape_cancels_a_drag_then_releases():
    editor, regions = make(BIG)
    before = regions.regions
    for start in ((5, 5), (30, 25)):
        drag(editor, start, (20, 20), up=False)
        assert editor.key("Escape") is None and editor.draft is None
        editor.up(*at(40, 40))
        assert regions.regions == before and not regions.can_undo
    assert editor.key("Escape") == "release"


def test_a_region_removed_in_mid_drag_breaks_nothing():
    for start in ((30, 25), (50, 40)):
        editor, regions = make(BIG)
        regions.select(1)
        drag(editor, start, (32, 27), up=False)
        regions.remove(1)
        assert editor.draft is None
        editor.cursor()
        editor.move(*at(33, 28))
        editor.up(*at(34, 29))
        assert len(regions) == 0 and editor.drag is None
        drag(editor, (5, 5), (10, 10))
        assert boxes(regions) == [(5, 5, 10, 10)]


# Tools


def test_the_box_tool_draws_inside_regions():
    editor, regions = make(BIG)
    regions.select(1)
    editor.use("box")
    drag(editor, (25, 20), (30, 30))
    drag(editor, (50, 40), (55, 45))  # where a handle is
    assert boxes(regions) == [BIG, (25, 20, 30, 30), (50, 40, 55, 45)]
    click(editor, 45, 35)
    assert regions.selected == 1


def test_the_pan_tool_moves_the_view_only():
    editor, regions = make(BIG)
    editor.view.zoom(2, 0, 0)
    editor.use("pan")
    editor.down(200, 200)
    editor.move(160, 180)
    assert (editor.view.left, editor.view.top) == pytest.approx((2, 1)) and editor.draft is None
    editor.up(150, 180)
    assert (editor.view.left, editor.view.top) == pytest.approx((2.5, 1))
    click(editor, 15, 15)
    assert boxes(regions) == [BIG] and regions.selected is None and not regions.can_undo


def test_unknown_tools_and_actions_are_refused():
    editor, _ = make()
    with pytest.raises(ValueError, match="'brush', expected one of select, box, point, lasso, pan"):
        editor.use("brush")
    with pytest.raises(ValueError, match="'jump', expected one of undo"):
        editor.act("jump")
    assert editor.tool == "select"


def test_the_wheel_moves_a_picture_that_is_larger_than_the_canvas():
    editor, _ = make()
    editor.wheel(0, 100)
    assert (editor.view.left, editor.view.top) == (0, 0)
    editor.view.zoom(2, 0, 0)
    editor.wheel(40, 100)
    assert (editor.view.left, editor.view.top) == pytest.approx((2, 5))
    editor.down(100, 100)
    editor.wheel(40, 100)
    assert (editor.view.left, editor.view.top) == pytest.approx((2, 5)), "not under a drag"


def test_a_drag_in_a_magnified_picture_is_about_what_is_seen_there():
    editor, regions = make()
    editor.view.zoom(2, 640, 480)
    assert (editor.view.left, editor.view.top) == pytest.approx((32, 24))
    editor.down(20, 40)
    editor.up(220, 140)
    assert boxes(regions) == [(33, 26, 43, 31)]


# Keys


def test_keys_take_up_tools():
    editor, _ = make()
    for key, tool in (
        ("b", "box"), ("H", "pan"), ("V", "select"), ("B", "box"), ("p", "point"), ("G", "lasso"), ("P", "point"), ("g", "lasso"),
        ("v", "select"), ("h", "pan"),
    ):  # fmt: skip
        assert editor.key(key) is None and editor.tool == tool
    assert {key: tool for tool, key in TOOLS.items()} == {
        "v": "select", "b": "box", "p": "point", "g": "lasso", "h": "pan",
    }  # fmt: skip


def test_digits_select_regions_that_there_are():
    editor, regions = make({"id": 9, "box": BIG}, {"id": 3, "box": SMALL})
    for key, selected in (("3", 3), ("9", 9), ("1", 9), ("²", 9), ("٣", 9)):
        assert editor.key(key) is None and regions.selected == selected


def test_tab_goes_on_and_shift_tab_back():
    editor, regions = make(BIG, SMALL, BIG)
    seen = []
    for shift in (False, False, False, False, True, True):
        editor.key("Tab", shift)
        seen.append(regions.selected)
    assert seen == [1, 2, 3, 1, 3, 2]


def test_arrows_move_by_one_pixel_or_ten_as_one_step():
    editor, regions = make(SMALL)
    regions.select(1)
    for key, shift in (
        ("ArrowRight", False),
        ("ArrowDown", True),
        ("ArrowLeft", True),
        ("ArrowUp", False),
        ("ArrowUp", False),
    ):
        assert editor.key(key, shift) is None
    assert boxes(regions) == [(11, 23, 21, 33)]
    editor.key("z", ctrl=True)
    assert boxes(regions) == [SMALL] and not regions.can_undo
    for _ in range(9):
        editor.key("ArrowLeft", True)
    assert boxes(regions) == [(0, 15, 10, 25)]


def test_arrows_without_a_selected_region_move_the_view():
    editor, regions = make(SMALL)
    editor.view.zoom(2, 0, 0)
    editor.key("ArrowRight")
    editor.key("ArrowDown")
    assert (editor.view.left, editor.view.top) == pytest.approx((2, 2)) and boxes(regions) == [SMALL]


@pytest.mark.parametrize("key", ["Delete", "Backspace"])
def test_delete_removes_the_selected_region_only(key):
    editor, regions = make(BIG, SMALL)
    editor.key(key)
    assert len(regions) == 2
    regions.select(2)
    editor.key(key)
    assert boxes(regions) == [BIG] and regions.selected is None


@pytest.mark.parametrize("held", [{"ctrl": True}, {"meta": True}])
def test_undo_and_redo_keys(held):
    editor, regions = make()
    drag(editor, (5, 5), (20, 20))
    drag(editor, (30, 30), (40, 40))
    for key, shift, count in (
        ("z", False, 1),
        ("Z", True, 2),
        ("z", False, 1),
        ("z", False, 0),
        ("z", False, 0),
        ("y", False, 1),
        ("y", False, 2),
    ):
        editor.key(key, shift, **held)
        assert len(regions) == count
    for key in ("Delete", "b", "1", "0", "ArrowLeft", "Enter", "Escape"):
        regions.select(2)
        before = regions.to_json()
        assert editor.key(key, **held) is None
        assert (regions.to_json(), editor.tool, regions.selected) == (before, "select", 2), (
            "others belong to the browser"
        )


def test_zoom_keys():
    editor, regions = make(SMALL)
    editor.hover = (100, 50)
    held = editor.view.to_picture(100, 50)
    editor.key("+")
    assert editor.view.scale == pytest.approx(15) and editor.view.to_picture(100, 50) == pytest.approx(held)
    editor.key("=")
    editor.key("-")
    editor.key("_", True)
    assert editor.view.is_fitting
    editor.key("+")
    editor.key("0")
    assert editor.view.is_fitting and (editor.view.left, editor.view.top) == (0, 0)
    editor.hover = None
    regions.select(1)
    editor.key("+")
    assert editor.view.to_canvas(25, 20) == pytest.approx(at(25, 20)), "about the selected region"


def test_selecting_by_key_brings_the_region_into_view():
    editor, regions = make((0, 0, 5, 5), (60, 44, 64, 48))
    editor.view.zoom(3, 0, 0)
    editor.key("2")
    x1, y1, x2, y2 = editor.view.visible
    assert x1 <= 60 and x2 == pytest.approx(64) and y1 <= 44 and y2 == pytest.approx(48)
    editor.key("Tab")
    assert (editor.view.left, editor.view.top) == (0, 0)


@pytest.mark.parametrize("act", [lambda editor: editor.key("b"), lambda editor: editor.key("Tab"), lambda editor: editor.key("z", ctrl=True),
                                 lambda editor: editor.key("ArrowUp"), lambda editor: editor.key("1"), lambda editor: editor.key("+")])  # fmt: skip
def test_keys_forget_the_drag(act):
    editor, regions = make(BIG)
    drag(editor, (2, 2), (8, 8), up=False)
    act(editor)
    editor.up(*at(9, 9))
    assert boxes(regions) == [BIG] and editor.drag is None


def test_unknown_keys_do_nothing():
    editor, regions = make(BIG)
    regions.select(1)
    before = regions.to_json()
    for key in ("q", "F5", "Shift", "é", " ", "Dead", "Control"):
        assert editor.key(key) is None
    assert regions.to_json() == before and regions.selected == 1 and editor.tool == "select" and not regions.can_undo


# Fingers


def test_one_finger_draws():
    editor, regions = make()
    editor.touch_start([at(5, 5)])
    editor.touch_move([at(20, 30)])
    assert editor.draft == (None, (5, 5, 20, 30))
    editor.touch_end([])
    assert boxes(regions) == [(5, 5, 20, 30)] and editor.hover is None


def test_a_second_finger_cancels_the_drawing_and_both_zoom():
    editor, regions = make()
    editor.touch_start([at(5, 5)])
    editor.touch_move([at(20, 20)])
    editor.touch_start([(300, 240), (340, 240)])
    assert editor.draft is None
    held = editor.view.to_picture(320, 240)
    editor.touch_move([(280, 240), (360, 240)])
    assert editor.view.scale == pytest.approx(20) and editor.view.to_picture(320, 240) == pytest.approx(held)
    editor.touch_move([(290, 250), (370, 250)])
    assert editor.view.to_picture(330, 250) == pytest.approx(held) and editor.view.scale == pytest.approx(20)
    editor.touch_end([(290, 250)])
    editor.touch_move([(400, 400)])
    editor.touch_end([])
    assert len(regions) == 0 and editor.drag is None
    editor.touch_start([(10, 10)])
    editor.touch_end([])
    assert len(regions) == 0


def test_two_fingers_on_one_spot_do_not_break():
    editor, _ = make()
    editor.touch_start([(300, 240), (300, 240)])
    editor.touch_move([(300, 240), (300, 240)])
    assert editor.view.is_fitting
    editor.touch_move([(250, 240), (350, 240)])
    assert editor.view.visible[0] >= 0


def test_a_cancelled_touch_draws_nothing():
    editor, regions = make()
    editor.touch_start([at(5, 5)])
    editor.touch_move([at(20, 20)])
    editor.touch_cancel()
    editor.touch_end([])
    assert len(regions) == 0 and editor.drag is None and editor.hover is None


def test_fingers_take_handles_from_farther_away():
    editor, regions = make(BIG)
    regions.select(1)
    editor.touch_start([(515, 415)])
    editor.touch_move([(535, 425)])
    editor.touch_end([])
    assert boxes(regions) == [(10, 10, 52, 41)]


# Cursors


@pytest.mark.parametrize(
    ("name", "cursor"),
    [
        ("n", "ns"),
        ("s", "ns"),
        ("e", "ew"),
        ("w", "ew"),
        ("nw", "nwse"),
        ("se", "nwse"),
        ("ne", "nesw"),
        ("sw", "nesw"),
    ],
)
def test_cursors_of_handles(name, cursor):
    editor, regions = make(BIG)
    regions.select(1)
    editor.move(*at(*handle_of(BIG, name)))
    assert editor.cursor() == f"{cursor}-resize"


def test_other_cursors():
    editor, _ = make(BIG)
    assert editor.cursor() == "crosshair"
    editor.move(*at(30, 25))
    assert editor.cursor() == "move"
    editor.move(*at(5, 5))
    assert editor.cursor() == "crosshair"
    editor.down(*at(5, 5))
    editor.move(*at(30, 25))
    assert editor.cursor() == "crosshair", "as long as it is drawn"
    editor.cancel()
    editor.use("box")
    assert editor.cursor() == "crosshair"
    editor.use("pan")
    assert editor.cursor() == "grab"
    editor.out()
    assert editor.cursor() == "crosshair"


# Points and outlines

CIRCLE = [(20 + 10 * math.cos(i / 100 * math.tau), 20 + 8 * math.sin(i / 100 * math.tau)) for i in range(96)]
L = ((10.5, 10), (20, 10), (20, 30), (40, 30), (40, 40), (10.5, 40))


def lasso(editor, path, up=True):
    editor.use("lasso")
    editor.down(*at(*path[0]))
    for place in path[1:]:
        editor.move(*at(*place))
    if up:
        editor.up(*at(*path[-1]))


def test_a_lasso_draws_an_outline_that_is_closed_and_simple():
    editor, regions = make(BIG)
    lasso(editor, CIRCLE, up=False)
    number, shape = editor.draft
    assert number is None and len(shape) > 50 and len(regions) == 1
    editor.up(*at(*CIRCLE[-1]))
    new = regions[2]
    assert new.kind == "polygon" and regions.selected == 2 and 12 <= len(new.outline) <= MOST
    assert area(new.outline) == pytest.approx(math.pi * 80, rel=0.03)
    assert new.box == pytest.approx((10, 12, 30, 28), abs=0.2) and new.shape == [list(each) for each in new.outline]
    assert all(round(value, 1) == value for point in new.outline for value in point)
    assert all(one != other for one, other in zip(new.outline, (*new.outline[1:], new.outline[0]), strict=True))
    assert editor.drag is None and editor.tool == "lasso"
    regions.undo()
    assert len(regions) == 1, "one lasso is one step"


def test_a_lasso_stops_at_the_border():
    editor, regions = make()
    lasso(editor, [(60, 20), (90, -20), (90, 60), (55, 300), (40, 30)])
    assert regions[1].box == (40, 0, 64, 48) and validate_regions([regions[1].shape], SIZE) == [regions[1].shape]


@pytest.mark.parametrize("path", [[(20, 15)], [(20, 15), (20.3, 15.2)]])
def test_a_click_with_the_lasso_selects(path):
    editor, regions = make(BIG)
    lasso(editor, path)
    assert len(regions) == 1 and regions.selected == 1 and not regions.can_undo


def test_a_lasso_that_encloses_nothing_draws_nothing():
    editor, regions = make(BIG)
    lasso(editor, [(20, 15), (25, 20), (30, 25)])
    lasso(editor, [(20, 15), (30, 15), (20, 15)])
    assert len(regions) == 1 and not regions.can_undo and editor.drag is None


def test_escape_forgets_a_lasso_and_a_point_and_enter_ends_them():
    editor, regions = make()
    lasso(editor, CIRCLE, up=False)
    assert editor.key("Escape") is None and editor.drag is None
    editor.up(*at(*CIRCLE[-1]))
    editor.use("point")
    editor.down(*at(5, 6))
    assert editor.key("Escape") is None
    editor.up(*at(5, 6))
    assert len(regions) == 0 and not regions.can_undo
    editor.down(*at(5, 6))
    assert editor.key("Enter") is None
    editor.up(*at(5, 6))
    lasso(editor, CIRCLE, up=False)
    editor.out()
    assert editor.key("Enter") is None
    assert [each.kind for each in regions] == ["point", "polygon"]


def test_a_long_lasso_stays_short_while_it_is_drawn():
    editor, regions = make()
    spiral = [(32 + (5 + i / 150) * math.cos(i / 20), 24 + (5 + i / 150) * math.sin(i / 20)) for i in range(2500)]
    lasso(editor, spiral, up=False)
    assert len(editor.draft[1]) <= 2 * PATH_MOST + 1
    editor.up(*at(*spiral[-1]))
    assert len(regions[1].outline) <= MOST


@pytest.mark.parametrize("moved", [0, 7])
def test_a_click_or_a_drag_makes_a_point_where_it_ends(moved):
    editor, regions = make(BIG)
    editor.use("point")
    editor.down(*at(20.2, 15.4))
    assert editor.draft == (None, tuple(map(tuple, disc(20, 15, SIZE)))) and len(regions) == 1
    editor.move(*at(20.2 + moved, 15.4))
    editor.up(*at(20.2 + moved, 15.4))
    new = regions[2]
    assert (new.kind, new.place) == ("point", (20 + moved, 15)) and regions.selected == 2
    assert new.shape == disc(20 + moved, 15, SIZE) and new.box == tuple(bounding_box(new.shape))
    regions.undo()
    assert len(regions) == 1


def test_a_point_has_no_handles_and_is_hit_from_a_little_way_off():
    editor, regions = make({"place": (30, 20)})
    regions.select(1)
    x2 = regions[1].box[2]
    drag(editor, (x2 - 0.4, 20), (x2 + 4.6, 23))  # where a box has its handle
    assert regions[1].place == (35, 23) and len(regions) == 1
    drag(editor, (35, 23), (900, -900))
    assert regions[1].place == (64, 0) and validate_regions([regions[1].shape], SIZE) == [regions[1].shape]
    drag(editor, (64, 0), (44, 10))
    assert regions[1].shape == disc(44, 10, SIZE), "the disc is whole again"

    editor, regions = make({"place": (500, 20)}, size=(1000, 40))  # the disc is one pixel of the canvas
    x, y = editor.view.to_canvas(500, 20)
    for off, pointer, doing in ((7, "mouse", "move"), (9, "mouse", "new"), (17, "touch", "move"), (19, "touch", "new")):
        editor.down(x + off, y, pointer=pointer)
        assert editor.drag.doing == doing, (off, pointer)
        editor.cancel()
    editor.down(x + 7, y)
    editor.up(x + 7, y)
    assert regions.selected == 1


def test_an_outline_is_moved_with_its_shape_kept_and_stops_at_the_border():
    editor, regions = make(L)
    drag(editor, (15, 15), (25.3, 17.2))
    assert regions[1].outline == tuple((x + 10, y + 2) for x, y in L) and regions.selected == 1
    drag(editor, (25, 17), (-90, 400))
    assert regions[1].box == (0, 18, 29.5, 48)
    assert regions[1].outline == tuple((x - 10.5, y + 8) for x, y in L)
    editor.nudge(1, 0, 5)
    assert regions[1].box == (5, 18, 34.5, 48)
    for _ in range(3):
        regions.undo()
    assert regions[1].outline == L


@pytest.mark.parametrize("name", HANDLES)
def test_the_handles_of_an_outline_stretch_it(name):
    editor, regions = make(L)
    regions.select(1)
    right, down = HANDLES[name]
    start = 10.5 + right * 29.5, 10 + down * 30
    drag(editor, start, (start[0] + 4, start[1] - 3), up=False)
    number, shape = editor.draft
    editor.up(*at(start[0] + 4, start[1] - 3))
    new = regions[1]
    assert number == 1 and shape == new.outline and new.kind == "polygon"
    assert new.box == tuple(bounding_box(new.shape)) != (10.5, 10, 40, 40)
    x1, y1, x2, y2 = new.box
    for (x, y), (old_x, old_y) in zip(new.outline, L, strict=True):
        assert (x - x1) / (x2 - x1) == pytest.approx((old_x - 10.5) / 29.5)
        assert (y - y1) / (y2 - y1) == pytest.approx((old_y - 10) / 30)


def test_the_smallest_region_is_that_whose_outline_holds_the_point():
    editor, regions = make(BIG, L)
    click(editor, 30, 20)  # in the box around the L, not in the L
    assert regions.selected == 1
    click(editor, 15, 35)
    assert regions.selected == 2
    click(editor, 60, 45)
    drag(editor, (30, 20), (33, 24))
    assert regions[1].box == (13, 14, 53, 44) and regions[2].outline == L
    assert [each.area for each in regions] == [1200, 9.5 * 30 + 20 * 10]


def test_a_region_that_becomes_a_point_in_mid_drag_breaks_nothing():
    editor, regions = make(BIG)
    regions.select(1)
    drag(editor, (10, 10), (15, 15), up=False)
    regions.replace([{"id": 1, "place": (5, 5)}])
    assert editor.draft is None
    editor.up(*at(15, 15))
    assert regions[1].place == (5, 5)


@settings(max_examples=60, deadline=None)
@given(st.lists(points, min_size=3, max_size=12), points)
def test_an_outline_holds_what_the_models_mask_shows(outline, point):
    from roilab.regions.outlines import _points, _within

    x, y = point
    columns, rows = (_points([(value, 0)] * 3, 1)[:1, 0] for value in (x, y))
    assert encloses(tuple(outline), x, y) == _within(_points(outline, 1), columns, rows).item()


@settings(max_examples=60, deadline=None)
@given(st.lists(points, min_size=2, max_size=60), st.floats(0.01, 5), st.integers(3, 40))
@pytest.mark.slow
def test_what_a_simpler_path_leaves_out_lies_near_it(path, tolerance, most):
    kept = simplified(path, tolerance, most=len(path))
    assert kept[0] == path[0] and kept[-1] == path[-1] and [each for each in path if each in kept]
    for x, y in path:
        near = min(_off((x, y), *pair) for pair in itertools.pairwise(kept))
        assert near <= tolerance + 1e-9
    assert len(simplified(path, tolerance, most)) <= most


def _off(point, one, other):
    """Distance to a line, found by walking along it."""
    steps = [i / 2000 for i in range(2001)]
    length = math.dist(one, other)
    near = min(math.dist(point, (one[0] + t * (other[0] - one[0]), one[1] + t * (other[1] - one[1]))) for t in steps)
    return max(0.0, near - length / 4000)


# Anything in any order

coordinates = st.one_of(st.floats(-50, 700), st.integers(-50, 700), st.sampled_from([-1e12, 1e12, 0, 640, 480]))
spots = st.tuples(coordinates, coordinates)
KEYS = [
    "Enter",
    "Escape",
    "Tab",
    "Delete",
    "Backspace",
    *"123456789+-=_0vbhpgVBHPGzyZY",
    "ArrowLeft",
    "ArrowRight",
    "ArrowUp",
    "ArrowDown",
    "q",
]
events = st.one_of(
    st.tuples(st.sampled_from(["down", "move", "up"]), coordinates, coordinates),
    st.tuples(st.sampled_from(["down", "move", "up"]), coordinates, coordinates),
    st.tuples(st.sampled_from(["out", "touch_cancel", "finish", "cancel"])),
    st.tuples(st.just("key"), st.sampled_from(KEYS), st.booleans(), st.booleans()),
    st.tuples(st.sampled_from(["touch_start", "touch_move", "touch_end"]), st.lists(spots, max_size=3)),
    st.tuples(st.just("wheel"), coordinates, coordinates),
    st.tuples(st.just("act"), st.sampled_from(ACTIONS)),
)


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from([
        (SIZE, (BIG, SMALL)), (SIZE, ()), ((1, 1), ((0, 0, 1, 1),)), ((1, 1), ((0.25, 0.25, 0.75, 0.5),)), ((1000, 3), ((0.5, 0.5, 999.5, 1.5),)),
        (SIZE, ((10.3, 10.6, 50.7, 40.2), (0, 0, 0.1, 0.1))),
        (SIZE, (((5.1, 5), (30.7, 9.3), (12, 40.9)), {"place": (63.5, 0)})), ((1, 1), ({"place": (1, 1)}, ((0, 0), (0.3, 1), (1, 0.1)))),
    ]),
    st.lists(events, max_size=25),
)  # fmt: skip
def test_whatever_happens_the_regions_are_valid_and_can_be_undone(start, sequence):
    size, given_boxes = start
    editor, regions = make(*given_boxes, size=size)
    before = regions.regions
    for name, *args in sequence:
        getattr(editor, name)(*args)
        found = [list(box) for box in boxes(regions)]
        assert validate_boxes(found, size) == found
        shapes = [each.shape for each in regions]
        assert validate_regions(shapes, size) == shapes and [bounding_box(each) for each in shapes] == found
        if editor.draft is not None and editor.drag.doing != "lasso":  # which may still be a line
            validate_regions([editor.draft[1]], size)
        assert isinstance(editor.cursor(), str)
        x1, y1, x2, y2 = editor.view.visible
        assert 0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]
    assert regions.can_undo or regions.can_redo or regions.regions == before
    while regions.undo():
        pass
    assert regions.regions == before
