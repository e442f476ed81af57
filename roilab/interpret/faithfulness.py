"""Honest numbers beside the pictures: does covering what a map marks change the answer, and does the map lie in the region?

Faithfulness is measured by deletion and insertion (Petsiuk et al., arXiv 1806.07421), always beside a random and a centre order. Localisation
(pointing game, Zhang et al., arXiv 1608.00507; energy in the region, Wang et al., arXiv 1910.01279) is something else: a map may lie
well and explain nothing.

Axes: G cells of the patch grid, row by row; S steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..regions import grid_mask
from .attribution import from_pixels
from .memory import fitting
from .pictures import baseline_pixels
from .results import Result, Scores

ORDERS = 10  # random orders that are averaged


@dataclass
class Curves(Result):
    """Probability of a target while the picture is covered, or uncovered, patch by patch.

    Attributes:
        shares: [S + 1] of patches that were covered (deletion) or uncovered (insertion), 0 to 1.
        deletion, insertion: order -> [S + 1] probabilities; orders are "method", "random" and "centre".
    """

    also = ("areas",)

    shares: list[float]
    deletion: dict[str, list[float]] = field(repr=False)
    insertion: dict[str, list[float]] = field(repr=False)

    @property
    def areas(self) -> dict[str, tuple[float, float]]:
        """Order -> (area under deletion, the lower the better; area under insertion, the higher the better)."""
        at = torch.tensor(self.shares)
        return {
            name: tuple(
                torch.trapezoid(torch.tensor(curve[name]), at).item() for curve in (self.deletion, self.insertion)
            )
            for name in self.deletion
        }

    def plot(self, title: str = ""):
        """A figure; see `roilab.plotting.show_covering`."""
        from ..plotting import show_covering

        return show_covering(self, title)


@torch.no_grad()
def deletion_insertion(
    model,
    scores: Scores,
    steps: int = 16,
    fill: str = "blur",
    path: str = "both",
    batch: int | str = 16,
    seed: int = 0,
    beside: Curves | None = None,
) -> Curves:
    """Covers the patches that a map marks, most marked first, and uncovers them again on a covered picture.

    Shows whether the order in which a method ranks patches is that in which the answer depends on them, with this filling. Pictures in
    between are unlike any the model was trained on, for all orders alike: hence the random and the centre order.

    Args:
        scores: of any method with a map; pixels are averaged over patches.
        steps: how many times a share of the patches is added.
        fill, path: as in `cover`.
        batch: pictures in one pass, or the memory that it may take, as in `cover`.
        seed: of the 10 random orders.
        beside: what this function gave for another method, with the same target and settings: its random and centre curves are taken.
    Raises:
        ValueError: no steps; another fill or path; scores without a map.
    """
    if steps < 1:
        raise ValueError(f"steps {steps}, expected at least 1")
    explained = scores.target
    pixels = model.processor.preprocess(explained.image).to(model.device)
    baseline, forward = baseline_pixels(model, pixels, fill), from_pixels(model, explained, path)
    grid, batch = model.vision.grid, fitting(batch, lambda: forward(pixels))
    generator = torch.Generator().manual_seed(seed)
    orders = {"method": [ranked(patch_map(scores, grid))]}
    if beside is None:
        orders["centre"] = [ranked(centre_map(grid))]
        orders["random"] = [torch.randperm(math.prod(grid), generator=generator) for _ in range(ORDERS)]
    counts = [round(step * math.prod(grid) / steps) for step in range(steps + 1)]

    def curve(order: Tensor, uncover: bool) -> Tensor:
        masks = torch.zeros(len(counts), math.prod(grid))
        for row, count in enumerate(counts):
            masks[row, order[:count]] = 1
        masks = F.interpolate(masks.view(-1, 1, *grid), size=pixels.shape[2:]).to(pixels)
        shown, hidden = (baseline, pixels) if uncover else (pixels, baseline)
        pictures = shown * (1 - masks) + hidden * masks
        return torch.cat([forward(part) for part in pictures.split(batch)]).exp().cpu()

    curves = {
        uncover: {
            name: torch.stack([curve(each, uncover) for each in several]).mean(0).tolist()
            for name, several in orders.items()
        }
        for uncover in (False, True)
    }
    if beside is not None:
        curves = {False: beside.deletion | curves[False], True: beside.insertion | curves[True]}
    return Curves([count / math.prod(grid) for count in counts], curves[False], curves[True])


def pointing_game(scores: Scores, box) -> bool:
    """Whether the largest score of the map lies in a box (xyxy in pixels of the picture); a patch lies where its middle is.

    Where several pixels have the largest score, as those of a covered patch do, half of them have to lie in the box.
    """
    inside = grid_mask(box, scores.target.image.size, scores.map.shape)
    return inside[scores.map == scores.map.max()].float().mean().item() >= 0.5


def energy_in_region(scores: Scores, box) -> float:
    """Share of the map's positive scores inside a box (xyxy in pixels of the picture); nan if none is positive."""
    positive = scores.map.clamp_min(0)
    total = positive.sum().item()
    return (
        (positive * grid_mask(box, scores.target.image.size, scores.map.shape)).sum().item() / total
        if total
        else float("nan")
    )


def patch_map(scores: Scores, grid: tuple[int, int]) -> Tensor:
    """[rows, columns] of the patch grid: a map as it is, or pixels averaged over patches."""
    if scores.pixels is None:
        return scores.image
    return F.adaptive_avg_pool2d(scores.pixels[None, None], grid)[0, 0]


def centre_map(grid: tuple[int, int]) -> Tensor:
    """[rows, columns]: the nearer to the middle of the picture, the larger."""
    y, x = ((torch.arange(cells) + 0.5) / cells - 0.5 for cells in grid)
    return -(y[:, None].square() + x[None].square())


def ranked(cells: Tensor) -> Tensor:
    """[G] cells of a map, largest first."""
    return cells.flatten().argsort(descending=True, stable=True)
