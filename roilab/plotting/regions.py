"""Numbered boxes and outlines on a picture."""

from matplotlib.patches import Polygon, Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from ..pictures import read_picture
from ..regions import CELLS, bounding_box, cell_names, is_outline
from .style import (
    DPI,
    INK,
    PALETTE,
    PAPER,
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
    """The picture with one numbered box or outline per region.

    Args:
        image: anything `read_picture` takes, or None to draw on what the axes hold.
        boxes: per region xyxy, or an outline of three or more points (x, y), in pixels of the picture, origin at the upper left corner;
            None for a region that was removed (the others keep their numbers and colours).
        axes: matplotlib axes; by default those of a new figure.
        labels: per region a text that follows the number, or None.

    Returns:
        The axes. Box or outline N has the gid `box N`, its tag the gid `tag N`.
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
    for number, box in numbered:
        axes.add_patch(
            _patch(
                box,
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
        _tag(axes, number, tag_box(box), f"{number} {label}" if label else str(number), taken)
    return axes


def _patch(region, **look):
    if is_outline(region):
        return Polygon([tuple(map(float, point)) for point in region], closed=True, **look)
    x1, y1, x2, y2 = region
    return Rectangle((x1, y1), x2 - x1, y2 - y1, **look)


def draw_grid(axes):
    """The cells A1 to H8 over the picture that the axes hold (see `roilab.regions.cells_box`)."""
    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    columns, rows = cell_names()
    under = [withStroke(linewidth=to_points(3), foreground=PAPER, alpha=0.7)]
    for k in range(1, CELLS):
        for x, y in (((k * width / CELLS,) * 2, (0, height)), ((0, width), (k * height / CELLS,) * 2)):
            axes.plot(x, y, color=INK, alpha=0.7, linewidth=to_points(1), path_effects=under, zorder=2, gid="grid")
    for k in range(CELLS):
        middle = (k + 0.5) / CELLS
        for text, at in ((columns[k], (middle, 1 - 0.5 / 18)), (rows[k], (0.5 / 18, 1 - middle))):
            axes.text(
                *at, text, transform=axes.transAxes, color=INK, fontproperties=font_of(13, weight="bold"), ha="center",
                va="center", zorder=4, bbox=dict(boxstyle="square,pad=0.15", facecolor=PAPER, edgecolor="none"),
            )  # fmt: skip


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
    place = (left - x0, y1 - top, right - x0, y1 - bottom)  # now downwards, from the corner of the axes
    x, y = tag_place(place, (width, height), (x1 - x0, y1 - y0), taken)
    x, y = x + x0, y1 - y - height
    # From screen pixels back to the data, so that the tag follows its box when the axes move.
    ax, ay = axes.transData.inverted().transform([((x + width / 2) / pixels, (y + height / 2) / pixels)])[0]
    fill = region_colour(number)
    axes.text(
        ax, ay, text, color=text_colour(fill), fontproperties=font, ha="center", va="center_baseline", zorder=5, parse_math=False,
        gid=f"tag {number}", bbox=dict(boxstyle="round,pad=0.22,rounding_size=0.25", facecolor=fill, edgecolor="white", linewidth=to_points(1)),
    )  # fmt: skip


def tag_box(region) -> tuple[float, float, float, float]:
    """The box that the tag of a region keeps to: its own, of an outline the part from its highest point on, so that the tag touches it."""
    x1, y1, x2, y2 = bounding_box(region)
    if is_outline(region):
        x1 = min(x for x, y in region if y == y1)
    return x1, y1, x2, y2


def tag_place(box, size, area, taken) -> tuple[float, float]:
    """Where the tag of a box goes: in the area, off other tags where there is room, off the box if possible.

    Args:
        box: xyxy, all lengths in screen pixels, y downwards.
        size: (width, height) of the tag.
        area: (width, height) of the picture on the screen.
        taken: xyxy of the tags so far; this one is added.

    Returns:
        (x, y) of the tag's upper left corner.
    """
    (left, top, right, bottom), (width, height), gap = box, size, 1.5
    corners = [
        (left - gap, top - gap - height), (right + gap - width, top - gap - height),  # above
        (left - gap, bottom + gap), (right + gap - width, bottom + gap),  # below
        (right + gap, top - gap), (left - gap - width, top - gap),  # beside
        (left - gap, top - gap), (right - width + gap, top - gap),  # inside
        (left - gap, bottom + gap - height), (right - width + gap, bottom + gap - height),
    ]  # fmt: skip
    # In a crowd: further down the left side of the box, then along its upper side.
    corners += [(left - gap, top + k * (height + 2)) for k in range(1, 12)]
    corners += [(left + k * (width + 2), top - gap) for k in range(1, 12)]

    def clamped(corner):
        return max(0, min(corner[0], area[0] - width)), max(0, min(corner[1], area[1] - height))

    def flaws(corner):
        x, y = clamped(corner)
        moved = abs(x - corner[0]) + abs(y - corner[1])
        covers = any(x < c and a < x + width and y < d and b < y + height for a, b, c, d in taken)
        return covers, moved > 4

    x, y = clamped(min(corners, key=flaws))  # the first of the best
    taken.append((x, y, x + width, y + height))
    return x, y


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
