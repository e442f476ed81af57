"""The region encoder of the photo model as it learns: what is frozen in it is computed beforehand, what is left is a read-out."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .features import Features, content_weight


class Readout(nn.Module):
    """Flat cells -> region embeddings that lie between words, with what a region encoder has behind its cells.

    Of the D dimensions of the language model K - 1 tell K words apart. In these a region's cells decide; what the region encoder says of the
    box's place lies across them (see `write`) and changes no distance between words.

    Cells are standardised by the training pictures' mean and deviation and, in training, zeroed at random.

    Args:
        config: of the region encoder. words: [K, D] embeddings of the categories. known: features that give mean and deviation.
        dropout: share of a region's numbers that are zeroed.
    """

    def __init__(self, config, words: Tensor, known: Features, dropout: float = 0.7):
        super().__init__()
        self.dropout, self.width, self.side = dropout, config.width, config.roi_size
        cells = known.cells.float()
        blocks = [self.width * self.side**2] + [config.focal_width] * len(config.focal_contexts)
        sizes = torch.cat([torch.full((size,), float(size)) for size in blocks])
        self.register_buffer("mean", cells.mean(0))
        self.register_buffer("scale", 1 / (cells.std(0).clamp(min=1e-3) * sizes.sqrt()))
        self.register_buffer("centre", words.mean(0))
        axes = torch.linalg.svd(words - self.centre).Vh  # [D, D], the first K - 1 between the words
        self.register_buffer("axes", axes)
        self.content = nn.Linear(cells.shape[1], len(words) - 1)
        nn.init.zeros_(self.content.weight)
        nn.init.zeros_(self.content.bias)

    def forward(self, cells: Tensor) -> Tensor:
        """[N, F] -> [N, D]."""
        cells = F.dropout((cells.float() - self.mean) * self.scale, self.dropout, self.training)
        codes = self.content(cells)
        return self.centre + codes @ self.axes[: codes.shape[1]]

    @torch.no_grad()
    def write(self, encoder):
        """Make a region encoder compute this and, in its other hidden numbers, features of the box's place as they are drawn.

        Raises:
            ValueError: the region encoder has no hidden numbers left for the place.
        """
        flat = self.content.weight * self.scale
        count, hidden = len(flat), encoder.config.hidden_size
        if hidden <= count:
            raise ValueError(
                f"hidden_size is {hidden}: {count} tell {count + 1} words apart, none is left for the place"
            )
        for each in (*encoder.content.parameters(), encoder.output.bias):
            each.zero_()
        encoder.content.weight[:count] = content_weight(flat, self.width, self.side)
        encoder.content.bias[:count] = self.content.bias - flat @ self.mean
        encoder.output.weight.copy_(self.axes[:hidden].T)
        encoder.output.bias.copy_(self.centre)
        place = encoder.position[-1]
        place.weight.copy_(torch.arange(hidden) >= count)
        place.bias.zero_()


def spread(words: Tensor) -> Tensor:
    """Mean squared distance of words [K, D] from their mean."""
    return (words - words.mean(0)).square().sum(1).mean()


def fit_to_words(
    readout: Readout, words: Tensor, known: list[Features], targets: Tensor, steps: int = 400, batch: int = 512, sharpness: float = 10.0,
    lr: float = 2.4e-2, decay: float = 3.3, seed: int = 0,
) -> float:  # fmt: skip
    """Fit the read-out so that each region's embedding is closest to the word of its category.

    Args:
        words: [K, D] embeddings of the categories. targets: [N] categories of the boxes.
        known: features of the same boxes, seen in several ways (as they are, mirrored).
        sharpness: of the classification by squared distance, in units of the words' own spread.
        lr, decay: learning rate and weight decay (AdamW).
    Returns:
        The last step's loss.
    """
    torch.manual_seed(seed)
    readout.requires_grad_(True).train()
    groups = [
        {"params": [readout.content.weight], "weight_decay": decay},
        {"params": [readout.content.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    unit = spread(words)
    for step in range(steps):
        rows, seen = torch.randint(len(targets), (batch,)), known[step % len(known)]
        distances = torch.cdist(readout(seen.cells[rows]), words).square() / unit
        loss = F.cross_entropy(-sharpness * distances, targets[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    readout.requires_grad_(False).eval()
    return loss.item()


def unseen_embeddings(
    config, words: Tensor, known: list[Features], targets: Tensor, folds: int = 4, say=print, **options
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
        readout = Readout(config, words, some[0])
        fit_to_words(readout, words, some, targets[others], **options)
        with torch.no_grad():
            for way, each in zip(made, known, strict=True):
                way[own] = readout(each.cells[own])
    right = torch.cdist(made[0], words).argmin(1) == targets
    say(
        f"words: {right.float().mean():.1%} of the training boxes are nearest to their word when their pictures were not fitted on"
    )
    return made
