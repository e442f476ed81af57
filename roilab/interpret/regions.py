"""Is a region token used at all? Four tests that tell "uses the region token" from "reads the picture" and from "guesses from the text".

Ours. For one region of a target: (a) its token gives way to the mean token, also its content alone and its position alone; (b) it is
exchanged with another region's; (c) its pixels are taken out of the image tokens, while its token stays; (d) its token comes from another
picture. Only (c) changes what can be read off the picture, only the others what can be read off the token.

Axes: N regions, K tokens of other pictures, D language-model width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..regions import grid_mask, normalise_boxes
from .anatomy import position_terms
from .passes import Scorer, prepare, score, splice
from .pictures import baseline_pixels
from .results import Result, origin
from .target import Target

MATTERS = math.log(2)  # of log-probability: what halves the chance of the answer matters
TOKEN, PICTURE, BOTH, TEXT = (
    "uses the region token",
    "reads the picture",
    "uses token and picture",
    "guesses from the text",
)


@dataclass
class Bank:
    """Region tokens of other pictures, as sums of content (with the bias) and position: [K, D] each."""

    content: Tensor
    position: Tensor

    @property
    def tokens(self) -> Tensor:
        return self.content + self.position


@dataclass
class RegionTests(Result):
    """How the score of a target changes with one region.

    Attributes:
        target, region: what was tested.
        score: the target's score as it is.
        mean, mean_content, mean_position: with the mean token, or with only its content or its position the mean one. (a)
        exchanged: with the tokens of this region and of `partner` exchanged; nan if there is no other region. (b)
        without_pixels: with the region's pixels blurred out of the image tokens. (c)
        foreign: with K tokens of other pictures. (d)
        partner: the other region, or None.
        origin: model, dtype and attention implementation.
    """

    also = ("token_drop", "picture_drop", "verdict")

    target: Target
    region: int
    score: float
    mean: float
    mean_content: float
    mean_position: float
    exchanged: float
    without_pixels: float
    foreign: list[float]
    partner: int | None = None
    origin: dict = field(default_factory=dict)

    @property
    def token_drop(self) -> float:
        """How much the answer loses with a token of another picture, on average, at least with the mean token."""
        return max(self.score - self.mean, self.score - sum(self.foreign) / len(self.foreign))

    @property
    def picture_drop(self) -> float:
        """How much the answer loses without the region's pixels."""
        return self.score - self.without_pixels

    @property
    def verdict(self) -> str:
        """What the answer rests on: a drop counts that makes it less than half as likely."""
        token, picture = self.token_drop > MATTERS, self.picture_drop > MATTERS
        return {(True, False): TOKEN, (True, True): BOTH, (False, True): PICTURE, (False, False): TEXT}[token, picture]

    def plot(self):
        """A figure; see `roilab.plotting.show_region_tests`."""
        from ..plotting import show_region_tests

        return show_region_tests(self)


@torch.no_grad()
def region_tests(
    model,
    explained: Target,
    region: int = 1,
    partner: int | None = None,
    bank: Bank | None = None,
    foreign: int = 16,
    seed: int = 0,
) -> RegionTests:
    """The four tests for region N of a target.

    Shows what the answer rests on, since every test is an intervention. A verdict "guesses from the text" says that neither source is needed
    alone: where picture and token say the same, each can stand in for the other, and both drops are small.

    Args:
        partner: the region it is exchanged with; by default the first other one that the target shows, if there is one.
        bank: tokens of other pictures, see `token_bank`; by default of drawn scenes.
        foreign: how many of them are tried in (d), chosen at random (`seed`).
    Raises:
        ValueError: the target does not show the region.
    """
    index, inputs = explained.index(region), prepare(model, explained)
    bank = token_bank(model) if bank is None else bank
    partner = next((each for each in explained.regions if each != region), None) if partner is None else partner
    position = position_terms(model.region_encoder, inputs.boxes[index][None])[0]
    content = inputs.regions[0, index] - position
    order = torch.randperm(len(bank.tokens), generator=torch.Generator().manual_seed(seed))[:foreign]
    put = [
        bank.tokens.mean(0, keepdim=True),
        (bank.content.mean(0) + position)[None],
        (content + bank.position.mean(0))[None],
        bank.tokens[order.to(bank.content.device)],
    ]
    put = torch.cat(put).to(inputs.regions)
    regions = inputs.regions.repeat(len(put) + 2, 1, 1)
    regions[2:, index] = put
    if partner is not None:
        other = explained.index(partner)
        regions[1, [index, other]] = regions[0, [other, index]]
    scorer = Scorer(model, explained, splice(model, inputs))
    plain, exchanged, mean, mean_content, mean_position, *others = scorer(
        splice(model, inputs, regions=regions)
    ).tolist()
    covered = model.projector(model.encode_image(_covered(model, explained, index)).patches)
    hidden = score(model, splice(model, inputs, image=covered), explained).item()
    exchanged = exchanged if partner is not None else float("nan")
    return RegionTests(
        explained, region, plain, mean, mean_content, mean_position, exchanged, hidden, others, partner, origin(model)
    )


@torch.no_grad()
def token_bank(model, pictures: Sequence[tuple] | None = None) -> Bank:
    """Region tokens of pictures, to be put in the place of others.

    Args:
        pictures: (picture, boxes xyxy in its pixels) each; by default 16 drawn scenes with their objects. For photographs, give photographs.
    Raises:
        ValueError: no picture, or a bad box.
    """
    if pictures is None:
        from ..scenes import language, sample

        scenes = [sample(language.seed_of("train", i)) for i in range(16)]
        pictures = [(scene.image, [item.box for item in scene.objects]) for scene in scenes]
    if not pictures:
        raise ValueError("0 pictures, expected at least 1")
    encoder, contents, positions = model.region_encoder, [], []
    for picture, boxes in pictures:
        fused = model.fuse(model.encode_image(model.processor.preprocess(picture)))
        boxes = normalise_boxes(boxes, picture.size).to(model.device)
        position = position_terms(encoder, boxes)
        contents.append(encoder.pool(fused, [boxes])[0] - position)
        positions.append(position)
    return Bank(torch.cat(contents), torch.cat(positions))


def _covered(model, explained: Target, index: int) -> Tensor:
    """Preprocessed pixels of the target's picture with one region blurred."""
    pixels = model.processor.preprocess(explained.image).to(model.device)
    inside = grid_mask(explained.shapes[index], explained.image.size, pixels.shape[2:]).to(pixels.device)
    return torch.where(inside, baseline_pixels(model, pixels, "blur"), pixels)
