"""Sanity checks (Adebayo et al., arXiv 1810.03292): a map that stays when the model, the picture or the regions change is not about them."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from .attending import decoder_layers
from .faithfulness import patch_map
from .results import Result, Scores
from .target import Target

ALIKE = 0.5  # rank correlation from which on maps are said to have stayed


@dataclass
class Sanity(Result):
    """Rank correlation of a method's maps with those that should be others.

    Attributes:
        target: what was explained.
        method: its name.
        weights: share of the model that is random, counted from the output -> correlation.
        picture: with another picture, same question and boxes.
        regions: with the boxes of the first two regions exchanged; nan if there is one region or none.
    """

    also = ("stayed",)

    target: Target
    method: str
    weights: dict[float, float]
    picture: float
    regions: float = float("nan")

    @property
    def stayed(self) -> list[str]:
        """What did not change the map, in words; empty if the method passes."""
        found = [
            f"{share:.0%} random weights" for share, value in self.weights.items() if share == 1 and value >= ALIKE
        ]
        found += ["another picture"] if self.picture >= ALIKE else []
        return found + (["exchanged regions"] if self.regions >= ALIKE else [])

    def plot(self):
        """A figure; see `roilab.plotting.show_bars`."""
        from ..plotting import show_bars

        found = {f"{share:.0%} random weights": value for share, value in self.weights.items()}
        found |= {"another picture": self.picture, "exchanged regions": self.regions}
        about = f"{self.target.question} {self.target.answer}"
        return show_bars(found, str(self), about, "rank correlation with the map (dashed: too alike)", dashed=ALIKE)

    def __str__(self) -> str:
        if not self.stayed:
            return f"{self.method}: passes, its maps change with weights, picture and regions"
        return f"{self.method}: does NOT pass, its map stays with {', '.join(self.stayed)}"


def sanity_checks(
    model,
    explained: Target,
    method: Callable[[object, Target], Scores],
    other: Image.Image,
    shares: Sequence[float] = (0.25, 0.5, 1.0),
    seed: int = 0,
) -> Sanity:
    """Computes a method's map again with random weights, with another picture, and with exchanged regions.

    Shows what a map does not depend on. A map that passes may still be wrong.

    Args:
        method: model and target -> scores, e.g. `interpret.relevance`.
        other: another picture.
        shares: of the weights that are random, see `randomised` (`seed`).
    """
    grid = model.vision.grid

    def compared(twin, about: Target) -> float:
        return rank_correlation(own, patch_map(method(twin, about), grid))

    found = method(model, explained)
    own = patch_map(found, grid)
    weights = {share: compared(randomised(model, share, seed), explained) for share in shares}
    other = other.convert("RGB").resize(explained.image.size)
    picture = compared(model, dataclasses.replace(explained, image=other))
    regions = float("nan")
    if len(explained.shapes) > 1:
        one, two, *rest = explained.shapes
        regions = compared(model, dataclasses.replace(explained, shapes=[two, one, *rest]))
    return Sanity(explained, found.method, weights, picture, regions)


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's rank correlation of two maps of the same size; 0 if one of them is constant."""
    if one.shape != other.shape:
        raise ValueError(f"maps of {list(one.shape)} and {list(other.shape)} cannot be compared")
    first, second = (_ranks(each.flatten()) for each in (one, other))
    first, second = first - first.mean(), second - second.mean()
    length = first.norm() * second.norm()
    return (first @ second / length).item() if length else 0.0


def randomised(model, share: float = 1.0, seed: int = 0):
    """A copy of a model whose last weights are random: cascading randomisation, from the output backwards.

    Args:
        share: of the stages, counted from the output: the language model's layers, last to first, then projector and region encoder. The
            vision tower, the words and the output layer, which is theirs, stay.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share}, expected 0 to 1")
    twin = copy.deepcopy(model)
    stages = [[layer] for layer in reversed(decoder_layers(twin))] + [[twin.projector, twin.region_encoder]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for stage in stages[: math.ceil(share * len(stages))]:
            for module in (each for part in stage for each in part.modules()):
                for name, weights in module.named_parameters(recurse=False):
                    _randomise(name, weights)
    return twin


def _randomise(name: str, weights: Tensor):
    """As spread as trained weights, without what was learned; norms keep their scale."""
    if weights.dim() > 1:
        torch.nn.init.normal_(weights, std=weights.float().std().item())
    elif name == "bias":
        torch.nn.init.zeros_(weights)


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2)[place].double()
