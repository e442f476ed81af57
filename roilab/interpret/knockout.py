"""Attention knockout: edges from queries to keys are cut, and what happens to the target is measured.

After Geva et al. (arXiv 2304.14767) and, for pictures, Kaduri et al. (arXiv 2411.18620). Unlike an attention map this is an intervention: if
the target stays, what flowed along these edges, in these layers, was not needed. It cannot show that nothing of it arrives on other
ways: cut "later" instead of "answer" to close the detour through the words between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..regions import bounding_box, grid_mask
from .attending import Watch, attending, decoder_layers
from .passes import prepare, score, splice
from .results import Result, origin
from .target import IMAGE, Target


@dataclass
class Knockout(Result):
    """What cutting edges did.

    Attributes:
        target, keys, queries, layers: what was cut: from these queries to these keys, in these layers.
        edges: how many edges per layer.
        score, cut: the target's score, and that without the edges.
        control: scores without as many random edges of the same queries.
        origin: model, dtype and attention implementation.
    """

    also = ("drop", "control_drop")

    target: Target
    keys: str
    queries: str
    layers: list[int]
    edges: int
    score: float
    cut: float
    control: list[float]
    origin: dict = field(default_factory=dict)

    @property
    def drop(self) -> float:
        """By how much cutting lowers the target's log-probability."""
        return self.score - self.cut

    @property
    def control_drop(self) -> float:
        """The same for random edges, on average; nan without control."""
        return self.score - sum(self.control) / len(self.control) if self.control else float("nan")

    def plot(self):
        """A figure; see `roilab.plotting.show_bars`."""
        from ..plotting import show_bars

        found = {f"{self.queries} -> {self.keys}": self.drop, "random edges": self.control_drop}
        title = f"layers {', '.join(map(str, self.layers))}: {self.edges} edges cut in each"
        return show_bars(found, title, f"{self.target.question} {self.target.answer}", "loss of log-probability")

    def __str__(self) -> str:
        drops = f"{self.drop:.2f}" + (f" (random edges: {self.control_drop:.2f})" if self.control else "")
        return (
            f"without {self.queries} -> {self.keys} in layers {self.layers} the answer loses {drops} of log-probability"
        )


@torch.no_grad()
def attention_knockout(
    model,
    explained: Target,
    keys: str | list[int],
    queries: str | list[int] = "answer",
    layers: list[int] | None = None,
    controls: int = 10,
    seed: int = 0,
) -> Knockout:
    """Cuts the attention of queries to keys in some layers. Position ids stay.

    Args:
        keys: a part of the sequence ("region1", "image", "question", "regions", ...), "inside region1" for the image tokens within that
            region, or positions.
        queries: "answer" (the positions that predict its chosen tokens), "later" (all positions behind the last key), or positions.
        layers: by default all.
        controls: how many times as many random edges of the same queries are cut instead (`seed`).
    Raises:
        ValueError: no such part, layer or position; no edge to cut; not as many other edges for the control.
    """
    layers = list(range(len(decoder_layers(model)))) if layers is None else list(layers)
    if not layers:
        raise ValueError("0 layers to cut in, expected at least 1")
    columns = key_positions(model, explained, keys)
    rows = query_positions(explained, queries, columns)
    cut = edges(len(explained.ids), rows, columns)
    count = int(cut.sum())
    if not count:
        raise ValueError(
            f"no edge from {queries} to {keys}: queries {rows[:5]}, keys {columns[:5]} (a position cannot look ahead)"
        )
    generator = torch.Generator().manual_seed(seed)
    cuts = torch.stack([cut, *(random_edges(cut, rows, generator) for _ in range(controls))])
    embeds = splice(model, prepare(model, explained))
    whole = score(model, embeds, explained).item()
    found = []
    for part in cuts.split(16):
        with attending(model, {layer: Watch(cut=part) for layer in layers}):
            found += score(model, embeds.expand(len(part), -1, -1), explained).tolist()
    return Knockout(explained, str(keys), str(queries), layers, count, whole, found[0], found[1:], origin(model))


def knockout_by_layer(
    model, explained: Target, keys, queries="answer", width: int | None = None, **kwargs
) -> list[Knockout]:
    """`attention_knockout` in a window of layers around every layer, first to last.

    Args:
        width: layers in a window; by default a fifth of all, at least one.
        kwargs: of `attention_knockout`.
    """
    count = len(decoder_layers(model))
    width = max(1, count // 5) if width is None else width
    windows = [
        [layer for layer in range(at - (width - 1) // 2, at + width // 2 + 1) if 0 <= layer < count]
        for at in range(count)
    ]
    return [attention_knockout(model, explained, keys, queries, layers, **kwargs) for layers in windows]


def key_positions(model, explained: Target, keys: str | list[int]) -> list[int]:
    """Positions that `attention_knockout` takes as keys.

    Raises:
        ValueError: no such part or position.
    """
    if isinstance(keys, str):
        if region := re.fullmatch(r"inside region(\d{1,9})", keys):
            return patches_inside(model, explained, int(region[1]))
        return explained.positions(keys).tolist()
    return explained.check_positions(keys)


def query_positions(explained: Target, queries: str | list[int], columns: list[int]) -> list[int]:
    """Positions that `attention_knockout` takes as queries; `columns` are the keys."""
    if queries == "answer":
        return explained.predicting
    if queries == "later":
        return list(range(max(columns) + 1, len(explained.ids)))
    if isinstance(queries, str):
        return explained.positions(queries).tolist()
    return explained.check_positions(queries)


def patches_inside(model, explained: Target, region: int) -> list[int]:
    """Positions of the image tokens whose patch has its middle in the region; at least the one under its box's middle."""
    (rows, columns), (width, height) = model.vision.grid, explained.image.size
    shape = explained.shapes[explained.index(region)]
    inside = grid_mask(shape, (width, height), (rows, columns))
    x1, y1, x2, y2 = bounding_box(shape)
    row, column = int((y1 + y2) / 2 * rows / height), int((x1 + x2) / 2 * columns / width)
    inside[min(row, rows - 1), min(column, columns - 1)] = True
    return explained.positions(IMAGE).reshape(rows, columns)[inside].tolist()


def edges(length: int, rows: list[int], columns: list[int]) -> Tensor:
    """[T, T] bool: the edges from these queries to these keys that exist; a position keeps itself."""
    cut = torch.zeros(length, length, dtype=torch.bool)
    cut[torch.tensor(rows)[:, None], torch.tensor(columns)] = True
    return cut.tril(-1)


def random_edges(cut: Tensor, rows: list[int], generator: torch.Generator) -> Tensor:
    """As many edges per query as in `cut` [T, T], none of them in it.

    Raises:
        ValueError: a query has not as many others.
    """
    other = torch.zeros_like(cut)
    for row in set(rows):
        wanted = int(cut[row].sum())
        free = (~cut[row, :row]).nonzero().flatten()
        if len(free) < wanted:
            raise ValueError(
                f"{wanted} edges are cut at position {row}, but it has only {len(free)} others for the control: pass controls=0"
            )
        other[row, free[torch.randperm(len(free), generator=generator)[:wanted]]] = True
    return other
