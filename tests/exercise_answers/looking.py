"""Right and wrong answers to the exercises of notebooks/06_attention."""

import numpy as np
import torch

from roilab.exercises.looking import ATTENTION, FOUND, GRADIENT, HEADS, LAYERS, PAID, RELEVANCE


def attention_without_sink():
    """Exercise 1 as `attention_map(sinks=False)` does it."""
    weights = torch.tensor(HEADS)
    weights[..., 0] = 0
    weights /= weights.sum(-1, keepdim=True)
    image, region, question = weights.mean(0)[1:].split([2, 1, 2])
    return [image.sum().item(), region.sum().item(), question.sum().item()]


def rolled_out():
    product = np.eye(3)
    for layer in LAYERS:
        product = (np.array(layer) + np.eye(3)) / 2 @ product
    return product[-1]


def relevance_after():
    matters = (torch.tensor(GRADIENT) * torch.tensor(ATTENTION)).clamp_min(0).mean(0)
    before = torch.tensor(RELEVANCE)
    return (before[-1] + matters @ before).tolist()


def changes():
    """Exercise 4 by the softmax itself."""
    logits, found = torch.tensor(PAID).log(), torch.tensor(FOUND)
    before, after = logits.softmax(0) @ found, []
    for key in range(3):
        cut = logits.clone()
        cut[key] = float("-inf")
        after.append((cut.softmax(0) @ found - before).item())
    return after


# name of the check: (right answers, wrong answers)
ANSWERS = {
    "without_sink": (
        [(0.45, 0.2, 0.35), [0.45, 0.2, 0.35], np.array([0.45, 0.2, 0.35]), attention_without_sink()],
        [
            (0.15, 0.1, 0.1),
            (0.4286, 0.2857, 0.2857),
            (0.9, 0.4, 0.7),
            (0.225, 0.2, 0.175),
            (0.41, 0.23, 0.36),
            (0.4, 0.4, 0.2),
            (0.5, 0.0, 0.5),
            (0.2, 0.45, 0.35),
            (45, 20, 35),
            (0.4, 0.3, 0.3),
            [0.65, 0.15, 0.1, 0.1],
        ],
    ),
    "rollout_by_hand": (
        [(0.13, 0.31, 0.56), rolled_out(), torch.tensor([0.13, 0.31, 0.56]), [[0.13], [0.31], [0.56]]],
        [
            (0.16, 0.28, 0.56),
            (0.32, 0.44, 0.24),
            (0.52, 1.24, 2.24),
            (0.16, 0.22, 0.62),
            (0.1, 0.4, 0.5),
            (0, 0.2, 0.8),
            (0, 0.4, 0.6),
            (0.1, 0.2, 0.7),
            (0, 0.04, 0.56),
            (0, 0, 0.56),
            (0.475, 0.525, 0),
            (1 / 3, 1 / 3, 1 / 3),
        ],
    ),
    "relevance_step": (
        [(0.31, 0.83, 1.1), relevance_after(), np.array([0.31, 0.83, 1.1])],
        [
            (0.05, 0.53, 1.1),
            (0.15, 0.53, 1.1),
            (0.52, 1.36, 1.2),
            (0.21, 0.53, 0.1),
            (0.2, 0.8, 1.1),
            (0.1, 0.5, 0.1),
            (0.555, 0.775, 1.25),
            (0.97, 1.81, 2.7),
            (0.32, 0.36, 1.2),
            (0.3, 1.3, 1.0),
            (0.57, 1.13, 1.1),
            (0.31, 0.83, 0.1),
            (1, 1, 1),
        ],
    ),
    "cut_keys": (
        [(0, 0.4286, -0.3333), changes(), [0, 3 / 7, -1 / 3], np.array([0, 0.429, -0.333])],
        [
            (-1.2, -0.3, -0.5),
            (1.2, 0.3, 0.5),
            (2, 2.4286, 1.6667),
            (0, -0.4286, 0.3333),
            (0, 0.4286, 0.3333),
            (0.6, 0.3, 0.1),
            (0.6, 0.75, -0.35),
            (0, 21.43, -16.67),
            (0, 0.2143, -0.1667),
            (1, 1, 1),
        ],
    ),
}
