"""Exercises of notebooks/05_evaluation: VCR's three numbers, two ways to choose by likelihood, an interval, one bootstrap sample."""

import math
import operator
import random
from collections import Counter

from .checking import Wrong, call, check, compare, numbers

ANSWERS, RATIONALES = (1, 1, 0, 1, 0), (1, 0, 1, 1, 0)  # of five VCR items: 1 is right
CHOICES = (  # log-probabilities of the tokens of four answers
    (-0.9, -0.7, -0.8, -0.7, -0.9),
    (-0.2, -1.5, -2.0, -1.1, -0.9, -1.8, -1.2),
    (-1.0, -1.2, -0.8),
    (-4.0, -0.1),
)
RIGHT, ASKED = 80, 100
GROUPS = ("a", "a", "b", "c", "c", "c", "d", "b", "e", "c")  # the record of each answer
DRAWS = 400


@check
def three_numbers(answer):
    """(Q->A, QA->R, Q->AR) in % of the items of ANSWERS and RATIONALES."""
    both = [right and reason for right, reason in zip(ANSWERS, RATIONALES)]
    compare(
        numbers(answer, (3,)),
        [100 * sum(each) / len(each) for each in (ANSWERS, RATIONALES, both)],
        {
            "those are shares: multiply by 100 for percent": (0.6, 0.6, 0.4),
            "those are numbers of items: percent of the five are asked for": (3, 3, 2),
            "Q->AR is no product: it multiplies only where answers and rationales have nothing to do with each other": (60, 60, 36),
            "Q->AR counts the items where both are right: not the smaller of the two numbers, not their mean, and not those where "
            "both are wrong": (60, 60, 60),
            "QA->R was counted only where the model's answer was right: the rationale is asked for with the right answer given, "
            "so all five count": (60, 200 / 3, 40),
            "Q->AR was counted only where the answer was right: it is a share of all five items": (60, 60, 200 / 3),
            "Q->AR counts the items where both are right, not those where at least one is": (60, 60, 80),
        },
        "go through the five items one by one: is the answer right, is the rationale, are both?",
        tolerance=6e-3,
    )  # fmt: skip
    return "with four choices each, chance is 25, 25 and 6.25"


@check
def by_likelihood(answer):
    """(choice by the sum, choice by the mean per token) of CHOICES, 0 to 3."""
    sums, means = [sum(each) for each in CHOICES], [sum(each) / len(each) for each in CHOICES]
    compare(
        numbers(answer, (2,)),
        (sums.index(max(sums)), means.index(max(means))),
        {
            "the choices are right but swapped: the one by the sum comes first": (0, 2),
            "that is the choice by the sum twice: divide each sum by its number of tokens": (2, 2),
            "that is the choice by the mean twice: a sum is larger (less negative) where there are fewer tokens": (0, 0),
            "the choices are counted from 1: the first is number 0": (3, 1),
            "those are the least probable: of negative numbers, the one nearest to 0 is the largest": (1, 3),
            "that is the best first token: all tokens of an answer count": (1, 1),
            "that is the best last token, and the shortest answer: all tokens of an answer count": (3, 3),
            "the sum does not just take the shortest answer: add up what its tokens cost": (3, 0),
            "the mean does not just take the longest answer: divide the sum by the number of tokens": (2, 1),
            "that is the mean of the probabilities: a mean per token is one of log-probabilities": (2, 3),
        },
        "add up each list and, for the second number, divide by its length; the largest is chosen",
    )  # fmt: skip
    return "the sum prefers short answers, the mean is kinder to long ones; say which one was taken"


@check
def interval(answer):
    """Half the width, in points, of a 95 % interval of RIGHT of ASKED by the normal approximation."""
    if isinstance(answer, (list, tuple)) and len(answer) == 2:
        raise Wrong("those are two numbers, the ends of an interval perhaps: how far is one of them from its middle?")
    p = RIGHT / ASKED
    error = 100 * math.sqrt(p * (1 - p) / ASKED)
    compare(
        numbers(answer, ()),
        1.96 * error,
        {
            "that is the standard error: 95 % of a normal distribution lie within 1.96 of them": error,
            "that is the full width: half of it is asked for": 2 * 1.96 * error,
            "that is a 90 % interval: 1.645 belongs to 90 %, and more to 95 %": 1.645 * error,
            "that is a 99 % interval: 2.576 belongs to 99 %, and less to 95 %": 2.576 * error,
            "that is two standard errors, the rule of thumb: be a little more exact": 2 * error,
            "the root is missing: an error is the root of a variance": 1.96 * error**2 / 100,
            "p (1 - p) is the variance of one answer: the mean of 100 varies less": 1.96 * 100 * math.sqrt(p * (1 - p)),
            "the number of answers is in the wrong place: under the root, it divides p (1 - p)": 1.96 * math.sqrt(p * (1 - p)),
            "the share is taken for the variance: it is p (1 - p)": 1.96 * 100 * math.sqrt(p / ASKED),
            "that is a share: points are percent": 1.96 * error / 100,
            "that is the standard error, and as a share: points are percent, and 95 % lie within 1.96 errors": error / 100,
            "that is a variance: take its root, then 1.96 of it": error**2,
            "that is a variance, of shares: take its root, then 1.96 of it, in points": error**2 / 1e4,
        },
        "take the variance p (1 - p) of one answer, then the error of the mean of 100, then how many errors hold 95 %",
        tolerance=6e-3,
    )  # fmt: skip
    return "two models that are 5 points apart on 100 questions may be equally good"


@check
def resampled(answer):
    """A function (groups, rng) -> the indices of one bootstrap sample, in which whole records are drawn with replacement."""

    def drawn(seeds: int) -> list[Counter]:
        return [_times(call(answer, list(GROUPS), random.Random(seed))) for seed in range(seeds)]

    samples = drawn(DRAWS)
    if any(len({each[i] for i in _places(name)}) > 1 for each in samples for name in GROUPS):
        if all(each.total() == len(GROUPS) for each in samples):
            raise Wrong(
                "answers were drawn one by one: those of a record are not independent of each other, so draw records"
            )
        raise Wrong("a record comes in parts: take all its answers, wherever in `groups` they stand")
    draws = [{name: each[_places(name)[0]] for name in GROUPS} for each in samples]  # how often each record was drawn
    records, totals = len(set(GROUPS)), {sum(draw.values()) for draw in draws}
    if totals == {0}:
        raise Wrong("the samples are empty")
    if totals == {1}:
        raise Wrong("one record is no sample: as many are drawn as there are")
    if max(max(draw.values()) for draw in draws) == 1:
        if totals == {records}:
            raise Wrong("every record comes once: with replacement, one may come again and another not at all")
        raise Wrong("no record ever comes twice: one that was drawn twice puts its answers into the sample twice")
    if all(draw == draws[0] for draw in draws):
        raise Wrong("every sample is the same: draw with `rng`, which is another one each time")
    if drawn(20) != samples[:20]:
        raise Wrong(
            "the same `rng` gives different samples: take all chance from it, or nobody can repeat your interval"
        )
    if totals == {len(GROUPS)}:
        raise Wrong("as many records were drawn as there are answers: draw as many as there are records")
    if totals != {records}:
        raise Wrong(
            f"there are {records} records, and a sample of yours has {max(totals - {records})}: draw as many as there are"
        )
    if all(max(draw.values()) == records for draw in draws):
        raise Wrong("a sample repeats one record: draw anew for each place in it")
    mean = {name: sum(draw[name] for draw in draws) / DRAWS for name in draws[0]}
    if never := [name for name in mean if not mean[name]]:
        raise Wrong(f"record {never[0]!r} was never drawn in {DRAWS} samples: is one end of the list left out?")
    # Once per sample on average; by chance 0.05 more or less, so that five times that is no chance.
    if max(abs(each - 1) for each in mean.values()) > 0.25:
        raise Wrong("some records come more often than others: each has the same chance, however many answers it has")
    return "1000 of these, the accuracy of each, and the middle 95 % of them are the interval"


def _places(name: str) -> list[int]:
    return [i for i, group in enumerate(GROUPS) if group == name]


def _times(sample) -> Counter:
    """How often each index comes in a sample."""
    try:
        values = list(sample.tolist() if hasattr(sample, "tolist") else sample)
    except TypeError:
        raise Wrong("your function should return a list of indices") from None
    if any(isinstance(each, str) for each in values):
        raise Wrong("those are names of records: return the indices of their answers, the places in `groups`")
    if any(isinstance(each, (list, tuple, range)) for each in values):
        raise Wrong("your list holds lists: put the indices of all records that were drawn into one")
    try:
        times = Counter(operator.index(each) for each in values)
    except TypeError:
        raise Wrong("indices are whole numbers, places in `groups`") from None
    if outside := set(times) - set(range(len(GROUPS))):
        raise Wrong(f"index {min(outside)} is outside of `groups`, whose places are 0 to {len(GROUPS) - 1} here")
    return times
