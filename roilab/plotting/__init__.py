"""Figures: regions on a picture, a dialogue beside it, a contact sheet of scenes, feature maps, curves, intervals, scores.

Nothing here touches pyplot, so figures neither pile up nor appear twice in a notebook. Colours and sizes: `style`.
"""

from .bars import show_bars
from .curves import draw_curves, draw_plane, show_intervals
from .dialogue import show_dialogue
from .features import draw_samples, panels, principal_colours, show_map, show_scale
from .interventions import (
    show_anatomy,
    show_covering,
    show_inside,
    show_patching,
    show_prospect,
    show_region_tests,
    show_sensitivity,
    show_table,
)
from .regions import draw_regions
from .scores import show_scores
from .sheet import picture_sheet, scene_sheet
from .style import COLUMN, DPI, PALETTE, contrast, region_colour, text_colour

__all__ = [
    "COLUMN", "DPI", "PALETTE", "contrast", "draw_curves", "draw_plane", "draw_regions", "draw_samples", "panels", "picture_sheet", "principal_colours",
    "region_colour", "scene_sheet", "show_anatomy", "show_bars", "show_covering", "show_dialogue", "show_inside", "show_intervals", "show_map", "show_scale", "show_patching", "show_prospect", "show_region_tests", "show_scores", "show_sensitivity", "show_table", "text_colour",
]  # fmt: skip
