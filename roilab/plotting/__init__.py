"""Figures: regions on a picture, a dialogue beside it, a contact sheet of scenes.

Nothing here touches pyplot, so figures neither pile up nor appear twice in a notebook. Colours and sizes: `style`.
"""

from .dialogue import show_dialogue
from .regions import draw_regions
from .sheet import scene_sheet
from .style import COLUMN, DPI, PALETTE, contrast, region_colour, text_colour

__all__ = [
    "COLUMN", "DPI", "PALETTE", "contrast", "draw_regions", "region_colour", "scene_sheet", "show_dialogue", "text_colour",
]  # fmt: skip
