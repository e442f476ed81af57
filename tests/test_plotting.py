"""Figures are checked by their artists: what is labelled, in which colour, and that it lies where it can be read."""

import itertools

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from roilab.plotting import (
    COLUMN,
    DPI,
    PALETTE,
    contrast,
    draw_regions,
    region_colour,
    scene_sheet,
    show_dialogue,
    text_colour,
)
from roilab.plotting.regions import draw_grid
from roilab.regions import CELLS, cells_box, disc

TURNS = [
    {"role": "user", "content": "Is <region1> larger than <region2>?"},
    {"role": "assistant", "content": "Yes, region1 is larger than region2."},
]


def picture(width=224, height=224):
    return Image.new("RGB", (width, height), (120, 160, 200))


def by_gid(axes, start):
    return {a.get_gid(): a for a in axes.get_children() if (a.get_gid() or "").startswith(start)}


def words(axes):
    return [t for t in axes.texts if not (t.get_gid() or "").startswith("tag")]


def extent(artist):
    figure = artist.get_figure()
    return artist.get_window_extent(figure.canvas.get_renderer())


def tag_extents(axes):
    axes.figure.draw_without_rendering()
    renderer = axes.figure.canvas.get_renderer()
    return {gid: tag.get_bbox_patch().get_window_extent(renderer) for gid, tag in by_gid(axes, "tag").items()}


def inside(inner, outer, slack=1.5):
    return (
        inner.x0 >= outer.x0 - slack
        and inner.y0 >= outer.y0 - slack
        and inner.x1 <= outer.x1 + slack
        and inner.y1 <= outer.y1 + slack
    )


def test_palette_is_readable_and_distinct():
    assert len(set(PALETTE)) == 7
    for colour in PALETTE:
        assert contrast(colour, text_colour(colour)) >= 4.5
    assert contrast("black", "white") == pytest.approx(21)
    assert region_colour(1) == PALETTE[0] and region_colour(8) == PALETTE[0]


def test_boxes_are_numbered_and_in_place():
    axes = draw_regions(picture(), [(10, 20, 80, 120), None, (100, 100, 200, 200)], labels=["a ball", None, None])
    boxes, tags = by_gid(axes, "box"), by_gid(axes, "tag")
    assert set(boxes) == {"box 1", "box 3"} and set(tags) == {"tag 1", "tag 3"}
    assert boxes["box 1"].get_bbox().extents.tolist() == [10, 20, 80, 120]
    assert tags["tag 1"].get_text() == "1 a ball" and tags["tag 3"].get_text() == "3"
    for number in (1, 3):
        assert to_hex(boxes[f"box {number}"].get_edgecolor()).upper() == region_colour(number)
        assert to_hex(tags[f"tag {number}"].get_bbox_patch().get_facecolor()).upper() == region_colour(number)
    assert axes.get_xlim() == (0, 224) and axes.get_ylim() == (224, 0)


def test_outlines_are_numbered_and_in_place():
    outline = [(10, 100), (90, 40), (60, 180)]
    axes = draw_regions(
        picture(), [(10, 20, 80, 120), outline, disc(200, 30, (224, 224))], labels=[None, "a lasso", None]
    )
    boxes, tags = by_gid(axes, "box"), by_gid(axes, "tag")
    assert set(boxes) == {"box 1", "box 2", "box 3"} and tags["tag 2"].get_text() == "2 a lasso"
    assert boxes["box 2"].get_xy().tolist() == [list(point) for point in (*outline, outline[0])]
    assert len(boxes["box 3"].get_xy()) == len(disc(200, 30, (224, 224))) + 1
    for number in (2, 3):
        patch = boxes[f"box {number}"]
        assert to_hex(patch.get_edgecolor()).upper() == region_colour(number) and not patch.get_fill()
        assert patch.get_linewidth() == boxes["box 1"].get_linewidth()
    top = axes.transData.transform([outline[1]])[0]
    tag = tag_extents(axes)["tag 2"]
    assert tag.x0 - 3 <= top[0] <= tag.x1 and abs(tag.y0 - top[1]) < 6, "the tag stands on the highest point"
    assert axes.get_xlim() == (0, 224) and axes.get_ylim() == (224, 0)


def test_a_dialogue_about_an_outline():
    figure = show_dialogue(picture(), [None, [(10, 100), (90, 40), (60, 180)]], TURNS)
    assert set(by_gid(figure.axes[0], "box")) == {"box 2"}


def test_draws_on_given_axes_without_a_picture():
    figure = Figure(figsize=(4, 4), dpi=72)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 100), ylim=(100, 0))
    assert draw_regions(None, [(0, 0, 50, 50)], axes) is axes
    assert inside(tag_extents(axes)["tag 1"], axes.get_window_extent())


@pytest.mark.parametrize("size", [(224, 224), (1600, 300), (300, 1600), (30, 20), (4000, 3000)])
def test_tags_stay_on_the_picture_and_apart(size):
    width, height = size
    relative = [
        (0, 0, 1, 1),
        (0, 0, 0.2, 0.2),
        (0.8, 0, 1, 0.2),
        (0.8, 0.8, 1, 1),
        (0, 0.8, 0.2, 1),
        (0.4, 0.4, 0.6, 0.6),
    ]
    boxes = [(a * width, b * height, c * width, d * height) for a, b, c, d in relative]
    figure = show_dialogue(picture(*size), boxes, TURNS)
    axes = figure.axes[0]
    tags = tag_extents(axes)
    assert len(tags) == len(boxes)
    for tag in tags.values():
        assert inside(tag, axes.get_window_extent())
    if min(size) / max(size) > 0.5:
        for one, other in itertools.combinations(tags.values(), 2):
            overlap = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(overlap) < 2, "two tags lie on each other"


def test_mentions_have_the_colour_of_their_box():
    figure = show_dialogue(picture(), [(0, 0, 50, 50), (60, 60, 90, 90)], TURNS)
    column = figure.axes[1]
    fills = [p for p in column.patches if (p.get_gid() or "").startswith("mention")]
    assert [p.get_gid() for p in fills] == ["mention 1", "mention 2", "mention 1", "mention 2"]
    for patch in fills:
        assert to_hex(patch.get_facecolor()).upper() == region_colour(int(patch.get_gid()[-1]))
    assert [t.get_text() for t in words(column)][:6] == ["Is", "region1", "larger", "than", "region2", "?"]


@pytest.mark.parametrize(
    "content",
    [
        "One short line.",
        "many words " * 60,
        "x" * 500,
        "y" * 200 + "<region1>" + "z" * 200,
        "first\nsecond\n\nfourth $5 and $6, 100 % _ ^ \\ {",
        "",
    ],
)
def test_the_dialogue_lies_in_its_bubbles(content):
    turns = [{"role": role, "content": content} for role in ("user", "assistant", "note")]
    figure = show_dialogue(picture(), [(0, 0, 50, 50)], turns)
    figure.set_dpi(150)  # as it is saved
    figure.draw_without_rendering()
    column = figure.axes[1]
    bubbles = [extent(p) for p in column.patches if p.get_gid() in ("user", "assistant")]
    assert len(bubbles) == 2
    for text in words(column):
        box = extent(text)
        assert inside(box, figure.bbox) and inside(box, column.get_window_extent())
        assert text.get_color() != "#1B1F24" or any(inside(box, bubble) for bubble in bubbles)
    shown = "".join(t.get_text() for t in words(column))
    assert shown == "".join(content.replace("<region1>", "region1").split()) * 3


def test_long_dialogues_make_the_figure_taller_and_nothing_small():
    short, long = (show_dialogue(picture(), [(0, 0, 50, 50)], TURNS * n) for n in (1, 12))
    assert long.get_figheight() > 2 * short.get_figheight()
    for figure in (short, long):
        for text in figure.findobj(lambda a: hasattr(a, "get_fontsize")):
            assert not text.get_text() or text.get_fontsize() * DPI / 72 >= 12
    rows = [p.get_window_extent() for p in long.axes[1].patches if p.get_gid() in ("user", "assistant")]
    assert all(above.y0 > below.y1 for above, below in itertools.pairwise(rows))


def test_regions_zero_and_unknown_mentions():
    figure = show_dialogue(picture(), [], [{"role": "user", "content": "<region0> and <region12>, region-1"}])
    assert [t.get_text() for t in words(figure.axes[1])] == ["<region0>", "and", "region12", ",", "region-1"]


def test_without_a_dialogue_there_is_no_column():
    figure = show_dialogue(picture(), [(0, 0, 50, 50)], [])
    assert len(figure.axes) == 1 and figure.get_figwidth() * DPI < COLUMN + 100


def test_saved_and_shown(tmp_path):
    path = tmp_path / "dialogue.png"
    figure = show_dialogue(picture(), [(0, 0, 50, 50)], TURNS, path)
    with Image.open(path) as saved:
        slack = 1e-6 if matplotlib.__version_info__ >= (3, 11) else 0  # up to 3.10 it cuts 1442.9999 pixels to 1442
        assert saved.size == tuple(int(side * 150 + slack) for side in figure.get_size_inches())
    assert figure._repr_png_()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="xyz"):
        show_dialogue(picture(), [], TURNS, tmp_path / "dialogue.xyz")


def test_scene_sheet(tmp_path):
    from roilab.scenes import sample

    scenes = [sample(seed) for seed in range(5)]
    figure = scene_sheet(scenes, columns=2, path=tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert len(figure.axes) == 5
    assert [t.get_text() for t in figure.texts] == [f"seed {s.seed}, {s.setting}" for s in scenes]
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    everything = [a.get_window_extent() for a in figure.axes] + [t.get_window_extent(renderer) for t in figure.texts]
    for one, other in itertools.combinations(everything, 2):
        assert min(one.x1, other.x1) <= max(one.x0, other.x0) or min(one.y1, other.y1) <= max(one.y0, other.y0)
    assert all(inside(box, figure.bbox) for box in everything)
    long = scene_sheet(scenes[:1], captions=["a caption that is far too long for one line under one picture"])
    assert long.texts[0].get_text().endswith("…")
    with pytest.raises(ValueError, match="1 captions, 2 scenes"):
        scene_sheet(scenes[:2], captions=["a"])
    with pytest.raises(ValueError, match="0 scenes"):
        scene_sheet([])


def test_no_pyplot():
    import subprocess
    import sys

    code = "import sys, roilab.plotting; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_grid_has_its_names_and_lines_where_the_cells_are(picture):
    axes = draw_regions(picture, [cells_box("C2:D5", picture.size)])
    draw_grid(axes)
    names = [text.get_text() for text in axes.texts if text.get_gid() is None]
    assert sorted(names) == sorted([*"ABCDEFGH", *"12345678"])
    lines = [line for line in axes.lines if line.get_gid() == "grid"]
    assert len(lines) == 2 * (CELLS - 1)
    x = sorted({line.get_xdata()[0] for line in lines if line.get_xdata()[0] == line.get_xdata()[1]})
    assert x == [k * picture.width / CELLS for k in range(1, CELLS)]
    assert axes.get_xlim() == (0, picture.width) and axes.get_ylim() == (picture.height, 0)  # nothing has moved
