"""Numbered boxes on a picture."""

from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from ..pictures import read_picture
from .style import (
    DPI,
    PALETTE,
    PICTURE,
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
        width, height = fit_size(picture.size if picture else (1, 1), PICTURE, PICTURE)
        axes = new_figure(width, height).add_axes([0, 0, 1, 1])
    if picture is not None:
        show_picture(axes, picture)
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
                linewidth=to_points(3),
                zorder=3,
                clip_on=False,
                linestyle="-" if number <= len(PALETTE) else (0, (4, 1.5)),
                gid=f"box {number}",
                joinstyle="round",
                path_effects=[withStroke(linewidth=to_points(6), foreground="white", alpha=0.85)],
            )  # fmt: skip
        )
    for number, box in numbered:
        label = labels[number - 1] if labels else None
        _tag(axes, number, box, f"{number} {label}" if label else str(number), taken)
    return axes


def _tag(axes, number, box, text, taken):
    """The number in its colour at a corner of the box: on the picture, off other tags where there is room, off the box if possible."""
    figure = axes.figure
    pixels = DPI / figure.dpi
    font = font_of(TEXT, weight="bold")
    # Tags do not change their size with the axes, so places are found in pixels of the screen, y upwards.
    (left, bottom), (right, top) = axes.transData.transform([(box[0], box[3]), (box[2], box[1])]) * pixels
    area = axes.get_window_extent()
    x0, y0, x1, y1 = area.x0 * pixels, area.y0 * pixels, area.x1 * pixels, area.y1 * pixels
    width, height = max(text_width(measuring_renderer(), text, font) + 12, 22), 22
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
        gid=f"tag {number}", bbox=dict(boxstyle="round,pad=0.22,rounding_size=0.25", facecolor=fill, edgecolor="white", linewidth=to_points(1)),
    )  # fmt: skip


def show_picture(axes, picture):
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
