"""What a method says about an answer, in one picture: a map over the image, a bar per part of the sequence, the words in colour."""

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from .bars import draw_titles
from .features import SIGNED, UNSIGNED, show_map, show_scale
from .regions import draw_regions
from .style import (
    FAINT,
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

SIDE, BARS, SCALE = 300, 260, 90  # the picture's side, the width of the bars, room for the scale: pixels of the figure
OPACITY = 0.6  # of a map over its picture
LINE = 30  # height of a line of words
AXIS = 50  # room for the axis below the bars


def show_scores(scores, title: str | None = None, path=None):
    """The scores of one method (`roilab.interpret.Scores`): over the picture, per part of the sequence, and word by word.

    A colour scale from blue to red is centred on zero; where nothing is negative it runs from dark to light. Regions have their colours.

    Args:
        title: by default the method; question and answer stand below it, what does not fit is cut off.
        path: where to save the figure too.
    Returns:
        The figure.
    """
    about, words = scores.target, scores.positions is not None
    lines = _lines(scores, SIDE + SCALE + GAP + BARS) if words else []
    width, top = MARGIN + SIDE + SCALE + (GAP + BARS if words else 0) + MARGIN, 58
    height = top + SIDE + (AXIS + LINE * len(lines) if lines else 0) + MARGIN
    figure = new_figure(width, height)
    title = scores.method.replace("_", " ") if title is None else title
    draw_titles(figure, title, f"{about.question} {about.answer}")
    axes = figure.add_axes([MARGIN / width, 1 - (top + SIDE) / height, SIDE / width, SIDE / height], label="picture")
    image = draw_scores(axes, scores)
    show_scale(axes, image, "score of a patch" if scores.pixels is None else "score of a pixel")
    if words:
        left = MARGIN + SIDE + SCALE + GAP
        _bars(
            figure.add_axes(
                [(left + 70) / width, 1 - (top + SIDE) / height, (BARS - 70) / width, SIDE / height], label="parts"
            ),
            scores,
        )
        _words(figure, scores, lines, (width, height), top + SIDE + AXIS)
    if path is not None:
        figure.savefig(path)
    return figure


def draw_scores(axes, scores):
    """The map of one method (`roilab.interpret.Scores`) over its picture, with its regions.

    Returns:
        The matplotlib image of the map, for `show_scale`.
    """
    about = scores.target
    draw_regions(about.image, [], axes)
    image = show_map(axes, scores.map, box=(0, 0, *about.image.size), signed=bool((scores.map < 0).any()))
    image.set_alpha(OPACITY)
    shapes = [None] * max(about.regions, default=0)
    for number, shape in zip(about.regions, about.shapes, strict=True):
        shapes[number - 1] = shape
    draw_regions(None, shapes, axes)
    return image


def score_colours(values) -> list[str]:
    """ "#rrggbb" of each score: from blue over white to red around zero, or from dark to light where none is negative."""
    return [to_hex(each) for each in _colours(np.asarray(values, dtype=float))]


def map_over_picture(scores, opacity: float = OPACITY) -> Image.Image:
    """The map of one method over its picture, as large as the picture: what `draw_scores` shows without axes and boxes."""
    picture, values = scores.target.image.convert("RGB"), scores.map.numpy()
    colours = Image.fromarray((255 * _colours(values)[..., :3]).round().astype(np.uint8))
    return Image.blend(picture, colours.resize(picture.size, Image.Resampling.NEAREST), opacity)


def _colours(values: np.ndarray) -> np.ndarray:
    """RGBA in [0, 1] of scores of any shape; the scale ends at the largest absolute one."""
    limit, signed = float(np.abs(values).max(initial=0)) or 1.0, bool((values < 0).any())
    return colormaps[SIGNED](values / limit / 2 + 0.5) if signed else colormaps[UNSIGNED](values / limit)


def _bars(axes, scores):
    """One bar per part of the sequence, with its number."""
    parts = scores.parts
    colours = [region_colour(int(name[6:])) if name.startswith("region") else FAINT for name in parts]
    axes.barh(range(len(parts)), list(parts.values()), color=colours, height=0.6)
    axes.axvline(0, color=INK, linewidth=to_points(1))
    axes.set_yticks(range(len(parts)), list(parts), fontproperties=font_of(SMALL))
    axes.invert_yaxis()
    low, high = min(0, *parts.values()), max(0, *parts.values())
    room = (high - low or 1) * 0.4
    axes.set_xlim(low - room / 6, high + room)
    for row, value in enumerate(parts.values()):
        axes.annotate(
            f"{value:.3g}", (max(value, 0), row), xytext=(4, 0), textcoords="offset points", va="center", ha="left",
            fontproperties=font_of(12.5), color=INK,
        )  # fmt: skip
    axes.set_xlabel("sum of the scores of a part", fontproperties=font_of(SMALL), color=INK)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=to_points(12), colors=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _lines(scores, room: float) -> list[list[tuple[str, int, float]]]:
    """The words after the image in lines: (text, position in the sequence, width)."""
    target, lines, left = scores.target, [[]], 0.0
    for position in target.positions("question", "regions", "answer").tolist():
        text = (
            target.tokens[position]
            if not target.parts[position].startswith("region")
            else f"<{target.parts[position]}>"
        )
        width = text_width(measuring_renderer(), text.strip() or " ", font_of(SMALL)) + 10
        if left + width > room and lines[-1]:
            lines.append([])
            left = 0.0
        lines[-1].append((text.strip() or " ", position, width))
        left += width + 3
    return lines


def _words(figure, scores, lines, size, top: float):
    """Every word on its colour; the chosen ones of the answer are framed."""
    values = [scores.positions[position].item() for line in lines for _, position, _ in line]
    colours = iter(_colours(np.array(values)))
    axes = figure.add_axes([0, 0, 1, 1], label="words", facecolor="none")
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    axes.axis("off")
    for row, line in enumerate(lines):
        x, y = MARGIN, top + row * LINE
        for text, position, width in line:
            colour = next(colours)
            chosen = position in scores.target.chosen
            axes.add_patch(
                Rectangle(
                    (x, y),
                    width,
                    LINE - 6,
                    facecolor=colour,
                    edgecolor=INK if chosen else "none",
                    linewidth=to_points(2),
                )
            )
            axes.text(
                x + width / 2, y + (LINE - 6) / 2, text, ha="center", va="center", color=text_colour(colour[:3]),
                fontproperties=font_of(SMALL), parse_math=False,
            )  # fmt: skip
            x += width + 3
