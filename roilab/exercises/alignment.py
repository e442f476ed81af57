"""Exercises of notebooks/03_stage1: what learns and what it costs, the loss of guessing, the nearest word."""

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor

from .checking import Wrong, call, check, compare, numbers

MODULES = ("vision", "projector", "region_encoder", "language_model")
REGION_ENCODER, PROJECTOR, LANGUAGE_MODEL = 0.299e9, 0.004e9, 6.74e9  # parameters at paper scale


@check
def learning(answer):
    """The modules whose weights hold gradients after one backward pass of stage 1."""
    try:
        if isinstance(answer, dict):
            raise TypeError
        found = {str(each).strip() for each in ([answer] if isinstance(answer, str) else answer)}
    except TypeError:
        raise Wrong('expected a set of names, such as {"vision", "projector"}') from None
    if unknown := found - set(MODULES):
        raise Wrong(f"the model has no module {min(unknown)!r}; it has {', '.join(MODULES)}")
    if not found:
        raise Wrong("one of them has to learn, or stage 1 would change nothing")
    if found == set(MODULES):
        raise Wrong("nothing is frozen in your answer; in stage 1 nearly everything is")
    if found == set(MODULES) - {"vision"}:
        raise Wrong("that is stage 2, where the rest learns to talk about what stage 1 has made ready")
    if "region_encoder" not in found:
        raise Wrong("all of yours is frozen in stage 1, and the module that learns is missing: which one is new?")
    if "language_model" in found:
        raise Wrong(
            "gradients flow *through* the language model, to what was put into it; for its own frozen weights none is kept"
        )
    if "projector" in found:
        raise Wrong("the projector, which maps the patches of the whole picture, is frozen until stage 2")
    if "vision" in found:
        raise Wrong("the vision tower is frozen in both stages: the way back ends where its features are read")
    return "the language model is the road that gradients take, and stays as it is"


@check
def memory(answer):
    """(stage 1, stage 2): GB of the gradients and AdamW's two moments at paper scale."""
    first, second = REGION_ENCODER, REGION_ENCODER + PROJECTOR + LANGUAGE_MODEL
    right = torch.tensor([first, second], dtype=torch.float64) * 12 / 1e9
    # As shares of the right numbers, so that the small one is judged as closely as the large one.
    compare(
        numbers(answer, (2,)) / right,
        (1, 1),
        {
            "that is one number per parameter: AdamW keeps two moments besides the gradient": (1 / 3, 1 / 3),
            "that is two numbers per parameter: one of the gradient and the two moments is missing": (2 / 3, 2 / 3),
            "that counts the weights too: running the model needs them as well, so they were not asked for": (4 / 3, 4 / 3),
            "those are bits: memory is counted in bytes of 8 bits": (8, 8),
            "those are GiB (2 ** 30 bytes), what most tools show: a GB has 1e9 bytes": (1e9 / 2**30, 1e9 / 2**30),
            "those are bytes: a GB has 1e9 of them": (1e9, 1e9),
            "those are MB: a GB has a thousand of them": (1e3, 1e3),
            "the numbers are right but swapped: stage 1 comes first": (second / first, first / second),
            "the language model learns in stage 2, and needs far more than all else": (1, (first + PROJECTOR) / second),
            "the region encoder goes on learning in stage 2: count it there as well": (1, 1 - first / second),
            "the projector is frozen in stage 1: count only what learns there": (1 + PROJECTOR / first, 1),
            "the same for both stages: what is frozen in stage 1 needs neither gradients nor moments": (second / first, 1),
        },
        "count the parameters that learn in each stage, then the numbers kept for each of them, then the bytes",
        tolerance=4e-3,
    )  # fmt: skip
    return "which is why stage 2, as published, is split over eight GPUs, and stage 1 need not be"


@check
def guessing(answer):
    """A function (counts) -> the mean loss in nats of a model that knows only how often each class is the answer."""
    for counts in ([60, 30, 10], [1, 2, 3, 14], [5, 0, 15]):
        try:
            found = numbers(call(answer, list(counts)), (), f"answer({counts})")
        except Wrong as wrong:
            if 0 in counts:
                raise Wrong(
                    f"a class that is never the answer costs nothing, but its log has no value: {wrong}"
                ) from wrong
            raise
        p = torch.tensor([each for each in counts if each], dtype=torch.float64) / sum(counts)
        right = float(-(p * p.log()).sum())
        compare(
            found,
            right,
            {
                "the sign is wrong: the log of a probability is at most 0, a loss at least 0": -right,
                "those are bits: a loss in nats has the natural log": right / math.log(2),
                "that is the log of the number of classes, the loss of a model that does not even know the frequencies": math.log(
                    len(counts)
                ),
                "every class weighs the same in your sum: a frequent class is the answer more often": -p.log().sum(),
                "that is a mean over the classes: a mean over the answers meets frequent classes more often": -p.log().mean(),
                "that is the perplexity, exp of the loss": math.exp(right),
                "that is the loss where the most frequent class is the answer: the others come as well": -p.max().log(),
                "that is the sum over all answers: the loss is their mean": right * sum(counts),
                "that is how often the best guess is wrong: the loss takes the log of a probability": 1 - p.max(),
            },
            f"answer({counts}) has another loss: with which probability is each class the answer, and what does it cost then?",
        )  # fmt: skip
    return "a loss that stays there means that the region's vector has told the language model nothing"


@check
def nearest(answer):
    """A function (vectors [N, D], words [V, D]) -> [N]: the index of the nearest word by cosine."""
    vectors, words = _vectors_and_words()
    cosines = _cosines(vectors, words)
    result = call(answer, vectors.clone(), words.clone())
    sides = getattr(result, "shape", None)
    if sides == cosines.shape:
        raise Wrong("those are the similarities: of each vector's, take the index of the best")
    if sides == cosines.shape[1:]:
        raise Wrong("that is one index per word: the best is taken over the wrong dimension")
    mistakes: dict[str, Tensor] = {
        "that is the largest dot product: a long word wins by its length there": (vectors @ words.T).argmax(1),
        "that is the smallest distance: a short word wins by its length there, and a cosine asks for the direction": torch.cdist(
            vectors, words
        ).argmin(1),
        "that is the farthest word: the larger a cosine, the nearer": cosines.argmin(1),
        "all vectors were centred first: how near one is to a word then depends on the others": _cosines(
            vectors - vectors.mean(0), words
        ).argmax(1),
        "vectors and words were centred first: that asks about their differences, not about their directions": _cosines(
            vectors - vectors.mean(0), words - words.mean(0)
        ).argmax(1),
        "the lengths were taken over the wrong dimension: each row is divided by its own": _cosines(
            vectors, words, 0
        ).argmax(1),
        "the absolute value was taken: a word in the opposite direction is far away": cosines.abs().argmax(1),
        "the indices are counted from 1": cosines.argmax(1) + 1,
    }  # fmt: skip
    compare(
        numbers(result, (len(vectors),), "what your function returns"),
        cosines.argmax(1),
        mistakes,
        "other words are nearest: a cosine is the dot product of two vectors of length 1",
        tolerance=0,
    )
    return "whatever the lengths of the vectors: words differ in theirs, and that says little about their meaning"


def _cosines(vectors: Tensor, words: Tensor, dimension: int = 1) -> Tensor:
    return F.normalize(vectors, dim=dimension) @ F.normalize(words, dim=dimension).T


def _vectors_and_words() -> tuple[Tensor, Tensor]:
    """[24, 6] and [9, 6]: of unlike lengths and off the middle, so that every other notion of near finds other words."""
    rng = random.Random(0)

    def rows(lengths) -> Tensor:
        directions = torch.tensor([[rng.gauss(0.4, 1) for _ in range(6)] for _ in lengths])
        return F.normalize(directions, dim=1) * torch.tensor(lengths)[:, None]

    return rows([0.5, 1.0, 2.0, 4.0] * 6), rows([0.3, 3.0, 0.5, 2.0, 0.4, 1.5, 1.0, 2.5, 0.7])
