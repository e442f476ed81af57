"""Figures: regions on a picture, a dialogue beside it, a contact sheet of scenes.

One region has one colour everywhere, and its number is always written beside the colour, so nothing rests on colour alone. The palette is
Okabe and Ito's for colour-blind readers (https://jfly.uni-koeln.de/color/). Lengths here are pixels at 100 dots per inch; figures are
saved at 150, and no text is under 12 pixels. Nothing touches pyplot, so figures neither pile up nor appear twice in a notebook.
"""

import functools
import io
import math
import re

from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from .pictures import read_picture

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442")
INK, FAINT, PAPER = "#1B1F24", "#5B6470", "#FFFFFF"
QUESTION, ANSWER_EDGE = "#E9EDF2", "#C3CAD3"

DPI, SAVED_DPI = 100, 150
MARGIN, GAP = 18, 26
PICTURE, COLUMN = 460, 440  # longest side of the picture, width of the dialogue
TEXT, SMALL, LINE = 15.5, 13.5, 25  # font sizes and line height
_MENTION = re.compile(r"<region(\d+)>|\bregion(\d+)\b")
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


def draw_regions(image, boxes, axes=None, labels=None):
    """The picture with one numbered box per region.

    Args:
        image: anything `read_picture` takes, or None to draw on what the axes hold.
        boxes: per region xyxy in pixels of the picture, origin at the upper left corner; None for a region that was removed (the
            others keep their numbers and colours).
        axes: matplotlib axes; by default those of a new figure.
        labels: per region a text that follows the number, or None.

    Returns:
        The axes. Box N has the gid `box N`, its tag the gid `tag N`.
    """
    picture = None if image is None else read_picture(image)
    if axes is None:
        width, height = _fit(picture.size if picture else (1, 1), PICTURE, PICTURE)
        axes = _figure(width, height).add_axes([0, 0, 1, 1])
    if picture is not None:
        _show(axes, picture)
    axes.apply_aspect()
    taken = []
    numbered = [(number, box) for number, box in enumerate(boxes, 1) if box is not None]
    for number, (x1, y1, x2, y2) in numbered:
        axes.add_patch(
            Rectangle(
                (x1, y1),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=region_colour(number),
                linewidth=_points(3),
                zorder=3,
                clip_on=False,
                linestyle="-" if number <= len(PALETTE) else (0, (4, 1.5)),
                gid=f"box {number}",
                joinstyle="round",
                path_effects=[withStroke(linewidth=_points(6), foreground="white", alpha=0.85)],
            )  # fmt: skip
        )
    for number, box in numbered:
        label = labels[number - 1] if labels else None
        _tag(axes, number, box, f"{number} {label}" if label else str(number), taken)
    return axes


def show_dialogue(image, boxes, turns, path=None):
    """A picture with its numbered regions, and the dialogue about it beside.

    Args:
        image, boxes: as for `draw_regions`.
        turns: dicts with `role` ("user", "assistant" or "note", a remark in small type) and `content`, where `<region1>` or `region1` becomes
            a tag in the colour of the box.
        path: where to save the figure too; the ending chooses the format.

    Returns:
        A matplotlib Figure, which a notebook shows as a PNG.
    """
    picture = read_picture(image)
    width, height = _fit(picture.size, PICTURE, 600)
    renderer = _renderer()
    blocks = [_Block(turn, renderer) for turn in turns]
    column_height = sum(block.height + block.space for block in blocks) - (blocks[0].space if blocks else 0)
    total_width = 2 * MARGIN + width + (GAP + COLUMN if blocks else 0)
    total_height = 2 * MARGIN + max(height, column_height)

    figure = _figure(total_width, total_height)
    top = 1 - (MARGIN + height) / total_height
    axes = figure.add_axes([MARGIN / total_width, top, width / total_width, height / total_height], label="picture")
    draw_regions(picture, boxes, axes)
    if blocks:
        left = (MARGIN + width + GAP) / total_width
        column = figure.add_axes([left, 0, COLUMN / total_width, 1], label="dialogue")
        column.set(xlim=(0, COLUMN), ylim=(total_height, 0))
        column.axis("off")
        y = MARGIN - blocks[0].space
        for block in blocks:
            y = block.draw(column, y + block.space)
    if path is not None:
        figure.savefig(path, dpi=SAVED_DPI)
    return figure


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
    figure = _figure(width, height)
    renderer = _renderer()
    for i, scene in enumerate(scenes):
        x = MARGIN + (i % columns) * (side + MARGIN)
        y = MARGIN + (i // columns) * (side + caption + 6)
        axes = figure.add_axes([x / width, 1 - (y + side) / height, side / width, side / height], label=f"scene {i}")
        _show(
            axes, read_picture(scene.scaled(side * SAVED_DPI // DPI).image if hasattr(scene, "scaled") else scene.image)
        )
        text = captions[i]
        while len(text) > 1 and _width(renderer, text, _font(SMALL)) > side:
            text = text.rstrip("…")[:-1].rstrip() + "…"
        figure.text(
            (x + side / 2) / width, 1 - (y + side + caption - 8) / height, text, ha="center", va="baseline", color=INK,
            fontproperties=_font(SMALL), parse_math=False,
        )  # fmt: skip
    if path is not None:
        figure.savefig(path, dpi=SAVED_DPI)
    return figure


class _Picture(Figure):
    """A figure that Jupyter shows without pyplot."""

    def _repr_png_(self):
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=SAVED_DPI)
        return buffer.getvalue()


class _Block:
    """One turn of the dialogue as lines of pieces; a piece is (text, region number or None, x, width)."""

    def __init__(self, turn, renderer):
        self.role = turn["role"]
        self.font = _font(SMALL if self.role == "note" else TEXT)
        self.bold = _font(SMALL, weight="bold")
        self.padding = 0 if self.role == "note" else 12
        self.space = {"user": 22, "assistant": 8, "note": 6}.get(self.role, 8)
        self.line = LINE - 4 if self.role == "note" else LINE
        self.lines, self.inner = _wrap(
            str(turn["content"]), self.font, self.bold, 0.9 * COLUMN - 2 * self.padding, renderer
        )
        self.height = len(self.lines) * self.line + self.padding

    def draw(self, axes, y):
        """Draws with the upper edge at y; returns the lower edge."""
        width = self.inner + 2 * self.padding
        left = COLUMN - width - 2 if self.role == "user" else 2
        if self.role != "note":
            question = self.role == "user"
            axes.add_patch(
                FancyBboxPatch(
                    (left, y),
                    width,
                    self.height,
                    boxstyle="round,pad=0,rounding_size=11",
                    linewidth=_points(1.3),
                    gid=self.role,
                    facecolor=QUESTION if question else PAPER,
                    edgecolor=QUESTION if question else ANSWER_EDGE,
                    clip_on=False,
                )  # fmt: skip
            )
        for i, line in enumerate(self.lines):
            baseline = y + self.padding / 2 + i * self.line + self.line * 0.68
            for text, number, x, piece_width in line:
                self._draw_piece(axes, text, number, left + self.padding + x, baseline, piece_width)
        return y + self.height

    def _draw_piece(self, axes, text, number, x, baseline, width):
        colour, font = FAINT if self.role == "note" else INK, self.font
        if number is not None:
            fill = region_colour(number)
            axes.add_patch(
                FancyBboxPatch(
                    (x, baseline - 15),
                    width,
                    20,
                    boxstyle="round,pad=0,rounding_size=5",
                    linewidth=0,
                    facecolor=fill,
                    clip_on=False,
                    gid=f"mention {number}",
                )  # fmt: skip
            )
            colour, font, x, baseline = text_colour(fill), self.bold, x + width / 2, baseline - 0.5
        align = "left" if number is None else "center"
        axes.text(x, baseline, text, color=colour, fontproperties=font, va="baseline", ha=align, parse_math=False)


def _wrap(content, font, bold, width, renderer):
    """Text -> lines of pieces no wider than `width`, and the width of the widest. Breaks at spaces, or inside a word that is too long."""
    space = _width(renderer, " ", font)
    lines, widest = [], 0
    for paragraph in content.splitlines() or [""]:
        line, x = [], 0
        for word in paragraph.split():
            for pieces in _fitting(_pieces(word, font, bold, renderer), font, width, renderer):
                word_width = sum(piece[2] for piece in pieces)
                if line and x + space + word_width > width:
                    lines.append(line)
                    line, x = [], 0
                x += space if line else 0
                for text, number, piece_width in pieces:
                    line.append((text, number, x, piece_width))
                    x += piece_width
                widest = max(widest, x)
        lines.append(line)
    return lines, widest


def _pieces(word, font, bold, renderer):
    """A word as (text, region number or None, width): "<region1>?" is a tag and a question mark."""
    pieces, end = [], 0
    for match in _MENTION.finditer(word):
        if match.start() > end:
            pieces.append((word[end : match.start()], None))
        number = int(match[1] or match[2])
        pieces.append((f"region{number}", number) if number else (match[0], None))
        end = match.end()
    pieces.append((word[end:], None))
    return [
        (text, number, _width(renderer, text, font) if number is None else _width(renderer, text, bold) + 12)
        for text, number in pieces
        if text
    ]


def _fitting(pieces, font, width, renderer):
    """The word whole if it fits on a line, else cut into parts that do."""
    if sum(piece[2] for piece in pieces) <= width:
        return [pieces]
    parts = []
    for text, number, piece_width in pieces:
        while piece_width > width and len(text) > 1:
            count = max(1, int(len(text) * width / piece_width))
            while count > 1 and _width(renderer, text[:count], font) > width:
                count -= 1
            parts.append([(text[:count], number, _width(renderer, text[:count], font))])
            text = text[count:]
            piece_width = _width(renderer, text, font)
        parts.append([(text, number, piece_width)])
    return parts


def _tag(axes, number, box, text, taken):
    """The number in its colour at a corner of the box: on the picture, off other tags where there is room, off the box if possible."""
    figure = axes.figure
    pixels = DPI / figure.dpi
    font = _font(TEXT, weight="bold")
    # Tags do not change their size with the axes, so places are found in pixels of the screen, y upwards.
    (left, bottom), (right, top) = axes.transData.transform([(box[0], box[3]), (box[2], box[1])]) * pixels
    area = axes.get_window_extent()
    x0, y0, x1, y1 = area.x0 * pixels, area.y0 * pixels, area.x1 * pixels, area.y1 * pixels
    width, height = max(_width(_renderer(), text, font) + 12, 22), 22
    gap = 1.5
    corners = [
        (left - gap, top + gap), (right + gap - width, top + gap),  # above
        (left - gap, bottom - gap - height), (right + gap - width, bottom - gap - height),  # below
        (right + gap, top - height + gap), (left - gap - width, top - height + gap),  # beside
        (left - gap, top - height + gap), (right - width + gap, top - height + gap),  # inside
        (left - gap, bottom - gap), (right - width + gap, bottom - gap),
    ]  # fmt: skip
    # In a crowd: further down the left side of the box, then along its upper side.
    corners += [(left - gap, top - height - k * (height + 2)) for k in range(1, 12)]
    corners += [(left + k * (width + 2), top - height + gap) for k in range(1, 12)]

    def clamped(corner):
        return max(x0, min(corner[0], x1 - width)), max(y0, min(corner[1], y1 - height))

    def flaws(corner):
        x, y = clamped(corner)
        moved = abs(x - corner[0]) + abs(y - corner[1])
        covers = any(x < c and a < x + width and y < d and b < y + height for a, b, c, d in taken)
        return covers, moved > 4

    x, y = clamped(min(corners, key=flaws))  # the first of the best
    taken.append((x, y, x + width, y + height))
    # From screen pixels back to the data, so that the tag follows its box when the axes move.
    ax, ay = axes.transData.inverted().transform([((x + width / 2) / pixels, (y + height / 2) / pixels)])[0]
    fill = region_colour(number)
    axes.text(
        ax, ay, text, color=text_colour(fill), fontproperties=font, ha="center", va="center_baseline", zorder=5, parse_math=False,
        gid=f"tag {number}", bbox=dict(boxstyle="round,pad=0.22,rounding_size=0.25", facecolor=fill, edgecolor="white", linewidth=_points(1)),
    )  # fmt: skip


def _show(axes, picture):
    """The picture with box coordinates: pixel edges at whole numbers, (0, 0) at the upper left corner."""
    width, height = picture.size
    if max(width, height) > 1600:  # more than is ever seen; the coordinates stay
        picture = picture.copy()
        picture.thumbnail((1600, 1600), Image.Resampling.LANCZOS, reducing_gap=3)
    axes.imshow(
        picture, extent=(0, width, height, 0), interpolation="bicubic" if max(width, height) < 1200 else "antialiased"
    )
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")


def _fit(size, width, height):
    """Size in the figure: the aspect kept, within width x height, no side under a tag's."""
    scale = min(width / size[0], height / size[1])
    return max(48, size[0] * scale), max(48, size[1] * scale)


def _figure(width, height):
    figure = _Picture(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


@functools.cache
def _renderer():
    # Hinting makes letters at 100 and 150 dots per inch differ by a few percent: what is saved is what is measured.
    return FigureCanvasAgg(Figure(figsize=(1, 1), dpi=SAVED_DPI)).get_renderer()


@functools.cache
def _families():
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FALLBACKS if name in installed)]


@functools.cache
def _font(size, weight="normal"):
    return FontProperties(family=_families(), size=_points(size), weight=weight)


def _points(pixels):
    return pixels * 72 / DPI


def _width(renderer, text, font):
    return renderer.get_text_width_height_descent(text, font, ismath=False)[0] * DPI / SAVED_DPI
