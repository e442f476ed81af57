"""Pictures of interventions show the numbers of their results, all of them inside the figure."""

import json

import numpy as np
import pytest
import torch

from roilab import Chat
from roilab.interpret.anatomy import Anatomy, region_anatomy
from roilab.interpret.faithfulness import Curves
from roilab.interpret.knockout import Knockout
from roilab.interpret.lens import logit_lens
from roilab.interpret.patching import AttributionPatching, Patching
from roilab.interpret.regions import RegionTests
from roilab.interpret.report import RegionReport
from roilab.interpret.results import Scores
from roilab.interpret.sanity import Sanity
from roilab.interpret.sensitivity import Sensitivity, box_sensitivity
from roilab.interpret.target import Target
from roilab.plotting import show_inside, show_table

BOXES = [(2, 2, 30, 30), (20, 8, 60, 40)]


@pytest.fixture(scope="module")
def explained(_session_model, picture):
    return Target.of(Chat(_session_model, picture), "Is <region1> left of <region2>?", BOXES, answer="yes $it$ is")


@pytest.fixture
def tests_of_region2(explained):
    return RegionTests(explained, 2, -0.5, -3.5, -2.5, -0.6, -9.5, -0.4, [-4.5, -6.5], 1)


def panel(figure, label):
    return next(axes for axes in figure.axes if axes.get_label() == label)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def drawn(axes):
    """The texts of axes that can be seen."""
    found = list(axes.texts)
    if axes.axison:
        found += [axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [*found, axes.title]


def inside(figure):
    """All words of a figure lie in it."""
    figure.canvas.draw()
    edge = figure.bbox
    for text in [*figure.texts, *(text for axes in figure.axes for text in drawn(axes))]:
        box = text.get_window_extent()
        if text.get_text() and text.get_visible():
            assert edge.x0 - 1 <= box.x0 and box.x1 <= edge.x1 + 1, text.get_text()
            assert edge.y0 - 1 <= box.y0 and box.y1 <= edge.y1 + 1, text.get_text()
    return figure


def test_patching(explained):
    recovered = torch.tensor([[0.0, 1.0], [0.25, 0.5], [1.0, -0.125]])
    found = Patching(explained, ["region1", "answer"], recovered, 1 - recovered, -0.1, -5.0)
    table = panel(inside(found.plot()), "table")
    assert texts(table) == ["0.00", "1.00", "0.25", "0.50", "1.00", "-0.12"]
    assert [each.get_text() for each in table.get_yticklabels()] == ["embedding", "layer 1", "layer 2"]
    assert [each.get_text() for each in table.get_xticklabels()] == ["region1", "answer"]
    np.testing.assert_allclose(panel(found.plot(lost=True), "table").images[0].get_array(), (1 - recovered).numpy())
    with pytest.raises(ValueError, match=r"values of \[3, 2\] for 1 rows and 2 columns"):
        show_table(recovered, ["one"], ["a", "b"], "", "")


def test_region_tests(tests_of_region2):
    figure = inside(tests_of_region2.plot())
    axes = panel(figure, "tests")
    drops = {label.get_text(): bar.get_width() for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)}
    assert drops == pytest.approx(
        {
            "(a) mean token": 3, "(a) mean content": 2, "(a) mean position": 0.1, "(b) exchanged": 9, "(c) pixels removed": -0.1,
            "(d) from elsewhere": 5,
        }
    )  # fmt: skip
    assert texts(axes) == ["3.00", "2.00", "0.10", "9.00", "-0.10", "5.00"]
    assert figure.texts[0].get_text() == "region2: uses the region token" and "$it$" in figure.texts[1].get_text()
    tests_of_region2.exchanged = float("nan")
    assert len(panel(tests_of_region2.plot(), "tests").patches) == 5


def test_anatomy(model, explained):
    parts = region_anatomy(model, explained, 2)
    directions = {
        name: torch.randn(len(parts.token), generator=torch.Generator().manual_seed(i))
        for i, name in enumerate(("red", "blue"))
    }
    figure = inside(parts.plot(explained.image, **directions))
    for axes, name in zip(figure.axes, directions, strict=False):
        bias, position, heat = parts.read(directions[name])
        assert axes.get_title() == f"{name}: position {position:+.2f}, bias {bias:+.2f}"
        np.testing.assert_allclose(axes.images[-1].get_array(), heat.numpy(), rtol=1e-5)
        x1, y1, x2, y2 = parts.box
        assert axes.images[-1].get_extent() == [x1, x2, y2, y1]
        assert {text.get_gid() for text in axes.texts} == {"tag 2"}


def test_sensitivity(model, explained):
    found = box_sensitivity(model, explained, 1, steps=3)
    figure = inside(found.plot())
    shifted, scaled = panel(figure, "shifted"), panel(figure, "scaled")
    np.testing.assert_allclose(shifted.images[-1].get_array(), found.shifted.exp().numpy(), rtol=1e-5)
    left, right, bottom, top = shifted.images[-1].get_extent()
    cell = (right - left) / 3  # the middles of the cells are those of the boxes
    assert [left + cell * (i + 0.5) for i in range(3)] == pytest.approx(found.x)
    assert [top + (bottom - top) / 3 * (i + 0.5) for i in range(3)] == pytest.approx(found.y)
    x, y = scaled.lines[0].get_data()
    assert list(x) == found.factors and list(y) == pytest.approx(torch.tensor(found.scaled).exp().tolist())


def test_curves_and_lens(model, explained):
    shares = [0.0, 0.5, 1.0]
    orders = {name: [1.0, 0.5 / i, 0.0] for i, name in enumerate(("method", "centre", "random"), start=1)}
    figure = inside(Curves(shares, orders, {name: curve[::-1] for name, curve in orders.items()}).plot("IG"))
    assert [axes.get_title() for axes in figure.axes] == ["IG deletion", "IG insertion"]
    assert {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines} == orders
    lens = logit_lens(model, explained, top=3)
    table = panel(inside(lens.plot(position=1)), "table")
    assert texts(table) == [token for state in lens.tokens for token in state[1]]
    np.testing.assert_allclose(table.images[0].get_array(), lens.probabilities[:, 1].numpy())


def test_every_result_is_kept_as_json(model, explained, tests_of_region2, tmp_path):
    grid = torch.zeros(2, 2)
    results = [
        Knockout(explained, "region1", "answer", [0], 3, -1.0, -4.0, [-1.5, -0.5]),
        Patching(explained, ["a", "b"], grid, grid, -1, -2),
        AttributionPatching(explained, grid, [(0, 1, 0.5, 0.6)], -1, -2),
        logit_lens(model, explained),
        Anatomy(1, [0, 0, 1, 1], grid[0], grid[0], grid[0], torch.zeros(2, 2, 2)),
        Sensitivity(explained, 1, -1, [1.0], [1.0], grid, [1.0], [-1.0]),
        tests_of_region2,
        RegionReport(1, 1.0, 1.0, 1.0, 1.0, 1.0, [(tests_of_region2, tests_of_region2)]),
        Curves([0, 1], {"method": [1, 0]}, {"method": [0, 1]}),
        Sanity(explained, "attention", {0.5: 0.9, 1.0: 0.1}, 0.2),
    ]
    for result in results:
        result.save(tmp_path / "result.json")
        record = json.loads((tmp_path / "result.json").read_text())
        assert set(result.also) <= set(record) and {each for each in result.__dataclass_fields__} <= set(record)
    assert json.loads(json.dumps(results[0].to_dict()))["drop"] == 3 and results[0].to_dict()["control_drop"] == 0
    assert results[7].to_dict()["tests"][0][1]["verdict"] == "uses the region token"
    assert "loses 3.00 (random edges: 0.00)" in str(results[0])


def test_methods_and_tests_side_by_side(model, explained, tests_of_region2, tmp_path):
    positions = torch.zeros(len(explained.ids))
    positions[explained.position(1)], positions[explained.positions("image")[3]] = -1, 3
    scores = [
        Scores("attention", explained, positions, model.vision.grid),
        Scores("integrated_gradients", explained, None, model.vision.grid, torch.randn(32, 32)),
    ]
    figure = inside(show_inside(scores, tests_of_region2, tmp_path / "inside.png"))
    assert [axes.get_title() for axes in figure.axes] == ["attention", "integrated gradients", ""]
    assert "25% on region tokens" in texts(panel(figure, "attention")) and "of pixels" in texts(
        panel(figure, "integrated_gradients")
    )
    np.testing.assert_allclose(panel(figure, "attention").images[-1].get_array(), scores[0].image.numpy())
    assert len(panel(figure, "tests").patches) == 6 and (tmp_path / "inside.png").exists()


def numbers(figure, label="bars"):
    return texts(panel(figure, label))


def test_every_other_result_has_bars_or_a_table_too(explained):
    figure = Knockout(explained, "region1", "answer", [0, 1], 12, -0.5, -3.0, [-0.5, -1.5]).plot()
    assert numbers(figure) == ["2.50", "0.50"] and inside(figure)
    assert len(numbers(Knockout(explained, "region1", "answer", [0], 12, -0.5, -0.5, []).plot())) == 1
    figure = Sanity(explained, "saliency", {0.5: 0.9, 1.0: 0.75}, -0.001, 0.25).plot()
    assert numbers(figure) == ["0.90", "0.75", "0.00", "0.25"] and inside(figure)
    assert "does NOT pass" in figure.texts[0].get_text()
    figure = RegionReport(8, 6.5, 5.0, 0.25, 3.0, 1.0).plot()
    assert numbers(figure) == ["6.50", "5.00", "0.25", "3.00"] and inside(figure)
    assert figure.texts[0].get_text() == "uses its region tokens" and "100%" in figure.texts[1].get_text()
    found = AttributionPatching(
        explained, torch.zeros(3, len(explained.ids)), [(0, 1, 0.5, 0.25), (2, 3, -0.5, 0.75)], -1, -4
    )
    figure = found.plot()
    assert texts(panel(figure, "table")) == ["0.50", "0.25", "-0.50", "0.75"] and inside(figure)


def test_the_lens_of_a_shuffled_picture_says_so(model, explained):
    found = logit_lens(model, explained)
    titles = [each.plot().texts[0].get_text() for each in (found, found.control)]
    assert titles == ["what region1 would say", "what region1 would say, picture shuffled"]
    assert [found.to_dict()["shuffled"], found.control.to_dict()["shuffled"]] == [False, True]
