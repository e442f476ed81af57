"""Right and wrong answers to the checks of roilab.exercises.attributing."""

import numpy as np
import torch

METHODS = ("saliency", "input x gradient", "integrated gradients")


def three(saliency=(2, 1), product=(-2, -2), integrated=(-1, -1)) -> dict:
    return dict(zip(METHODS, (saliency, product, integrated)))


def autograd() -> dict:
    at = torch.tensor([1.0, -2.0])
    steps = torch.linspace(0, 1, 101)[:, None]
    points = (steps * at).requires_grad_()
    (slopes,) = torch.autograd.grad(points.prod(1).sum(), points)
    return three(slopes[-1].abs(), slopes[-1] * at, slopes.mean(0) * at)


ANSWERS = {
    "three_methods": (
        [
            three(),
            [(2, 1), (-2, -2), (-1, -1)],
            three(np.array([2, 1]), torch.tensor([-2, -2]), [-1.0, -1.0]),
            autograd(),
        ],
        [
            three(saliency=(-2, 1)),
            three(saliency=(1, 2)),
            three(saliency=(2, 2)),
            three(saliency=(0, 0)),
            three(saliency=(3, 1)),
            three(product=(2, 2)),
            three(product=(-2, 1)),
            three(product=(2, -2)),
            three(product=(-1, -1)),
            three(product=(0, 0)),
            three(integrated=(-2, -2)),
            three(integrated=(-1, 0.5)),
            three(integrated=(0, -2)),
            three(integrated=(-2, 0)),
            three(integrated=(1, 1)),
            three(integrated=(-2 / 3, -2 / 3)),
            three(integrated=(3, 4)),
            {"saliency": (2, 1)},
            three(integrated="none"),
        ],
    ),
    "riemann_gap": (
        [(-2.75, -0.125), [-2.75, -0.125], np.array([-2.75, -0.125]), torch.tensor([5.25, 7.875]) - 8],
        [
            (5.25, 7.875),
            (2.75, 0.125),
            (-0.125, -2.75),
            (3.25, -0.125),
            (2.625 - 8, 3.9375 - 8),
            (13, 23.5),
            (-2.75 / 8, -0.125 / 8),
            (1.75 - 8, 2.625 - 8),
            (1, 2),
            (0, 0),
            -2.75,
            "left",
        ],
    ),
    "black_object": (
        [(0, 1.6, 4), {"black": 0, "mean": 1.6, "white": 4}, np.array([0, 1.6, 4]), 4 * torch.tensor([0, 0.4, 1])],
        [
            (0, 0, 0),
            (0, -1.6, -4),
            (0, -0.8, -2),
            (-4, -4, -4),
            (4, 4, 4),
            (0.5, 1.9, 4),
            (0.5, 0.3, 0),
            (0, 0.8, 2),
            (0, 1.2, 3),
            (4, 1.6, 0),
            (1, 2, 3),
            {"black": 0, "white": 4},
            "black",
        ],
    ),
    "shapley": (
        [(3.5, 3.5, 2), {"A": 3.5, "B": 3.5, "C": 2}, np.array([3.5, 3.5, 2]), torch.tensor([21, 21, 12]) / 6],
        [
            (0, 0, 3),
            (6, 6, 0),
            (3, 3, 3),
            (21, 21, 12),
            (3.75, 3.75, 2.25),
            (2, 3.5, 3.5),
            (6, 0, 3),
            (0, 6, 3),
            (9, 0, 0),
            (0, 9, 0),
            (1, 1, 7),
            {"A": 3.5, "B": 3.5},
            "A",
        ],
    ),
}
