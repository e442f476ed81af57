"""The picture of a method's scores says what the scores say."""

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from roilab import Chat
from roilab.interpret.results import Scores
from roilab.interpret.target import Target
from roilab.plotting import region_colour, show_scores

BOXES = [(2, 2, 30, 30), (20, 8, 60, 40)]


@pytest.fixture
def scores(model, picture):
    explained = Target.of(
        Chat(model, picture), "Is <region1> left of <region2>?", BOXES, answer="<b>yes</b> $it$ is", about="yes"
    )
    positions = torch.linspace(-1, 2, len(explained.ids))
    return Scores("integrated_gradients", explained, positions, model.vision.grid)


def panel(figure, label):
    return next(axes for axes in figure.axes if axes.get_label() == label)


def test_the_map_the_bars_and_the_words_are_the_scores(scores):
    figure = show_scores(scores)
    picture, parts, words = (panel(figure, name) for name in ("picture", "parts", "words"))
    heat = picture.images[-1]
    np.testing.assert_allclose(heat.get_array(), scores.image.numpy(), rtol=1e-5)
    assert heat.get_extent() == [0, 64, 48, 0] and heat.norm.vmin == -heat.norm.vmax
    bars = {label.get_text(): bar for label, bar in zip(parts.get_yticklabels(), parts.patches, strict=False)}
    assert {name: pytest.approx(bar.get_width(), rel=1e-5) for name, bar in bars.items()} == scores.parts
    assert [bars[f"region{n}"].get_facecolor() for n in (1, 2)] == [
        pytest.approx(_rgba(region_colour(n))) for n in (1, 2)
    ]
    texts = [text.get_text() for text in words.texts]
    target = scores.target
    assert len(texts) == len(target.positions("question", "regions", "answer"))
    assert {"<region1>", "<region2>"} <= set(texts)
    framed = [patch for patch in words.patches if isinstance(patch, Rectangle) and patch.get_edgecolor()[3] > 0]
    assert len(framed) == len(target.chosen)
    assert {text.get_gid() for text in picture.texts} >= {"tag 1", "tag 2"}


def _rgba(colour):
    from matplotlib.colors import to_rgba

    return to_rgba(colour)


def test_scores_without_negative_ones_run_from_dark_to_light(scores):
    scores.positions = scores.positions.abs()
    assert panel(show_scores(scores), "picture").images[-1].norm.vmin == 0


def test_pixels_alone_have_no_words(scores):
    scores.pixels, scores.positions = torch.randn(32, 32), None
    figure = show_scores(scores, title="by hand " * 20)
    assert [axes.get_label() for axes in figure.axes if axes.get_label() in ("parts", "words")] == []
    assert panel(figure, "picture").images[-1].get_array().shape == (32, 32)
    assert figure.texts[0].get_text().endswith("…")


def test_text_stays_text_and_nothing_hangs_over_the_edge(scores, tmp_path):
    figure = show_scores(scores, path=tmp_path / "scores.png")
    assert (tmp_path / "scores.png").stat().st_size > 10_000
    figure.canvas.draw()
    edge = figure.bbox
    for text in [
        *panel(figure, "words").texts,
        *figure.texts,
        *panel(figure, "parts").texts,
        *panel(figure, "parts").get_yticklabels(),
    ]:
        box = text.get_window_extent()
        assert edge.x0 - 1 <= box.x0 and box.x1 <= edge.x1 + 1 and edge.y0 - 1 <= box.y0 and box.y1 <= edge.y1 + 1, (
            text.get_text()
        )
    assert any("$it$" in text.get_text() for text in figure.texts)
