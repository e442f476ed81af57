"""A contact sheet of scenes."""

import math

from ..pictures import read_picture
from .regions import show_picture
from .style import DPI, INK, MARGIN, SAVED_DPI, SMALL, font_of, measuring_renderer, new_figure, text_width


def scene_sheet(scenes, columns=None, captions=None, path=None):
    """A contact sheet of scenes (or any pictures with `.image`), in rows of `columns`.

    Args:
        scenes: `roilab.scenes.Scene`s.
        columns: pictures per row; by default at most four, in as square a sheet as fits.
        captions: one line per scene; by default its seed and setting.
        path: where to save the figure too.
    """
    scenes = list(scenes)
    if not scenes:
        raise ValueError("0 scenes, expected at least 1")
    if captions is not None and len(captions) != len(scenes):
        raise ValueError(f"{len(captions)} captions, {len(scenes)} scenes")
    captions = captions or [f"seed {scene.seed}, {scene.setting}" for scene in scenes]
    columns = columns or min(4, math.ceil(math.sqrt(len(scenes))))
    side, caption = 210, 26
    rows = math.ceil(len(scenes) / columns)
    width, height = MARGIN + columns * (side + MARGIN), MARGIN + rows * (side + caption + 6)
    figure = new_figure(width, height)
    renderer = measuring_renderer()
    for i, scene in enumerate(scenes):
        x = MARGIN + (i % columns) * (side + MARGIN)
        y = MARGIN + (i // columns) * (side + caption + 6)
        axes = figure.add_axes([x / width, 1 - (y + side) / height, side / width, side / height], label=f"scene {i}")
        show_picture(
            axes, read_picture(scene.scaled(side * SAVED_DPI // DPI).image if hasattr(scene, "scaled") else scene.image)
        )
        text = captions[i]
        while len(text) > 1 and text_width(renderer, text, font_of(SMALL)) > side:
            text = text.rstrip("…")[:-1].rstrip() + "…"
        figure.text(
            (x + side / 2) / width, 1 - (y + side + caption - 8) / height, text, ha="center", va="baseline", color=INK,
            fontproperties=font_of(SMALL), parse_math=False,
        )  # fmt: skip
    if path is not None:
        figure.savefig(path, dpi=SAVED_DPI)
    return figure
