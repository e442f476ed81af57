"""Numbers over steps as lines, shares with their intervals as points, and vectors as points of a plane."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .style import (
    FAINT,
    INK,
    MARGIN,
    PALETTE,
    PAPER,
    SMALL,
    font_of,
    measuring_renderer,
    new_figure,
    text_width,
    to_points,
)

_MARKERS = "osD^vPX"  # one per colour of the palette: nothing rests on colour alone


def draw_curves(axes, curves: Mapping[str, Sequence[tuple[float, float]]], xlabel: str = "step", ylabel: str = "loss"):
    """Lines with a legend, each in its colour; short ones with markers.

    Args:
        axes: a panel of `panels(..., labels=True)`.
        curves: name -> points (x, y), in the order of x.
    Raises:
        ValueError: no curve, one without points, or more than can be told apart.
    """
    empty = [name for name, points in curves.items() if not len(points)]
    if empty or not 1 <= len(curves) <= len(PALETTE):
        raise ValueError(
            f"{len(curves)} curves, expected 1 to {len(PALETTE)}; without points: {', '.join(empty) or 'none'}"
        )
    for (name, points), colour, marker in zip(curves.items(), PALETTE, _MARKERS):
        axes.plot(
            *zip(*points), label=name, color=colour, marker=marker if len(points) <= 25 else None, linewidth=to_points(2),
            markersize=to_points(6),
        )  # fmt: skip
    _ruled(axes, xlabel, ylabel)
    if len(curves) > 1:
        axes.legend(prop=font_of(SMALL), frameon=False, labelcolor=INK)


def draw_plane(axes, points: Mapping[str, Tensor], words: Mapping[str, Tensor], limit: float | None = None):
    """Groups of points of a plane, each with the place of its word: a ring with the word beside it.

    Args:
        axes: a panel of `panels`.
        points: word -> [N, 2].
        words: word -> [2], of the same words.
        limit: both axes run from -limit to limit; by default all is inside.
    Raises:
        ValueError: other words, or more than can be told apart.
    """
    if list(points) != list(words) or not 1 <= len(points) <= len(PALETTE):
        raise ValueError(
            f"points of {', '.join(points)}; words {', '.join(words)}; expected the same 1 to {len(PALETTE)}"
        )
    everything = torch.cat([*points.values(), torch.stack(list(words.values()))]).float()
    limit = float(everything.abs().max()) * 1.1 if limit is None else float(limit)
    under = [withStroke(linewidth=to_points(4), foreground=PAPER)]
    for (word, group), colour, marker in zip(points.items(), PALETTE, _MARKERS):
        x, y = group.float().T.tolist()
        axes.plot(
            x, y, marker, color=colour, markersize=to_points(5), alpha=0.6, markeredgewidth=0, gid=f"points {word}"
        )
        x, y = words[word].float().tolist()
        axes.plot(
            x, y, marker, markerfacecolor=PAPER, markeredgecolor=colour, markeredgewidth=to_points(3), markersize=to_points(13),
            zorder=4, gid=f"word {word}",
        )  # fmt: skip
        right = x < limit / 2  # there is room for the word on that side
        axes.annotate(
            word, (x, y), xytext=(to_points(11 if right else -11), 0), textcoords="offset points", ha="left" if right else "right",
            va="center", color=INK, fontproperties=font_of(SMALL), path_effects=under, zorder=5,
        )  # fmt: skip
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit))


def show_intervals(
    columns: Mapping[str, Mapping[str, tuple[float, float, float]]],
    width: float = 200,
    chance=None,
    label: str = "right, %",
    limits: tuple[float, float] | None = None,
):
    """Numbers of several things by several measures: a panel per measure, a row per thing, a point with a line for its interval.

    Args:
        columns: measure -> thing -> (number, lower end, upper end); every measure has the same things.
        width: of a panel, in pixels at 100 dots per inch.
        chance: measure -> number that guessing would reach, drawn as a dashed line.
        label: of the numbers.
        limits: where the axes begin and end; by default the numbers are shares, 0-1, and drawn in per cent.
    Returns:
        The figure; axes in the order of `columns`.
    Raises:
        ValueError: no measure, no thing, or measures of different things.
    """
    names = list(next(iter(columns.values()), ()))
    if not names or any(list(column) != names for column in columns.values()):
        told = "; ".join(f"{measure}: {', '.join(column) or 'none'}" for measure, column in columns.items())
        raise ValueError(f"expected one or more measures of the same one or more things, got {told or 'none'}")
    font, renderer = font_of(SMALL), measuring_renderer()
    left = max(text_width(renderer, name, font) for name in names) + 2 * MARGIN
    row, head, foot = 24, 40, 58
    wide, high = left + len(columns) * (width + MARGIN), head + row * len(names) + foot
    unit, limits = (1, limits) if limits else (100, (-3, 103))
    figure = new_figure(wide, high)
    for i, (measure, column) in enumerate(columns.items()):
        x = left + i * (width + MARGIN)
        axes = figure.add_axes([x / wide, foot / high, width / wide, row * len(names) / high], label=measure)
        for y, (share, low, top) in enumerate(column.values()):
            axes.plot([unit * low, unit * top], [y, y], color=PALETTE[0], linewidth=to_points(2))
            axes.plot([unit * share], [y], "o", color=PALETTE[0], markersize=to_points(7), gid=f"{measure} {names[y]}")
        if chance and measure in chance:
            axes.axvline(unit * chance[measure], color=FAINT, linestyle="--", linewidth=to_points(1.5))
        axes.set_title(measure, fontproperties=font, color=INK, pad=to_points(8))
        axes.set(xlim=limits, ylim=(len(names) - 0.5, -0.5))
        _ruled(axes, label, "")
        axes.set_yticks(range(len(names)), names if i == 0 else [""] * len(names), fontproperties=font, color=INK)
    return figure


def _ruled(axes, xlabel: str, ylabel: str):
    for axis, label in ((axes.xaxis, xlabel), (axes.yaxis, ylabel)):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_label_text(label, fontproperties=font_of(SMALL), color=INK)
    axes.tick_params(labelsize=to_points(12), colors=INK)
    axes.grid(color=FAINT, alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
