"""The state behind the widgets: regions with numbers, undo and JSON, and the window on a picture."""

import dataclasses
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from roilab.plotting.style import region_colour
from roilab.regions import bounding_box, disc, validate_boxes, validate_regions
from roilab.widgets import Region, RegionSet
from roilab.widgets.region import LABEL_LENGTH, picture_hash
from roilab.widgets.view import LARGEST, SMALLEST_SIDE, View

SIZE = (64, 48)
A, B, C = (1, 2, 30, 40), (10, 5, 60, 20), (5, 5, 20, 30)
OUTSIDE = (70, 5, 80, 20)
TRIANGLE = ((10.5, 10), (30, 20.25), (12, 40))


def spans(side, step=8):
    """Two places in order, on fractions of a pixel that sums keep exactly."""
    places = st.integers(0, side * step)
    return (
        st.tuples(places, places)
        .filter(lambda pair: pair[0] != pair[1])
        .map(lambda pair: sorted(v / step for v in pair))
    )


def boxes_in(size, step=8):
    return st.tuples(spans(size[0], step), spans(size[1], step)).map(
        lambda xy: (xy[0][0], xy[1][0], xy[0][1], xy[1][1])
    )


def any_float_boxes(size):
    def span(side):
        return st.tuples(st.floats(0, side), st.floats(0, side)).filter(lambda pair: pair[0] != pair[1]).map(sorted)

    return st.tuples(span(size[0]), span(size[1])).map(lambda xy: (xy[0][0], xy[1][0], xy[0][1], xy[1][1]))


def numbers(regions):
    return [each.id for each in regions]


def watched(regions):
    calls = []
    regions.observe(lambda seen: calls.append((seen.regions, seen.selected)))
    return calls


# Numbers and order


def test_numbers_stay_when_others_go_and_the_smallest_free_one_is_given():
    regions = RegionSet(SIZE, [A, B, C])
    regions.remove(2)
    assert numbers(regions) == [1, 3] and regions[3].box == C
    assert regions.next_number == 2 and regions.add(B) == 2 and regions.add(A) == 4
    assert numbers(regions) == [1, 3, 2, 4]


def test_reserved_numbers_are_given_to_no_new_region():
    regions = RegionSet(SIZE, [A])
    regions.reserve({2, 3})
    assert regions.next_number == 4 and regions.add(B) == 4
    regions.reserve({1, 2})
    regions.replace([{"id": 2, "box": B}, C])  # who names its number gets it
    assert numbers(regions) == [2, 3]


def test_boxes_take_the_numbers_that_given_regions_leave_free():
    regions = RegionSet(SIZE, [A, Region(1, B), {"box": C, "label": "c"}, {"id": 3, "box": A}])
    assert [(each.id, each.box, each.label) for each in regions] == [(2, A, ""), (1, B, ""), (4, C, "c"), (3, A, "")]


def test_two_regions_of_one_number_are_refused():
    with pytest.raises(ValueError, match="2 regions have the number 3"):
        RegionSet(SIZE, [Region(3, A), {"id": 3, "box": B}])
    regions = RegionSet(SIZE, [A])
    with pytest.raises(ValueError, match="3 regions have the number 1"):
        regions.replace([Region(1, A)] * 3)
    assert [each.box for each in regions] == [A] and not regions.can_undo


def test_boxes_and_labels_by_number_have_gaps():
    regions = RegionSet(SIZE, [{"id": 4, "box": A, "label": "four"}, {"id": 2, "box": B, "label": "two"}])
    assert regions.boxes == [None, list(B), None, list(A)]
    assert regions.labels == ["", "two", "", "four"]
    assert RegionSet(SIZE).boxes == RegionSet(SIZE).labels == []


def test_reordering_keeps_numbers_and_stops_at_both_ends():
    regions = RegionSet(SIZE, [A, B, C])
    regions.reorder(3, 0)
    assert numbers(regions) == [3, 1, 2]
    regions.reorder(3, 99)
    assert numbers(regions) == [1, 2, 3]
    regions.reorder(2, -5)
    assert numbers(regions) == [2, 1, 3] and regions.boxes == [list(A), list(B), list(C)]


def test_a_region_is_never_changed_in_place():
    region = RegionSet(SIZE, [A])[1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        region.box = B
    regions = RegionSet(SIZE, [region])
    before = regions.regions
    regions.move(1, 1, 0)
    assert before[0].box == A and regions[1].box == (2, 2, 31, 40) and regions.regions is not before
    given = [1.0, 2.0, 30.0, 40.0]
    regions = RegionSet(SIZE, [given])
    given[0] = 5
    regions.boxes[0][0] = 7
    assert regions[1].box == A


def test_a_colour_belongs_to_its_number_whatever_happens():
    regions = RegionSet(SIZE, [A, B, C])
    before = regions[3].colour
    regions.remove(1)
    regions.reorder(3, 0)
    regions.relabel(3, "other")
    regions.resize(3, A)
    assert regions[3].colour == before == region_colour(3) != regions[2].colour


# Edits and their refusals


def test_every_edit_does_what_it_says():
    regions = RegionSet(SIZE, [A])
    assert regions.add(B, "  a \n b ") == 2 and regions.selected == 2
    assert regions[2] == Region(2, B, "a b")
    regions.resize(2, (0, 0, 100, 100))
    assert regions[2].box == (0, 0, 64, 48) and regions[2].label == "a b"
    regions.relabel(2, None)
    assert regions[2].label == ""
    regions.replace([C])
    assert numbers(regions) == [1] and regions[1].box == C and regions.selected is None
    regions.clear()
    assert len(regions) == 0 and regions.regions == () and 1 not in regions


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda regions: regions.add(OUTSIDE), "region 2: box .* outside .* 64 x 48"),
        (lambda regions: regions.resize(5, OUTSIDE), "region 5: box .* outside"),
        (lambda regions: regions.resize(5, (3, 2, 1, 4)), "region 5: box .* reversed"),
        (lambda regions: regions.resize(5, "1234"), "region 5: a box is four numbers"),
        (lambda regions: regions.replace([A, {"id": 9, "box": (1, 1, 1, 5)}]), "region 9: box .* no area"),
        (lambda regions: regions.replace([{"id": 7}]), "region 7 has no box"),
        (lambda regions: regions.replace([{"id": 7, "box": A, "kind": "mask"}]), "region 7 is of the kind 'mask'"),
        (lambda regions: regions.replace([{"id": 0, "box": A}]), "number 0, expected a whole number from 1"),
        (lambda regions: regions.replace([{"id": True, "box": A}]), "number True"),
        (lambda regions: regions.replace([{"id": "1", "box": A}]), "number '1'"),
        (lambda regions: regions.move(2, 1, 1), "there is no region 2; the regions: 1, 5"),
        (lambda regions: regions.remove(2), "there is no region 2"),
        (lambda regions: regions.select(2), "there is no region 2"),
        (lambda regions: regions.relabel(2, "x"), "there is no region 2"),
        (lambda regions: regions.reorder(2, 0), "there is no region 2"),
    ],
)
def test_a_refused_edit_names_its_region_and_changes_nothing(edit, message):
    regions = RegionSet(SIZE, [{"id": 5, "box": A}, B])
    regions.select(5)
    before, calls = regions.to_json(), watched(regions)
    with pytest.raises(ValueError, match=message):
        edit(regions)
    assert (regions.to_json(), regions.selected, regions.can_undo, calls) == (before, 5, False, [])


@pytest.mark.parametrize("number", [[1], {"a": 1}, None, 1.5])
def test_a_number_of_any_other_kind_is_refused_in_words(number):
    with pytest.raises(ValueError, match="expected a whole number from 1"):
        RegionSet(SIZE, [{"id": number, "box": A}])


@pytest.mark.parametrize("size", [(0, 5), (5, -1)])
def test_a_picture_without_pixels_is_refused(size):
    with pytest.raises(ValueError, match="both sides must be positive"):
        RegionSet(size)


@settings(max_examples=60, deadline=None)
@given(boxes_in(SIZE), st.integers(-200, 200), st.integers(-200, 200))
def test_moving_keeps_the_size_and_stays_inside(box, dx, dy):
    regions = RegionSet(SIZE, [box])
    regions.move(1, dx, dy)
    x1, y1, x2, y2 = regions[1].box
    assert (x2 - x1, y2 - y1) == (box[2] - box[0], box[3] - box[1])
    assert validate_boxes([regions[1].box], SIZE) == [[x1, y1, x2, y2]]
    if 0 <= box[0] + dx and box[2] + dx <= SIZE[0]:
        assert x1 == box[0] + dx
    else:
        assert x1 == 0 or x2 == SIZE[0]
    if 0 <= box[1] + dy and box[3] + dy <= SIZE[1]:
        assert y1 == box[1] + dy
    else:
        assert y1 == 0 or y2 == SIZE[1]


def test_labels_are_one_line_of_limited_length():
    regions = RegionSet(SIZE, [A])
    regions.relabel(1, " two\n\tlines\u2028of  text ")
    assert regions[1].label == "two lines of text"
    regions.relabel(1, "x" * 999)
    assert regions[1].label == "x" * LABEL_LENGTH == "x" * 200


# Selection


def test_selection_follows_what_is_there():
    regions = RegionSet(SIZE, [A, B])
    regions.select(2)
    regions.remove(1)
    assert regions.selected == 2
    regions.remove(2)
    assert regions.selected is None
    regions.undo()
    assert regions.selected is None and numbers(regions) == [2]
    regions.add(C)
    assert regions.selected == 1
    regions.undo()
    assert regions.selected is None
    regions.select(2)
    regions.replace([{"id": 2, "box": C}])
    assert regions.selected == 2


def test_select_next_goes_round_by_number():
    regions = RegionSet(SIZE, [{"id": 5, "box": A}, {"id": 2, "box": B}, {"id": 9, "box": C}])

    def walk(step):
        seen = []
        for _ in range(4):
            regions.select_next(step)
            seen.append(regions.selected)
        return seen

    assert walk(1) == [2, 5, 9, 2]
    regions.select(None)
    assert walk(-1) == [9, 5, 2, 9]
    regions.clear()
    regions.select_next()
    assert regions.selected is None


def test_the_smallest_region_at_a_point_and_of_equal_ones_the_upper():
    regions = RegionSet(SIZE, [(10, 10, 20, 20), (0, 0, 40, 40), (10, 10, 20, 20), (12, 12, 14, 14)])
    assert regions.smallest_at(13, 13) == 4
    assert regions.smallest_at(18, 18) == 3
    assert regions.smallest_at(30, 30) == 2
    assert regions.smallest_at(50, 45) is None


# Undo and redo

operations = st.one_of(
    st.tuples(st.just("add"), boxes_in(SIZE), st.text(max_size=4)),
    st.tuples(st.just("resize"), st.integers(1, 4), boxes_in(SIZE), st.booleans()),
    st.tuples(st.just("move"), st.integers(1, 4), st.integers(-9, 9), st.integers(-9, 9), st.booleans()),
    st.tuples(st.just("relabel"), st.integers(1, 4), st.text(max_size=4)),
    st.tuples(st.just("remove"), st.integers(1, 4)),
    st.tuples(st.just("reorder"), st.integers(1, 4), st.integers(-1, 4)),
    st.tuples(st.just("replace"), st.lists(boxes_in(SIZE), max_size=3)),
    st.tuples(st.just("clear")),
    st.tuples(st.just("select"), st.integers(1, 4)),
)


def apply(regions, operation):
    name, *args = operation
    if args and isinstance(args[0], int) and args[0] not in regions:
        return
    getattr(regions, name)(*args)


@settings(max_examples=80, deadline=None)
@given(st.lists(boxes_in(SIZE), max_size=3), st.lists(operations, max_size=12))
def test_undoing_all_gives_the_start_and_redoing_all_the_end(boxes, sequence):
    regions = RegionSet(SIZE, boxes)
    start = regions.regions
    for operation in sequence:
        apply(regions, operation)
        assert validate_boxes([each.box for each in regions], SIZE) == [list(each.box) for each in regions]
    end = regions.regions
    while regions.undo():
        assert regions.selected is None or regions.selected in regions
    assert regions.regions == start and not regions.can_undo
    while regions.redo():
        pass
    assert regions.regions == end and not regions.can_redo


@settings(max_examples=60, deadline=None)
@given(st.lists(operations.map(lambda each: each[:-1] if each[0] in ("move", "resize") else each), max_size=10))
def test_without_merging_every_change_is_one_step(sequence):
    regions = RegionSet(SIZE, [A, B])
    states = [regions.regions]
    for operation in sequence:
        apply(regions, operation)
        if regions.regions != states[-1]:
            states.append(regions.regions)
    for state in reversed(states[:-1]):
        assert regions.undo() and regions.regions == state
    assert not regions.undo()
    for state in states[1:]:
        assert regions.redo() and regions.regions == state
    assert not regions.redo()


def test_merged_nudges_are_one_step_and_anything_between_ends_it():
    regions = RegionSet(SIZE, [A, B])
    start = regions.regions
    for _ in range(3):
        regions.move(1, 1, 0, merge=True)
    assert regions[1].box == (4, 2, 33, 40)
    assert regions.undo() and regions.regions == start and not regions.can_undo
    regions.redo()
    for between in (
        lambda: regions.select(2),
        lambda: regions.move(2, 1, 0, merge=True),
        lambda: regions.move(1, 0, 1),
        lambda: regions.resize(1, C, merge=True),
    ):
        regions.move(1, 1, 0, merge=True)
        between()
        before = regions.regions
        regions.move(1, 1, 0, merge=True)
        regions.undo()
        assert regions.regions == before


def test_a_new_edit_forgets_what_was_undone():
    regions = RegionSet(SIZE, [A])
    regions.add(B)
    regions.undo()
    assert regions.can_redo
    regions.select(1)
    assert regions.can_redo, "selecting is no edit"
    regions.relabel(1, "x")
    assert not regions.can_redo and not regions.redo() and numbers(regions) == [1]


# Observers


def test_observers_hear_of_every_change_once_and_of_nothing_else():
    regions = RegionSet(SIZE, [A, B])
    calls = watched(regions)
    edits = [
        lambda: regions.add(C), lambda: regions.move(1, 1, 1), lambda: regions.resize(2, A), lambda: regions.relabel(2, "x"),
        lambda: regions.reorder(1, 2), lambda: regions.remove(3), lambda: regions.select(1), lambda: regions.select_next(),
        lambda: regions.undo(), lambda: regions.redo(), lambda: regions.replace([B]), lambda: regions.clear(),
    ]  # fmt: skip
    for count, edit in enumerate(edits, 1):
        edit()
        assert len(calls) == count and calls[-1] == (regions.regions, regions.selected)
    regions = RegionSet(SIZE, [A, B])
    regions.select(2)
    calls = watched(regions)
    for nothing in [
        lambda: regions.move(1, 0, 0), lambda: regions.resize(1, A), lambda: regions.relabel(1, " "), lambda: regions.reorder(2, 5),
        lambda: regions.replace(regions.regions), lambda: regions.select(2), lambda: regions.undo(), lambda: regions.redo(),
    ]:  # fmt: skip
        nothing()
    assert calls == [] and not regions.can_undo


def test_an_observer_that_ended_hears_nothing():
    regions, calls = RegionSet(SIZE), []
    end = regions.observe(calls.append)
    regions.add(A)
    end()
    end()
    regions.add(B)
    assert len(calls) == 1


# Outlines and points


def test_outlines_and_points_beside_boxes():
    regions = RegionSet(SIZE, [A, TRIANGLE, {"id": 4, "place": (50, 20), "label": "here"}])
    assert [each.kind for each in regions] == ["box", "polygon", "point"]
    assert regions[1].shape == list(A) and regions[2].shape == [list(point) for point in TRIANGLE]
    assert regions[4].shape == disc(50, 20, SIZE) and regions[4].place == (50, 20) and regions[4].label == "here"
    assert regions.shapes == [list(A), regions[2].shape, None, regions[4].shape]
    assert regions.boxes == [list(A), [10.5, 10, 30, 40], None, bounding_box(disc(50, 20, SIZE))]
    known = [each for each in regions.shapes if each]
    assert validate_regions(known, SIZE) == known, "as the model takes them"
    assert regions.add(TRIANGLE, "again") == 3 and regions.add_point(0, 48) == 5
    assert regions[3].outline == TRIANGLE and regions[5].place == (0, 48) and regions.selected == 5
    regions.undo()
    assert 5 not in regions


def test_an_outline_over_the_border_is_clipped():
    regions = RegionSet(SIZE, [((-5, 10), (70, 10), (30, 60))])
    assert regions[1].outline == ((0, 10), (64, 10), (30, 48)) and regions[1].box == (0, 10, 64, 48)


def test_a_polygon_is_stretched_to_another_box_and_a_point_has_none():
    regions = RegionSet(SIZE, [((10, 10), (30, 20), (10, 40)), {"place": (50, 20)}])
    regions.resize(1, (0, 10, 40, 70))
    assert regions[1].box == (0, 10, 40, 48), "as far as the picture goes"
    assert [each for point in regions[1].outline for each in point] == pytest.approx([0, 10, 40, 10 + 38 / 3, 0, 48])
    assert regions[1].kind == "polygon"
    before = regions.regions
    with pytest.raises(ValueError, match="region 2 is a point: it has no size"):
        regions.resize(2, A)
    with pytest.raises(ValueError, match="region 1: box .* reversed"):
        regions.resize(1, (30, 3, 1, 4))
    assert regions.regions == before


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 64), st.floats(0, 48)), min_size=3, max_size=8),
    st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), max_size=4),
)
def test_moved_outlines_and_points_stay_valid_and_keep_their_shape(outline, moves):
    try:
        regions = RegionSet(SIZE, [outline, {"place": outline[0]}])
    except ValueError:
        assume(False)  # no area
    x1, y1, _, _ = regions[1].box
    for dx, dy in moves:
        regions.move(1, dx, dy)
        regions.move(2, dx, dy)
        try:
            again = RegionSet.from_json(regions.to_json())
        except ValueError as error:
            assume("no area" not in str(error))  # it is thinner than the numbers are exact
            raise
        assert again.regions == regions.regions
        left, top, _, _ = regions[1].box
        for (x, y), (old_x, old_y) in zip(regions[1].outline, outline, strict=True):
            assert (x - left, y - top) == pytest.approx((old_x - x1, old_y - y1), abs=1e-9)
        assert regions[2].shape == disc(*regions[2].place, SIZE)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ({"kind": "polygon", "box": A}, "region 1 has no outline"), ({"kind": "point", "box": A}, "region 1 has no place"),
        ({"kind": "box", "outline": TRIANGLE}, "region 1 has no box"), ({"outline": TRIANGLE[:2]}, "region 1: an outline is three or more"),
        (((1, 1), (2, 2), (3, 3)), "no area"), ({"outline": A}, "region 1: an outline"), ({"outline": None}, "region 1: an outline"),
        ({"outline": ((70, 1), (80, 2), (70, 9))}, "outside"), ({"place": (65, 3)}, r"region 1: the point \(65, 3\) lies outside"),
        ({"place": (float("nan"), 3)}, "outside"), ({"place": A}, "two numbers"), ({"place": None}, "two numbers"), ({"place": "ab"}, "two numbers"),
        (((-1, 5), (5, -1), (-2, 5)), "no area"),
    ],
)  # fmt: skip
def test_what_is_no_outline_and_no_point_is_refused(region, message):
    with pytest.raises(ValueError, match=message):
        RegionSet(SIZE, [region])


def test_json_of_outlines_and_points():
    regions = RegionSet(SIZE, [A, {"id": 5, "outline": TRIANGLE, "label": "three"}, {"id": 2, "place": (50, 20)}], "ab")
    record = json.loads(regions.to_json())
    assert record["format"] == "roilab.regions.1"
    assert record["regions"][1:] == [
        {
            "id": 5, "kind": "polygon", "box": [10.5, 10, 30, 40], "label": "three", "colour": region_colour(5),
            "outline": [list(point) for point in TRIANGLE],
        },
        {
            "id": 2, "kind": "point", "box": bounding_box(disc(50, 20, SIZE)), "label": "", "colour": region_colour(2),
            "place": [50, 20],
        },
    ]  # fmt: skip
    again = RegionSet.from_json(regions.to_json())
    assert again.regions == regions.regions and again.to_json() == regions.to_json()


# JSON


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(any_float_boxes(SIZE), st.text(max_size=20)), max_size=5), st.permutations(range(1, 6)))
def test_json_round_trip(rows, order):
    given_rows = [{"id": number, "box": box, "label": label} for (box, label), number in zip(rows, order)]
    regions = RegionSet(SIZE, given_rows, "0" * 64)
    text = regions.to_json()
    again = RegionSet.from_json(text)
    assert again.to_json() == text
    assert (again.regions, again.size, again.image_hash) == (regions.regions, SIZE, "0" * 64)
    assert [each.box for each in again] == [row["box"] for row in given_rows]


@pytest.mark.parametrize("label", ["x" * 199 + " y", "é 🙂 日本語", '\\ " <b>', "x" * 500])
def test_any_kept_label_survives_json(label):
    text = RegionSet(SIZE, [{"box": A, "label": label}]).to_json()
    assert RegionSet.from_json(text).to_json() == text


def test_json_says_what_it_is():
    record = json.loads(RegionSet.of_picture(Image.new("RGB", SIZE), [A]).to_json())
    assert record["format"] == "roilab.regions.1"
    assert record["image"] == {"width": 64, "height": 48, "sha256": picture_hash(Image.new("RGB", SIZE))}
    assert record["regions"] == [
        {"id": 1, "kind": "box", "box": [1.0, 2.0, 30.0, 40.0], "label": "", "colour": region_colour(1)}
    ]


WHOLE = {"format": "roilab.regions.1", "image": {"width": 64, "height": 48, "sha256": None}, "regions": []}


@pytest.mark.parametrize(
    "text",
    [
        "", "3", "[]", "null", "{}", '"x"',
        json.dumps({**WHOLE, "format": "roilab.chat.1"}),
        json.dumps({**WHOLE, "image": None}),
        json.dumps({**WHOLE, "image": {"width": "wide", "height": 3}}),
        json.dumps({**WHOLE, "image": {"width": 0, "height": 3}}),
        json.dumps({**WHOLE, "image": {"width": float("nan"), "height": 3}}),
        json.dumps({**WHOLE, "image": {"width": float("inf"), "height": 3}}),
        json.dumps({**WHOLE, "regions": 3}),
        json.dumps({**WHOLE, "regions": [3]}),
        json.dumps({**WHOLE, "regions": [None]}),
        json.dumps({**WHOLE, "regions": [{"id": 1}]}),
        json.dumps({**WHOLE, "regions": [{"id": [1], "box": [1, 2, 3, 4]}]}),
        json.dumps({**WHOLE, "regions": [{"id": 1, "box": [70, 5, 80, 20]}]}),
    ],
)  # fmt: skip
def test_other_json_is_refused(text):
    with pytest.raises(ValueError):
        RegionSet.from_json(text)


def test_truncated_json_is_refused_at_every_length():
    text = RegionSet(SIZE, [A], "ab").to_json()
    for end in range(len(text)):
        with pytest.raises(ValueError, match="not saved regions"):
            RegionSet.from_json(text[:end])


def test_a_wrong_format_is_named_with_the_expected_one():
    with pytest.raises(ValueError, match=r"'other'.*'roilab\.regions\.1'"):
        RegionSet.from_dict({**WHOLE, "format": "other"})


def test_another_picture_is_named_on_both_sides():
    black, white = Image.new("RGB", SIZE), Image.new("RGB", SIZE, "white")
    regions = RegionSet.from_json(RegionSet.of_picture(black, [A]).to_json())
    regions.check_picture(black)
    with pytest.raises(ValueError, match="64 x 48 pixels, this one has 48 x 64"):
        regions.check_picture(Image.new("RGB", SIZE[::-1]))
    with pytest.raises(ValueError) as error:
        regions.check_picture(white)
    assert picture_hash(black)[:12] in str(error.value) and picture_hash(white)[:12] in str(error.value)
    RegionSet(SIZE, [A]).check_picture(white)  # regions of no picture in particular


# The window on the picture

sides, rooms = st.integers(1, 4000), st.integers(SMALLEST_SIDE, 900)
moves = st.lists(
    st.one_of(
        st.tuples(st.just("zoom"), st.floats(0.05, 20), st.floats(0, 64), st.floats(0, 64)),
        st.tuples(st.just("zoom"), st.floats(0.05, 20)),
        st.tuples(st.just("pan"), st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
        st.tuples(st.just("set_scale"), st.floats(0, 100)),
        st.tuples(st.just("fit")),
    ),
    max_size=5,
)


def moved(width, height, room, steps):
    view = View((width, height), *room)
    for name, *args in steps:
        getattr(view, name)(*args)
    return view


def close_to(value, scale=1.0):
    return pytest.approx(value, abs=1e-6 * max(1, scale), rel=1e-9)


@settings(max_examples=80, deadline=None)
@given(sides, sides, st.tuples(rooms, rooms), moves, st.floats(0, 1), st.floats(0, 1))
def test_points_come_back_and_what_is_seen_is_inside(width, height, room, steps, right, down):
    view = moved(width, height, room, steps)
    point = right * width, down * height
    assert view.to_picture(*view.to_canvas(*point)) == close_to(point)
    x1, y1, x2, y2 = view.visible
    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    assert view.fitting <= view.scale <= max(LARGEST, view.fitting)
    for side, given_side in ((view.width, room[0]), (view.height, room[1])):
        assert SMALLEST_SIDE <= side <= given_side


@settings(max_examples=80, deadline=None)
@given(sides, sides, st.tuples(rooms, rooms), moves, st.floats(0.1, 10), st.floats(0, 1), st.floats(0, 1))
def test_zooming_keeps_the_point_under_the_cursor_unless_the_border_stops_it(
    width, height, room, steps, factor, right, down
):
    view = moved(width, height, room, steps)
    x, y = right * view.width, down * view.height
    held = view.to_picture(x, y)
    view.zoom(factor, x, y)
    found = view.to_picture(x, y)
    for axis, start, seen, side in ((0, view.left, view.width, width), (1, view.top, view.height, height)):
        at_border = start == 0 or start == close_to(side - seen / view.scale)
        assert at_border or found[axis] == close_to(held[axis])


def test_zooming_in_the_middle_of_a_large_picture_moves_nothing_there():
    view = View((1000, 800), 500, 400)
    held = view.to_picture(200, 150)
    view.zoom(3, 200, 150)
    assert view.scale == close_to(1.5) and view.to_picture(200, 150) == close_to(held) and view.left > 0
    view.zoom(1e-9)
    assert view.is_fitting and (view.left, view.top) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(st.data(), sides, sides, st.tuples(rooms, rooms), moves)
def test_reveal_shows_the_box_or_its_middle(data, width, height, room, steps):
    view = moved(width, height, room, steps)
    box = data.draw(boxes_in((width, height)))
    shown = view.visible
    view.reveal(box)
    x1, y1, x2, y2 = view.visible
    for low, high, start, end, had in ((box[0], box[2], x1, x2, shown[0::2]), (box[1], box[3], y1, y2, shown[1::2])):
        slack = 1e-6 * max(width, height)
        if high - low <= end - start:
            assert start - slack <= low and high <= end + slack
        else:
            assert start - slack <= (low + high) / 2 <= end + slack
        if had[0] <= low and high <= had[1]:
            assert start == pytest.approx(had[0], abs=slack), "what is seen already moves nothing"


@pytest.mark.parametrize(
    ("size", "canvas", "scale"),
    [
        ((4000, 20), (560, 64), 0.14),
        ((20, 4000), (64, 480), 0.12),
        ((1, 1), (480, 480), 480),
        ((640, 480), (560, 420), 0.875),
    ],
)
def test_strips_and_single_pixels_get_a_canvas_that_can_be_hit(size, canvas, scale):
    view = View(size, 560, 480)
    assert (view.width, view.height) == canvas and view.scale == close_to(scale)
    assert view.visible == close_to((0, 0, *size))
    view.zoom(4, 0, 0)
    view.pan(-1e9, -1e9)
    assert view.visible[2:] == close_to(size) and view.left >= 0 and view.top >= 0


@pytest.mark.parametrize("room", [(63, 480), (480, 63), (0, 0), (-5, 100)])
def test_too_small_a_canvas_is_refused(room):
    with pytest.raises(ValueError, match=f"{room[0]} x {room[1]} pixels, expected at least 64 x 64"):
        View((10, 10), *room)


@settings(max_examples=40, deadline=None)
@given(boxes_in((40, 30)), moves)
def test_boxes_go_to_the_canvas_corner_by_corner(box, steps):
    view = moved(40, 30, (300, 300), steps)
    assume(view.scale > 0)
    assert view.box_to_canvas(box) == (*view.to_canvas(box[0], box[1]), *view.to_canvas(box[2], box[3]))
