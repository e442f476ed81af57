"""What interventions found, as pictures: patches by layer and part, region tests, a region token's anatomy, boxes moved, curves of covering."""

import torch

from .bars import ROW, draw_bars, draw_titles, two_digits
from .curves import draw_curves
from .features import panels, show_map, show_scale
from .regions import draw_regions
from .scores import draw_scores
from .style import (
    GAP,
    INK,
    MARGIN,
    SMALL,
    font_of,
    measuring_renderer,
    new_figure,
    region_colour,
    text_colour,
    text_width,
    to_points,
)

LOSS = "loss of log-probability (dashed: half as likely)"


def show_table(
    values,
    rows,
    columns,
    title: str,
    label: str,
    limit: float | None = None,
    signed: bool = False,
    cell: float = 64,
    words=None,
):
    """A table of numbers on colours, with a scale.

    Args:
        values: [rows, columns]. rows, columns: their names.
        title: above it. label: of the scale.
        limit: the value at the end of the scale; by default the largest absolute value.
        signed: a scale around zero.
        cell: width of a cell at least, in pixels at 100 dots per inch.
        words: [rows][columns] texts in the place of the numbers.
    Returns:
        The figure.
    """
    values, font = torch.as_tensor(values).float(), font_of(SMALL)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"values of {list(values.shape)} for {len(rows)} rows and {len(columns)} columns")
    measure = measuring_renderer()
    left = max(text_width(measure, name, font) for name in rows) + MARGIN + 10
    cell = max(cell, *(text_width(measure, name, font) + 12 for name in columns))
    width = max(left + cell * len(columns) + 110, text_width(measure, title, font) + 2 * MARGIN)
    high = 74 + ROW * len(rows) + MARGIN
    figure = new_figure(width, high)
    figure.text(
        MARGIN / width, 1 - 22 / high, title, fontproperties=font_of(SMALL, weight="bold"), color=INK, parse_math=False
    )
    axes = figure.add_axes(
        [left / width, MARGIN / high, cell * len(columns) / width, ROW * len(rows) / high], label="table"
    )
    image = show_map(axes, values, limit=limit, signed=signed)
    axes.set_aspect("auto")
    for row, line in enumerate(values.tolist()):
        for column, value in enumerate(line):
            colour = text_colour(image.cmap(image.norm(value))[:3])
            text = two_digits(value) if words is None else words[row][column]
            axes.text(
                column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontproperties=font_of(12.5), parse_math=False
            )  # fmt: skip
    axes.set_xticks([i + 0.5 for i in range(len(columns))], columns, fontproperties=font, color=INK)
    axes.set_yticks([i + 0.5 for i in range(len(rows))], rows, fontproperties=font, color=INK)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    bar = figure.colorbar(
        image, cax=axes.inset_axes([1 + 14 / (cell * len(columns)), 0, 14 / (cell * len(columns)), 1])
    )
    bar.ax.tick_params(labelsize=to_points(12), colors=INK)
    bar.outline.set_visible(False)
    bar.set_label(label, fontproperties=font, color=INK)
    return figure


def show_patching(found, lost: bool = False):
    """`roilab.interpret.Patching` as a table: a row per depth of the residual stream, a column per group of positions.

    Args:
        lost: the other direction, clean passes with corrupt states.
    """
    values = found.lost if lost else found.recovered
    depths = ["embedding", *(f"layer {i}" for i in range(1, len(values)))]
    title = "lost when a corrupt state is put in" if lost else "recovered when a clean state is put in"
    return show_table(values, depths, found.groups, title, "share", limit=1, signed=True)


def show_region_tests(tests):
    """`roilab.interpret.RegionTests` as bars: what the answer loses in each of the four tests, and the verdict."""
    width, left, high = 560, 150, 92 + ROW * len(_drops(tests)) + 50
    figure = new_figure(width, high)
    draw_titles(figure, f"region{tests.region}: {tests.verdict}", f"{tests.target.question} {tests.target.answer}")
    place = [left / width, 50 / high, (width - left - MARGIN) / width, ROW * len(_drops(tests)) / high]
    draw_region_tests(figure.add_axes(place, label="tests"), tests)
    return figure


def draw_region_tests(axes, tests):
    """A bar for each of the four region tests: by how much it lowers the answer's log-probability."""
    from ..interpret.regions import MATTERS

    draw_bars(axes, _drops(tests), LOSS, region_colour(tests.region), MATTERS)


def _drops(tests) -> dict[str, float]:
    foreign = sum(tests.foreign) / len(tests.foreign)
    drops = {
        "(a) mean token": tests.score - tests.mean,
        "(a) mean content": tests.score - tests.mean_content,
        "(a) mean position": tests.score - tests.mean_position,
        "(b) exchanged": tests.score - tests.exchanged,
        "(c) pixels removed": tests.picture_drop,
        "(d) from elsewhere": tests.score - foreign,
    }
    return {name: drop for name, drop in drops.items() if drop == drop}


def show_inside(scores, tests, path=None):
    """One answer seen by several methods, side by side: their maps over the picture, and the four region tests.

    Under each map stands how much of the method's scores, in absolute value, is on the region tokens, where it scores tokens.

    Args:
        scores: `roilab.interpret.Scores` of one target. tests: its `RegionTests`.
        path: where to save the figure too.
    """
    scores, side, bars, left = list(scores), 250, 320, 150
    width, high = MARGIN + len(scores) * (side + MARGIN) + left + bars + MARGIN, 62 + 26 + side + 50
    figure = new_figure(width, high)
    draw_titles(figure, f"{tests.target.question} {tests.target.answer}", f"region{tests.region}: {tests.verdict}")
    for i, each in enumerate(scores):
        place = [(MARGIN + i * (side + MARGIN)) / width, 50 / high, side / width, side / high]
        axes = figure.add_axes(place, label=each.method)
        draw_scores(axes, each)
        axes.set_title(each.method.replace("_", " "), fontproperties=font_of(SMALL), color=INK, pad=to_points(6))
        note = "of pixels"
        if each.positions is not None:
            total = each.positions.abs().sum().item() or 1.0
            share = each.positions[each.target.positions("regions")].abs().sum().item() / total
            note = f"{share:.0%} on region tokens"
        axes.text(
            0.5, -0.06, note, transform=axes.transAxes, ha="center", va="top", fontproperties=font_of(SMALL), color=INK
        )
    at = MARGIN + len(scores) * (side + MARGIN) + left
    draw_region_tests(figure.add_axes([at / width, 50 / high, bars / width, side / high], label="tests"), tests)
    if path is not None:
        figure.savefig(path)
    return figure


def show_anatomy(parts, image, directions):
    """`roilab.interpret.Anatomy` on its picture: for each direction, what every cell of the box brings to the token, and bias and position.

    Args:
        image: the picture.
        directions: name -> [D].
    """
    found = {name: parts.read(direction) for name, direction in directions.items()}
    titles = [f"{name}: position {position:+.2f}, bias {bias:+.2f}" for name, (bias, position, _) in found.items()]
    figure, drawn = panels(titles, side=280, right=80)
    limit = max(heat.abs().max().item() for _, _, heat in found.values()) or 1.0
    for axes, (_, _, heat) in zip(drawn, found.values(), strict=True):
        draw_regions(image, [], axes)
        drawn_map = show_map(axes, heat, box=parts.box, limit=limit, signed=True)
        drawn_map.set_alpha(0.75)
        draw_regions(None, [None] * (parts.region - 1) + [parts.box], axes)
    show_scale(drawn[-1], drawn_map, "what a cell brings")
    return figure


def show_sensitivity(found):
    """`roilab.interpret.Sensitivity`: the target's score with the box's middle at each place of the picture, and with the box scaled."""
    width, high, side = 2 * MARGIN + 300 + 90 + GAP + 300, 48 + 300 + 60, 300
    figure = new_figure(width, high)
    text = f"region{found.region}: {found.target.question} {found.target.answer}"
    figure.text(
        MARGIN / width, 1 - 24 / high, text, fontproperties=font_of(SMALL, weight="bold"), color=INK, parse_math=False
    )
    axes = figure.add_axes([MARGIN / width, 1 - (48 + side) / high, side / width, side / high], label="shifted")
    draw_regions(found.target.image, [], axes)
    step_x, step_y = ((at[-1] - at[0]) / max(len(at) - 1, 1) / 2 or 1 for at in (found.x, found.y))
    box = (found.x[0] - step_x, found.y[0] - step_y, found.x[-1] + step_x, found.y[-1] + step_y)
    image = show_map(axes, found.shifted.exp(), box=box, limit=1)
    image.set_alpha(0.65)
    size = found.target.image.size
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    draw_regions(None, [None] * (found.region - 1) + [found.target.shapes[found.target.index(found.region)]], axes)
    show_scale(axes, image, "probability, box's middle here")
    left = MARGIN + side + 90 + GAP
    curve = figure.add_axes(
        [(left + 40) / width, 1 - (48 + side) / high, (260 - MARGIN) / width, side / high], label="scaled"
    )
    points = [
        (factor, torch.tensor(score).exp().item()) for factor, score in zip(found.factors, found.scaled, strict=True)
    ]
    draw_curves(curve, {"scaled": points}, "size of the box, as a factor", "probability")
    curve.set_ylim(-0.03, 1.03)
    return figure


def show_prospect(found):
    """`roilab.interpret.Prospect`: the regions on their picture, what the model says, and what the next word would be."""
    side, bars, left = 300, 260, 120
    width, high = MARGIN + side + left + bars + MARGIN, 58 + side + 60
    figure = new_figure(width, high)
    draw_titles(figure, found.target.question, found.answer)
    axes = figure.add_axes([MARGIN / width, 60 / high, side / width, side / high], label="picture")
    draw_regions(found.target.image, found.shapes, axes)
    chart = figure.add_axes([(MARGIN + side + left) / width, 60 / high, bars / width, side / high], label="words")
    draw_bars(chart, dict(zip(found.words, found.probabilities, strict=False)))
    chart.set(xlim=(0, 1.2), xticks=(0, 0.5, 1))
    before = f"after “{found.before.strip()}”" if found.before.strip() else "of the answer"
    figure.text(
        (MARGIN + side + GAP) / width, 14 / high, f"probability of the next word {before}", fontproperties=font_of(SMALL), color=INK,
        parse_math=False,
    )  # fmt: skip
    return figure


def show_covering(curves, title: str = ""):
    """`roilab.interpret.Curves`: deletion and insertion, each beside the random and the centre order."""
    figure, drawn = panels([f"{title} deletion".strip(), f"{title} insertion".strip()], side=240, labels=True)
    for axes, orders, name in zip(drawn, (curves.deletion, curves.insertion), ("covered", "uncovered"), strict=True):
        draw_curves(
            axes,
            {order: list(zip(curves.shares, orders[order], strict=True)) for order in orders},
            f"share {name}",
            "probability",
        )
        axes.set(ylim=(-0.03, 1.03), yticks=(0, 0.5, 1), yticklabels=("0", "0.5", "1"))
    return figure
