"""Box sensitivity: how a target changes as a region's box is shifted over the picture or scaled.

Ours. It shows where a box would have to be for the answer to stay: a model that reads its region token has a hill at the object. It cannot
show why; compare with the region tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .memory import fitting
from .passes import Scorer, prepare, score, splice
from .results import Result, origin
from .target import Target


@dataclass
class Sensitivity(Result):
    """Scores of a target with other boxes.

    Attributes:
        target: what was explained.
        region: number of the region whose box was changed.
        score: with its own box.
        x, y: [n] middles of the shifted boxes, in pixels of the picture.
        shifted: [n, n] scores, rows by y.
        factors: sizes of the scaled boxes, as factors of both sides.
        scaled: [factors] scores.
        origin: model, dtype and attention implementation.
    """

    target: Target
    region: int
    score: float
    x: list[float] = field(repr=False)
    y: list[float] = field(repr=False)
    shifted: Tensor = field(repr=False)
    factors: list[float]
    scaled: list[float]
    origin: dict = field(default_factory=dict)

    def plot(self):
        """A figure; see `roilab.plotting.show_sensitivity`."""
        from ..plotting import show_sensitivity

        return show_sensitivity(self)


@torch.no_grad()
def box_sensitivity(
    model,
    explained: Target,
    region: int = 1,
    steps: int = 9,
    factors: tuple[float, ...] = (0.5, 0.7, 0.85, 1, 1.2, 1.5, 2),
    batch: int | str = 16,
) -> Sensitivity:
    """Scores with region N's box shifted over a grid and scaled about its middle; what hangs over the border is cut off.

    The picture is encoded and fused once, and what stands before the first region is read once.

    Args:
        steps: boxes along each side of the grid; the outermost touch the border.
        batch: sequences in one pass, or the memory that it may take, as in `cover`.
    Raises:
        ValueError: the question shows no such region; no steps.
    """
    if steps < 1:
        raise ValueError(f"steps {steps}, expected at least 1")
    index, inputs = explained.index(region), prepare(model, explained)
    x1, y1, x2, y2 = inputs.boxes[index].tolist()
    half_x, half_y = (x2 - x1) / 2, (y2 - y1) / 2
    xs, ys = (torch.linspace(half, 1 - half, steps).tolist() for half in (half_x, half_y))
    boxes = [[x - half_x, y - half_y, x + half_x, y + half_y] for y in ys for x in xs]
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    boxes += [[x - f * half_x, y - f * half_y, x + f * half_x, y + f * half_y] for f in factors]
    boxes.append([x1, y1, x2, y2])
    boxes = torch.tensor(boxes, device=inputs.boxes.device).clamp(0, 1)
    masks = None if inputs.masks is None else [inputs.masks[index].expand(len(boxes), -1, -1)]
    tokens = model.region_encoder.pool(inputs.fused, [boxes], masks)[0]
    embeds = splice(model, inputs)
    batch = fitting(batch, lambda: score(model, embeds, explained))
    scorer, scores = Scorer(model, explained, embeds, batch=batch), []
    for part in tokens.split(batch):
        regions = inputs.regions.repeat(len(part), 1, 1)
        regions[:, index] = part
        scores += scorer(splice(model, inputs, regions=regions)).tolist()
    width, height = explained.image.size
    return Sensitivity(
        explained, region, scores[-1], [each * width for each in xs], [each * height for each in ys],
        torch.tensor(scores[: steps**2]).view(steps, steps), list(factors), scores[steps**2 : -1], origin(model),
    )  # fmt: skip
