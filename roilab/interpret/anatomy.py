"""The anatomy of a region token: an exact sum of what, where, and one term per cell of the box.

From the RoI cells on the region encoder is linear (`roilab.regions.RegionEncoder`):

    token = bias + position + sum over cells of cells[row, column]

so any linear read-out of the token (a direction, a row of the output layer, a gradient) is a bias, a number for the place, and a heat map
inside the box; and the content of one region can be put together with the place of another.

Of region encoders that look at crops, the crop of the box itself has its place in the cells; of a larger one (`RegionConfig.focal_contexts`) all
cells are given the same.

Axes: r cells per side, D language-model width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .passes import Inputs, prepare, score, splice
from .results import Result
from .target import Target


@dataclass
class Anatomy(Result):
    """The terms of one region token.

    Attributes:
        region: its number.
        box: xyxy in pixels of the picture.
        token: [D] as the language model gets it.
        bias: [D]. position: [D]. cells: [r, r, D], rows from the top of the box.
    """

    also = ("difference",)

    region: int
    box: list[float]
    token: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    position: Tensor = field(repr=False)
    cells: Tensor = field(repr=False)

    @property
    def content(self) -> Tensor:
        """[D]: all cells together."""
        return self.cells.sum((0, 1))

    @property
    def difference(self) -> float:
        """Largest difference between the sum of the terms and the token."""
        return (self.bias + self.position + self.content - self.token).abs().max().item()

    def read(self, direction: Tensor) -> tuple[float, float, Tensor]:
        """A linear read-out [D] of the token, split up: (bias, position, heat map [r, r] of the cells). They add up to the read-out."""
        if direction.shape != self.token.shape:
            raise ValueError(f"a direction of shape {list(direction.shape)}, the token has {list(self.token.shape)}")
        direction = direction.to(self.token)
        return (self.bias @ direction).item(), (self.position @ direction).item(), self.cells @ direction

    def plot(self, image, **directions: Tensor):
        """A figure; see `roilab.plotting.show_anatomy`."""
        from ..plotting import show_anatomy

        return show_anatomy(self, image, directions)


@torch.no_grad()
def region_anatomy(model, explained: Target, region: int = 1, inputs: Inputs | None = None) -> Anatomy:
    """The terms of region N's token.

    Shows exactly which cell and whether place or content brings a direction into the token. Cannot show that the language model reads it.

    Raises:
        ValueError: the question shows no such region.
    """
    index = explained.index(region)
    inputs = prepare(model, explained) if inputs is None else inputs
    encoder, box = model.region_encoder, inputs.boxes[index][None]
    cells = encoder.cells(inputs.fused, [box])[0]  # [C, r, r]
    cells = cells if inputs.masks is None else cells * inputs.masks[index].to(cells)
    width, side = cells.shape[0], cells.shape[1]
    weight = encoder.content.weight.view(-1, width, side, side)  # the flattened cells' order: channel, row, column
    terms = torch.einsum("hcyx,cyx->yxh", weight, cells) @ encoder.output.weight.T
    position = position_terms(encoder, box)[0]
    bias = encoder.output.bias + encoder.output.weight @ encoder.content.bias
    parts = (each.float().cpu() for each in (inputs.regions[0, index], bias, position, terms))
    return Anatomy(region, list(explained.boxes[index]), *parts)


def slope(model, explained: Target, region: int = 1) -> Tensor:
    """[D]: the gradient of the target with respect to region N's token, a direction for `Anatomy.read`."""
    index, inputs = explained.index(region), prepare(model, explained)
    regions = inputs.regions.detach().requires_grad_()
    with torch.enable_grad():
        total = score(model, splice(model, inputs, inputs.image.detach(), regions), explained).sum()
    return torch.autograd.grad(total, regions)[0][0, index].float().cpu()


def recombined(model, explained: Target, content: int, position: int, inputs: Inputs | None = None) -> Tensor:
    """[D]: the token that shows the content of one region at the position of another.

    Raises:
        ValueError: the question shows no such region.
    """
    what, where = (region_anatomy(model, explained, region, inputs) for region in (content, position))
    return what.bias + what.content + where.position


@torch.no_grad()
def position_terms(encoder, boxes: Tensor) -> Tensor:
    """[N, D]: what the places of normalised boxes [N, 4] bring into their tokens."""
    return encoder.position(boxes.to(encoder.output.weight.dtype)) @ encoder.output.weight.T


@torch.no_grad()
def exchange_positions(model, explained: Target, one: int = 1, other: int = 2) -> Tensor:
    """[1, N, D] region tokens in which two regions have exchanged their positions and kept their content."""
    inputs, pair = prepare(model, explained), [explained.index(one), explained.index(other)]
    positions = position_terms(model.region_encoder, inputs.boxes[pair])
    regions = inputs.regions.detach().clone()
    regions[0, pair] += positions.flip(0) - positions
    return regions
