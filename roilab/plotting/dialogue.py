"""A picture with its regions, and the dialogue about them beside it."""

import re

from matplotlib.patches import FancyBboxPatch

from ..pictures import read_picture
from .regions import draw_regions
from .style import (
    ANSWER_EDGE,
    COLUMN,
    FAINT,
    GAP,
    INK,
    LINE,
    MARGIN,
    PAPER,
    PICTURE,
    QUESTION,
    SAVED_DPI,
    SMALL,
    TEXT,
    fit_size,
    font_of,
    measuring_renderer,
    new_figure,
    region_colour,
    text_colour,
    text_width,
    to_points,
)  # fmt: skip

_MENTION = re.compile(r"<region(\d+)>|\bregion(\d+)\b")


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
    width, height = fit_size(picture.size, PICTURE, 600)
    renderer = measuring_renderer()
    blocks = [_Block(turn, renderer) for turn in turns]
    column_height = sum(block.height + block.space for block in blocks) - (blocks[0].space if blocks else 0)
    total_width = 2 * MARGIN + width + (GAP + COLUMN if blocks else 0)
    total_height = 2 * MARGIN + max(height, column_height)

    figure = new_figure(total_width, total_height)
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


class _Block:
    """One turn of the dialogue as lines of pieces; a piece is (text, region number or None, x, width)."""

    def __init__(self, turn, renderer):
        self.role = turn["role"]
        self.font = font_of(SMALL if self.role == "note" else TEXT)
        self.bold = font_of(SMALL, weight="bold")
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
                    linewidth=to_points(1.3),
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
    space = text_width(renderer, " ", font)
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
        (text, number, text_width(renderer, text, font) if number is None else text_width(renderer, text, bold) + 12)
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
            while count > 1 and text_width(renderer, text[:count], font) > width:
                count -= 1
            parts.append([(text[:count], number, text_width(renderer, text[:count], font))])
            text = text[count:]
            piece_width = text_width(renderer, text, font)
        parts.append([(text, number, piece_width)])
    return parts
