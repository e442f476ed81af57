"""What methods give back: a score for every position of a target, with everything that is needed to know how it came about."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from ..files import write_whole
from .target import IMAGE, Target


class Result:
    """What a method gives back, a dataclass: it can be looked at as numbers (`to_dict`) and kept as JSON (`save`).

    Attributes:
        also: names of properties that `to_dict` tells beside the fields.
    """

    also: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        """All fields as numbers, texts, lists and dicts, for JSON; of the target everything but the picture."""
        return {name: _plain(getattr(self, name)) for name in (*(each.name for each in fields(self)), *self.also)}

    def save(self, path):
        """`to_dict` as JSON."""
        write_whole(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n")


def _plain(value):
    if isinstance(value, Result | Target):
        return value.to_dict()
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return value


@dataclass
class Scores(Result):
    """How much each position, or each pixel, had to do with a target, by one method.

    Attributes:
        method: its name.
        target: what was explained.
        positions: [T] float32, 0 where the method says nothing; or None, if it scores pixels alone.
        grid: (rows, columns) of the patches.
        pixels: [H, W] float32 scores of the pixels of the preprocessed picture, which shows the whole target's picture; or None.
        settings: the method's arguments, seeds and what it found out about itself (completeness gap, memory, ...).
        origin: model, dtype and attention implementation; see `origin`.
    """

    method: str
    target: Target
    positions: Tensor | None = field(repr=False)
    grid: tuple[int, int] = field(repr=False, default=(0, 0))
    pixels: Tensor | None = field(repr=False, default=None)
    settings: dict = field(default_factory=dict)
    origin: dict = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, float]:
        """Sum of the scores per part of the sequence."""
        return self.target.sum_by_part(self._scored())

    @property
    def regions(self) -> dict[int, float]:
        """Score of every region token, by its number."""
        scores = self._scored()[self.target.positions("regions")]
        return dict(zip(self.target.regions, scores.tolist(), strict=True))

    @property
    def image(self) -> Tensor:
        """[rows, columns] scores of the image tokens, as they lie in the picture."""
        return self._scored()[self.target.positions(IMAGE)].reshape(self.grid)

    @property
    def text(self) -> list[tuple[str, float]]:
        """Text tokens in order and their scores."""
        return [(self.target.tokens[i], self._scored()[i].item()) for i in self.target.positions("text").tolist()]

    @property
    def map(self) -> Tensor:
        """What the method says about the picture: [H, W] of pixels, or of patches."""
        return self.image if self.pixels is None else self.pixels

    def to_dict(self) -> dict:
        """All fields, and the sequence's tokens and parts, for JSON."""
        return super().to_dict() | {"tokens": self.target.tokens, "token_parts": self.target.parts}

    def plot(self, **kwargs):
        """A figure; see `roilab.plotting.show_scores`."""
        from ..plotting import show_scores

        return show_scores(self, **kwargs)

    def _scored(self) -> Tensor:
        if self.positions is None:
            raise ValueError(f"{self.method} scored pixels, not positions")
        return self.positions


def origin(model) -> dict:
    """What a result should say about the model: its name, size, dtype and the attention implementation of its language model."""
    return {
        "model": Path(model.name_or_path).name or type(model).__name__,
        "parameters": sum(each.numel() for each in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.language_model.config._attn_implementation,
    }


def scored(target: Target, found: dict[str, Tensor]) -> Tensor:
    """[T] scores from those of named parts (see `Target.positions`), 0 elsewhere."""
    scores = torch.zeros(len(target.ids))
    for name, values in found.items():
        scores[target.positions(name)] = values.detach().float().cpu().flatten()
    return scores
