"""Colours, sizes, fonts and the bare figure.

One region has one colour everywhere, and its number is always written beside the colour, so nothing rests on colour alone. The palette is
Okabe and Ito's for colour-blind readers (https://jfly.uni-koeln.de/color/). Lengths here are pixels at 100 dots per inch; figures are
saved at 150, and no text is under 12 pixels.
"""

import functools
import io

from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442")
INK, FAINT, PAPER = "#1B1F24", "#5B6470", "#FFFFFF"
QUESTION, ANSWER_EDGE = "#E9EDF2", "#C3CAD3"
DPI, SAVED_DPI = 100, 150
MARGIN, GAP = 18, 26
PICTURE, COLUMN = 460, 440  # longest side of the picture, width of the dialogue
TEXT, SMALL, LINE = 15.5, 13.5, 25  # font sizes and line height
_FALLBACKS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Emoji",
)


def region_colour(number: int) -> str:
    """The colour of `<regionN>`, N from 1; after seven they repeat, with dashed boxes."""
    return PALETTE[(number - 1) % len(PALETTE)]


def text_colour(background) -> str:
    """Black or white, whichever stands out more on `background` (WCAG contrast, at least 4.5 on every colour of the palette)."""
    return max(("#000000", PAPER), key=lambda colour: contrast(colour, background))


def contrast(one, other) -> float:
    """Contrast ratio of two colours, 1 to 21, as WCAG 2.2 defines it."""

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


class _Picture(Figure):
    """A figure that Jupyter shows without pyplot."""

    def _repr_png_(self):
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=SAVED_DPI)
        return buffer.getvalue()


def fit_size(size, width, height):
    """Size in the figure: the aspect kept, within width x height, no side under a tag's."""
    scale = min(width / size[0], height / size[1])
    return max(48, size[0] * scale), max(48, size[1] * scale)


def new_figure(width, height):
    figure = _Picture(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


@functools.cache
def measuring_renderer():
    # Hinting makes letters at 100 and 150 dots per inch differ by a few percent: what is saved is what is measured.
    return FigureCanvasAgg(Figure(figsize=(1, 1), dpi=SAVED_DPI)).get_renderer()


@functools.cache
def _families():
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FALLBACKS if name in installed)]


@functools.cache
def font_of(size, weight="normal"):
    return FontProperties(family=_families(), size=to_points(size), weight=weight)


def to_points(pixels):
    return pixels * 72 / DPI


def text_width(renderer, text, font):
    return renderer.get_text_width_height_descent(text, font, ismath=False)[0] * DPI / SAVED_DPI
