"""Bars with their numbers, and the lines above a figure."""

from __future__ import annotations

from collections.abc import Mapping

from .style import (
    DPI,
    FAINT,
    INK,
    MARGIN,
    PAPER,
    SMALL,
    font_of,
    measuring_renderer,
    new_figure,
    text_width,
    to_points,
)

ROW = 30


def draw_titles(figure, *lines: str):
    """Lines above a figure, the first in bold; what does not fit is cut off, and control characters become "␣"."""
    width, height = (side * DPI for side in figure.get_size_inches())
    for i, text in enumerate(lines):
        font = font_of(SMALL, weight="normal" if i else "bold")
        text = "".join(each if each.isprintable() else "␣" for each in text)
        while len(text) > 1 and text_width(measuring_renderer(), text, font) > width - 2 * MARGIN:
            text = text.rstrip("…")[:-1].rstrip() + "…"
        y = 1 - (22 + 21 * i) / height
        figure.text(MARGIN / width, y, text, fontproperties=font, color=INK, parse_math=False)


def draw_bars(axes, values: Mapping[str, float], label: str = "", colour: str = FAINT, dashed: float | None = None):
    """A bar with its number for each value.

    Args:
        label: of the numbers. colour: of the bars.
        dashed: a value that is marked by a dashed line.
    """
    numbers = [float(each) for each in values.values()]
    axes.barh(range(len(numbers)), numbers, color=colour, height=0.6)
    axes.axvline(0, color=INK, linewidth=to_points(1))
    if dashed is not None:
        axes.axvline(dashed, color=FAINT, linestyle="--", linewidth=to_points(1.5))
    axes.set_yticks(range(len(numbers)), list(values), fontproperties=font_of(SMALL), color=INK, parse_math=False)
    low, top = min(0.0, *numbers), max(dashed or 0.0, *numbers)
    span = (top - low) or 1.0
    axes.set(ylim=(len(numbers) - 0.5, -0.5), xlim=(low - 0.02 * span, top + 0.2 * span))
    for row, value in enumerate(numbers):
        axes.annotate(
            two_digits(value), (max(value, 0), row), xytext=(4, 0), textcoords="offset points", va="center", fontproperties=font_of(12.5),
            color=INK, bbox=dict(boxstyle="square,pad=0.05", facecolor=PAPER, edgecolor="none"),
        )  # fmt: skip
    axes.set_xlabel(label, fontproperties=font_of(SMALL), color=INK)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=to_points(12), colors=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)


def show_bars(
    values: Mapping[str, float], title: str, about: str, label: str, colour: str = FAINT, dashed: float | None = None
):
    """`draw_bars` as a figure; values that are not numbers are left out.

    Args:
        title, about: the two lines above.
    """
    values = {name: value for name, value in values.items() if value == value}
    room = max(text_width(measuring_renderer(), name, font_of(SMALL)) for name in values) + MARGIN + 10
    width, height = room + 400 + MARGIN, 58 + ROW * len(values) + 56
    figure = new_figure(width, height)
    draw_titles(figure, title, about)
    place = [room / width, 56 / height, 400 / width, ROW * len(values) / height]
    draw_bars(figure.add_axes(place, label="bars"), values, label, colour, dashed)
    return figure


def two_digits(value: float) -> str:
    """A number without "-0.00"."""
    return f"{round(value, 2) + 0.0:.2f}"
