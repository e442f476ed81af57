"""Curves over steps, and points of a plane beside their words."""

import pytest
import torch

from roilab import plotting


def panel(labels=True):
    figure, [axes] = plotting.panels([""], side=240, labels=labels)
    return figure, axes


def inside(figure, artist) -> bool:
    box, (width, height) = artist.get_window_extent(figure.canvas.get_renderer()), figure.canvas.get_width_height()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_curves_have_their_points_a_legend_and_readable_labels():
    figure, axes = panel()
    plotting.draw_curves(
        axes, {"before": [(0, 2.0), (10, 1.5)], "after": [(0, 1.0)] + [(i, 0.5) for i in range(1, 40)]}
    )
    one, two = axes.lines
    assert one.get_xydata().tolist() == [[0, 2], [10, 1.5]] and len(two.get_xydata()) == 40
    assert one.get_color() != two.get_color() and one.get_marker() == "o" and two.get_marker() == "None"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["before", "after"]
    figure.canvas.draw()
    low, high = axes.get_xlim()
    ticks = [text for text, x in zip(axes.get_xticklabels(), axes.get_xticks()) if low <= x <= high]
    texts = [axes.xaxis.label, axes.yaxis.label, *ticks]
    assert [text.get_text() for text in texts[:2]] == ["step", "loss"]
    assert len(ticks) > 2 and all(inside(figure, text) and text.get_fontsize() * 100 / 72 >= 12 for text in texts)


def test_one_curve_needs_no_legend_and_none_is_refused():
    _, axes = panel()
    plotting.draw_curves(axes, {"loss": [(1, 1.0)]}, xlabel="minute", ylabel="right, %")
    assert axes.get_legend() is None and axes.get_ylabel() == "right, %"
    with pytest.raises(ValueError, match="2 curves.*without points: empty"):
        plotting.draw_curves(axes, {"empty": [], "full": [(1, 1)]})
    with pytest.raises(ValueError, match="8 curves, expected 1 to 7"):
        plotting.draw_curves(axes, {str(i): [(0, i)] for i in range(8)})


def test_points_lie_around_their_words_and_all_words_are_read():
    figure, axes = panel(labels=False)
    points = {"cup": torch.tensor([[0.5, 0.5], [0.4, 0.6]]), "car": torch.tensor([[-0.5, -0.2]])}
    plotting.draw_plane(axes, points, {"cup": torch.tensor([0.9, 0.5]), "car": torch.tensor([-0.9, 0.0])}, limit=1)
    found = {line.get_gid(): line.get_xydata() for line in axes.lines}
    assert found["points cup"].ravel() == pytest.approx([0.5, 0.5, 0.4, 0.6])
    assert found["word car"].ravel() == pytest.approx([-0.9, 0.0]) and axes.get_xlim() == (-1, 1)
    figure.canvas.draw()
    words = {text.get_text(): text for text in axes.texts}
    assert set(words) == {"cup", "car"} and all(inside(figure, text) for text in words.values())


def test_a_plane_shows_all_unless_told_otherwise_and_wants_the_same_words():
    _, axes = panel(labels=False)
    plotting.draw_plane(axes, {"cup": torch.tensor([[3.0, -4.0]])}, {"cup": torch.tensor([1.0, 1.0])})
    assert axes.get_ylim() == pytest.approx((-4.4, 4.4))
    with pytest.raises(ValueError, match="points of cup; words car"):
        plotting.draw_plane(axes, {"cup": torch.zeros(1, 2)}, {"car": torch.zeros(2)})


def test_intervals_are_points_on_lines_in_rows_with_names():
    columns = {
        "colour": {"one": (0.5, 0.4, 0.7), "the other": (1.0, 0.9, 1.0)},
        "Q->A": {"one": (0, 0, 0.1), "the other": (0.3, 0.2, 0.4)},
    }
    figure = plotting.show_intervals(columns, chance={"Q->A": 0.25})
    left, right = figure.axes
    found = {line.get_gid(): line.get_xydata().tolist() for line in (*left.lines, *right.lines) if line.get_gid()}
    assert found["colour one"] == [[50, 0]] and found["Q->A the other"] == [[30, 1]]
    assert left.lines[0].get_xdata().tolist() == pytest.approx([40, 70])
    assert not [each for each in left.lines if each.get_linestyle() == "--"]
    assert [each.get_xdata() for each in right.lines if each.get_linestyle() == "--"] == [[25, 25]]
    figure.canvas.draw()
    names = left.get_yticklabels()
    assert [name.get_text() for name in names] == ["one", "the other"] and all(inside(figure, name) for name in names)
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first row is on top


def test_intervals_of_numbers_that_are_no_shares_have_their_label_and_limits():
    figure = plotting.show_intervals(
        {"edits": {"one": (-0.2, -0.4, 0.1)}}, chance={"edits": 0}, label="correlation", limits=(-1, 1)
    )
    (axes,) = figure.axes
    found = {line.get_gid(): line.get_xydata().tolist() for line in axes.lines if line.get_gid()}
    assert found == {"edits one": [[-0.2, 0]]} and axes.lines[0].get_xdata().tolist() == [-0.4, 0.1]
    assert [each.get_xdata() for each in axes.lines if each.get_linestyle() == "--"] == [[0, 0]]
    assert axes.get_xlim() == (-1, 1) and axes.get_xlabel() == "correlation"


def test_intervals_want_the_same_things_in_every_panel():
    with pytest.raises(ValueError, match="a: one; b: two"):
        plotting.show_intervals({"a": {"one": (0, 0, 1)}, "b": {"two": (0, 0, 1)}})
    with pytest.raises(ValueError, match="got none"):
        plotting.show_intervals({})
