"""The ratios of a benchmark as a figure."""

from __future__ import annotations

from ..plotting.style import FAINT, INK, PALETTE, font_of, measuring_renderer, new_figure, text_width

ROW, SIDE = 30, 320  # pixels


def show_ratios(results: dict[str, float], path=None):
    """Every ratio as a bar from 1 on a logarithmic axis: how much faster, or how much less memory.

    Args:
        results: by name; those that are no ratios (`..._speedup`, `..._ratio`) are left out. A memory ratio shows as its inverse.
        path: also save the figure there.
    Returns:
        The figure.
    Raises:
        ValueError: no ratios among the results.
    """
    speed = {name: value for name, value in results.items() if "_speedup" in name}
    memory = {name: 1 / value for name, value in results.items() if "memory_ratio" in name and value > 0}
    bars = {name: value for name, value in (speed | memory).items() if value > 0}
    if not bars:
        raise ValueError(f"no ratio to draw among {', '.join(results) or 'no results'}")
    font = font_of(13)
    room = max(text_width(measuring_renderer(), name, font) for name in bars) + 30
    width, height = room + SIDE + 90, ROW * len(bars) + 70
    figure = new_figure(width, height)
    axes = figure.add_axes([room / width, 50 / height, SIDE / width, ROW * len(bars) / height], label="ratios")
    for row, (name, value) in enumerate(bars.items()):
        axes.barh(-row, value - 1, left=1, height=0.6, color=PALETTE[0] if name in speed else PALETTE[2])
        axes.text(1.02, -row, f"{value:.3g} x", transform=axes.get_yaxis_transform(), va="center", fontproperties=font)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks([-row for row in range(len(bars))], list(bars), fontproperties=font, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("times faster (blue), times less memory (green)", fontproperties=font, color=FAINT)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
