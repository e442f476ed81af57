"""The region encoder of the photo model as it learns: what is frozen in it is computed beforehand, what is left is a read-out."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .features import Features, content_weight

GAIN = 6.0  # by how much faster the many weights of cells learn than all others


class Readout(nn.Module):
    """Flat cells and boxes -> region embeddings, with layers like those that a region encoder has behind its cells.

    Cells are standardised by the training pictures' mean and deviation and, in training, zeroed at random; the place of a box is blurred.

    Args:
        encoder: whose layers it begins with. known: features that give mean and deviation.
        dropout: share of a region's numbers that are zeroed. blur: deviation of the box's sides, in shares of the picture.
    """

    def __init__(self, encoder, known: Features, dropout: float = 0.5, blur: float = 0.02):
        super().__init__()
        config = encoder.config
        self.dropout, self.blur, self.width, self.side = dropout, blur, config.width, config.roi_size
        cells = known.cells.float()
        blocks = [self.width * self.side**2] + [config.focal_width] * len(config.focal_contexts)
        sizes = torch.cat([torch.full((size,), float(size)) for size in blocks])
        self.register_buffer("mean", cells.mean(0))
        self.register_buffer("scale", GAIN / (cells.std(0).clamp(min=1e-3) * sizes.sqrt()))
        self.content = nn.Linear(cells.shape[1], config.hidden_size, bias=False)
        self.position, self.output = copy.deepcopy((encoder.position, encoder.output))
        nn.init.zeros_(self.content.weight)
        nn.init.zeros_(self.position[-1].weight)

    def forward(self, cells: Tensor, boxes: Tensor) -> Tensor:
        """[N, F] and [N, 4] -> [N, D]."""
        cells = F.dropout((cells.float() - self.mean) * self.scale, self.dropout, self.training)
        if self.training:
            boxes = boxes + self.blur * torch.randn_like(boxes)
        return self.output(self.content(cells) + self.position(boxes))

    @torch.no_grad()
    def write(self, encoder, adjust: nn.Linear | None = None):
        """Make a region encoder compute what this read-out computes, and what a linear layer behind it makes of that."""
        flat = self.content.weight * self.scale
        encoder.content.weight.copy_(content_weight(flat, self.width, self.side))
        encoder.content.bias.copy_(-flat @ self.mean)
        encoder.position.load_state_dict(self.position.state_dict())
        encoder.output.load_state_dict(self.output.state_dict())
        if adjust is not None:
            encoder.output.weight.copy_(adjust.weight @ self.output.weight)
            encoder.output.bias.copy_(adjust(self.output.bias))


def fit_to_words(
    readout: Readout, words: Tensor, known: list[Features], targets: Tensor, steps: int = 400, batch: int = 512, sharpness: float = 10.0,
    seed: int = 0,
) -> float:  # fmt: skip
    """Fit the read-out so that each region's embedding is closest to the word of its category.

    Args:
        words: [K, D] embeddings of the categories. targets: [N] categories of the boxes.
        known: features of the same boxes, seen in several ways (as they are, mirrored).
        sharpness: of the classification by squared distance, in units of the words' own spread.
    Returns:
        The last step's loss.
    """
    torch.manual_seed(seed)
    readout.requires_grad_(True).train()
    centre = words.mean(0)
    spread = (words - centre).square().sum(1).mean()
    with torch.no_grad():
        readout.output.bias.copy_(centre)
    content = readout.content.weight
    rest = [each for each in readout.parameters() if each is not content]
    groups = [
        {"params": [content], "weight_decay": 20.0},
        {"params": [each for each in rest if each.dim() > 1], "weight_decay": 3.0},
        {"params": [each for each in rest if each.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows, seen = torch.randint(len(targets), (batch,)), known[step % len(known)]
        embeddings = readout(seen.cells[rows], seen.boxes[rows])
        distances = torch.cdist(embeddings, words).square() / spread
        loss = F.cross_entropy(-sharpness * distances, targets[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    readout.requires_grad_(False).eval()
    return loss.item()


def unseen_embeddings(
    encoder, words: Tensor, known: list[Features], targets: Tensor, folds: int = 4, say=print, **options
) -> list[Tensor]:
    """What read-outs say of boxes whose pictures they were not fitted on: [N, D] for each way of seeing.

    On its own pictures a read-out of so many weights is always right. What is to learn to read its embeddings has to see them as they will
    come: from pictures that are new to it.
    """
    fold = torch.arange(len(known[0].counts)).repeat_interleave(known[0].counts) % folds
    made = [torch.zeros(len(targets), words.shape[1]) for _ in known]
    for k in range(folds):
        others, own = fold != k, fold == k
        some = [replace(each, cells=each.cells[others], boxes=each.boxes[others]) for each in known]
        readout = Readout(encoder, some[0])
        fit_to_words(readout, words, some, targets[others], **options)
        with torch.no_grad():
            for way, each in zip(made, known, strict=True):
                way[own] = readout(each.cells[own], each.boxes[own])
    right = torch.cdist(made[0], words).argmin(1) == targets
    say(
        f"words: {right.float().mean():.1%} of the training boxes are nearest to their word when their pictures were not fitted on"
    )
    return made
