"""Right and wrong answers to the checks of roilab.exercises.alignment."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def entropy(counts):
    shares = [count / sum(counts) for count in counts if count]
    return -sum(share * math.log(share) for share in shares)


def shares(counts):
    return torch.tensor([count for count in counts if count]) / sum(counts)


def cosines(vectors, words):
    return F.normalize(vectors, dim=1) @ F.normalize(words, dim=1).T


def nearest_in_numpy(vectors, words):
    vectors, words = np.asarray(vectors), np.asarray(words)
    return (vectors @ (words / np.linalg.norm(words, axis=1, keepdims=True)).T).argmax(axis=1)


def nearest_one_at_a_time(vectors, words):
    return [int(F.cosine_similarity(vector[None], words).argmax()) for vector in vectors]


ANSWERS = {
    "learning": (
        [{"region_encoder"}, ["region_encoder"], ("region_encoder",), "region_encoder"],
        [
            {"region_encoder", "language_model"},
            {"region_encoder", "projector"},
            ["vision", "region_encoder"],
            {"language_model"},
            ("vision", "projector", "region_encoder", "language_model"),
            ("projector", "region_encoder", "language_model"),
            set(),
            {"encoder"},
            {"region_encoder": True, "vision": False},
        ],
    ),
    "memory": (
        [(3.588, 84.516), [3.6, 84.5], (3.59, 84.52), np.array([0.299, 7.043]) * 12, torch.tensor([3.588, 84.516])],
        [
            (1.196, 28.172),
            (2.392, 56.344),
            (4.784, 112.688),
            (28.704, 676.128),
            (3.34, 78.71),
            (3.588e9, 84.516e9),
            (3588, 84516),
            (84.516, 3.588),
            (3.588, 3.636),
            (3.588, 80.88),
            (3.636, 84.516),
            (84.516, 84.516),
            (3.588, 90),
            3.588,
            "3.6 GB and 84.5 GB",
        ],
    ),
    "guessing": (
        [
            entropy,
            lambda counts: -(shares(counts) * shares(counts).log()).sum(),
            lambda counts: torch.distributions.Categorical(torch.tensor(counts) / sum(counts)).entropy(),
            lambda counts: np.array([-sum(c / sum(counts) * np.log(c / sum(counts)) for c in counts if c)]),
        ],
        [
            lambda counts: entropy(counts) / math.log(2),
            lambda counts: math.log(len(counts)),
            lambda counts: -shares(counts).log().sum(),
            lambda counts: -shares(counts).log().mean(),
            lambda counts: -entropy(counts),
            lambda counts: math.exp(entropy(counts)),
            lambda counts: -math.log(max(counts) / sum(counts)),
            lambda counts: entropy(counts) * sum(counts),
            lambda counts: 1 - max(counts) / sum(counts),
            lambda counts: -sum(count * math.log(count) for count in counts if count),
            # Right until a class never occurs: nan, and an error.
            lambda counts: -(torch.tensor(counts) / sum(counts) * (torch.tensor(counts) / sum(counts)).log()).sum(),
            lambda counts: -sum(count / sum(counts) * math.log(count / sum(counts)) for count in counts),
            lambda counts: shares(counts).log(),
            lambda counts: None,
            0.9,
        ],
    ),
    "nearest": (
        [lambda *given: cosines(*given).argmax(1), nearest_in_numpy, nearest_one_at_a_time],
        [
            lambda vectors, words: (vectors @ words.T).argmax(1),
            lambda vectors, words: torch.cdist(vectors, words).argmin(1),
            lambda *given: cosines(*given).argmin(1),
            lambda *given: cosines(*given).argmax(0),
            lambda *given: cosines(*given),
            lambda vectors, words: cosines(vectors - vectors.mean(0), words).argmax(1),
            lambda vectors, words: cosines(vectors - vectors.mean(0), words - words.mean(0)).argmax(1),
            lambda vectors, words: (F.normalize(vectors, dim=0) @ F.normalize(words, dim=0).T).argmax(1),
            lambda *given: cosines(*given).abs().argmax(1),
            lambda *given: cosines(*given).argmax(1) + 1,
            lambda *given: cosines(*given).argmax(),
            lambda vectors, words: [0] * len(vectors),
            lambda vectors, words: words,
        ],
    ),
}
