"""Right and wrong answers to the exercises of notebooks/08_interventions."""

import numpy as np
import torch


def control(cut, generator):
    other = torch.zeros_like(cut)
    for query in cut.any(1).nonzero().flatten().tolist():
        free = [key for key in range(query) if not cut[query, key]]
        order = torch.randperm(len(free), generator=generator)[: int(cut[query].sum())]
        other[query, [free[i] for i in order]] = True
    return other


def control_by_sorting(cut, generator):
    """Random numbers on the free edges; those with the largest are cut."""
    noise = torch.rand(cut.shape, generator=generator) * torch.ones_like(cut).tril(-1) * ~cut
    rank = noise.argsort(1, descending=True).argsort(1)
    return (rank < cut.sum(1, keepdim=True)).int().tolist()


def control_of(choose):
    """A control whose keys `choose(query, cut, generator)` gives."""

    def wrong(cut, generator):
        other = torch.zeros_like(cut)
        for query in cut.any(1).nonzero().flatten().tolist():
            other[query, choose(query, cut, generator)] = True
        return other

    return wrong


def control_in_all(cut, generator):
    """As many edges in all, of the same queries, wherever they are."""
    free = (torch.ones_like(cut).tril(-1) & ~cut & cut.any(1)[:, None]).nonzero()
    other = torch.zeros_like(cut)
    for query, key in free[torch.randperm(len(free), generator=generator)[: int(cut.sum())]].tolist():
        other[query, key] = True
    return other


def free(query, cut):
    return [key for key in range(query) if not cut[query, key]]


def drawn(keys, count, generator):
    keys = list(keys)
    return [keys[i] for i in torch.randperm(len(keys), generator=generator)[: int(count)]]


RIGHT = {"A": "positions", "B": "swaps", "C": "text", "D": "healthy", "E": "order"}

# name of the check: (right answers, wrong answers)
ANSWERS = {
    "verdicts": (
        [["token", "picture", "text", "both"], ("Token", "picture ", "TEXT", "both")],
        [
            ["text", "picture", "text", "both"],
            ["token", "both", "both", "both"],
            ["token", "picture", "both", "both"],
            ["token", "picture", "text", "token"],
            ["picture", "token", "text", "both"],
            ["token", "picture", "picture", "both"],
            ["both", "picture", "text", "both"],
            ["token", "picture", "text"],
            ["token", "picture", "text", "neither"],
        ],
    ),
    "defects": (
        [RIGHT, {letter: RIGHT[letter].upper() for letter in reversed(RIGHT)}],
        [
            RIGHT | {"A": "text", "C": "positions"},
            RIGHT | {"A": "swaps", "B": "positions"},
            RIGHT | {"B": "healthy", "D": "swaps"},
            RIGHT | {"B": "order", "E": "swaps"},
            RIGHT | {"D": "order", "E": "healthy"},
            RIGHT | {"C": "order", "E": "text"},
            RIGHT | {"C": "healthy", "D": "text"},
            {"A": "positions"},
            RIGHT | {"C": "nothing"},
        ],
    ),
    "control": (
        [control, control_by_sorting, lambda cut, generator: control(cut, generator).numpy()],
        [
            control_of(lambda query, cut, generator: drawn(range(len(cut)), cut[query].sum(), generator)),
            control_of(lambda query, cut, generator: drawn([query, 0], 1, generator)),
            control_of(lambda query, cut, generator: drawn(range(query), cut[query].sum(), generator)),
            lambda cut, generator: cut.roll(-2, 0) & ~cut,
            control_of(lambda query, cut, generator: free(query, cut)),
            control_in_all,
            control_of(lambda query, cut, generator: free(query, cut)[: int(cut[query].sum())]),
            control_of(
                lambda query, cut, generator: np.random.permutation(free(query, cut))[: int(cut[query].sum())].tolist()
            ),
            control_of(lambda query, cut, generator: drawn(free(query, cut)[1:], cut[query].sum(), generator)),
            lambda cut, generator: torch.zeros_like(cut),
            lambda cut, generator: control(cut, generator) * 0.5,
            lambda cut, generator: control(cut, generator)[8:11],
            lambda cut, generator: None,
            torch.zeros(12, 12),
        ],
    ),
    "circuits": (
        [[[0, 1], [1, 0], [0, 0]], (0, 1, 1, 0, 0, 0), torch.tensor([[0, 1], [1, 0], [0, 0]]), np.eye(3)[[1, 0, 2], :2]],
        [
            [[1, 0], [0, 1], [0, 0]],
            [[0, 1], [1, 0], [0, 1]],
            [[0, 1], [1, 0], [1, 0]],
            [[0, 1], [1, 0], [1, 1]],
            [[1, 1], [1, 1], [1, 1]],
            [[0, 0], [1, 1], [0, 0]],
            [[1, 0], [0, 1], [1, 0]],
            [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]],
            [[0, 1], [0, 0], [0, 0]],
            [[0, 1], [1, 0]],
        ],
    ),
}  # fmt: skip
