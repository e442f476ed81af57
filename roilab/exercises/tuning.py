"""Exercises of notebooks/04_stage2: the shares of a mixture, the loss of a step in pieces, the learning rate, what the boxes add."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .checking import Wrong, call, check, compare, numbers

RECORDS = {"refcocog": 2000, "vg": 2700, "vcr_full": 5700}
WEIGHTS = {"refcocog": 1, "vg": 0.5, "vcr_full": 2}  # how often a record comes per epoch
REGIONS, IMAGE_ONLY, TEXT_ONLY = 62, 40, 35  # accuracies in % on the same questions


@check
def shares(answer):
    """{name: share of the epoch, 0 to 1} of the mixture of RECORDS with WEIGHTS."""
    if not isinstance(answer, Mapping):
        raise Wrong(f"expected a dict, {{{', '.join(f'{name!r}: ...' for name in RECORDS)}}}")
    if set(answer) != set(RECORDS):
        raise Wrong(f"the data sets are {', '.join(RECORDS)}; yours are {', '.join(map(str, answer)) or 'none'}")
    records, weights = (torch.tensor([each[name] for name in RECORDS]).double() for each in (RECORDS, WEIGHTS))
    drawn = records * weights
    right = drawn / drawn.sum()
    compare(
        numbers([answer[name] for name in RECORDS], (len(RECORDS),), "the shares"),
        right,
        {
            "those are percent: a share lies between 0 and 1": 100 * right,
            "those are the weights' shares: a weight is for each record, and the data sets are not equally large": weights
            / weights.sum(),
            "those are the shares of what lies on disk: a weight says how often each record comes": records / records.sum(),
            "those are the records of an epoch: a share is a part of their sum": drawn,
            "divided by the records on disk, the shares make more than 1: divide by those of the epoch": drawn / records.sum(),
            "the weights act the wrong way round: with weight 2 a record comes twice": records
            / weights
            / (records / weights).sum(),
            "every data set has the same share there: their sizes and weights differ": [1 / 3] * 3,
        },
        "count the records of an epoch: each data set's, then all; a record with weight 2 comes twice",
        tolerance=6e-3,
    )  # fmt: skip
    return "one data set takes three quarters of the epoch: sizes and weights decide together"


@check
def step_loss(answer):
    """The loss of a step in two pieces: 10 learned tokens with mean loss 2.0, 30 with mean loss 1.0."""
    compare(
        numbers(answer, ()),
        1.25,
        {
            "that is the mean of the two means: a token of the short piece counts three times as much there": 1.5,
            "that is the sum of the two means: with more pieces the loss would grow": 3.0,
            "that is the sum over the tokens: a mean is asked for": 50,
            "each mean has the weight of the other piece: the longer piece pulls more": 1.75,
            "the sum over the tokens was divided by the number of pieces: divide it by the number of tokens": 25,
            "divided by the number of pieces once more: the tokens of both are one mean": 0.625,
            "that is the longer piece alone: the other one has tokens as well": 1.0,
            "that is the shorter piece alone: the other one has tokens as well": 2.0,
        },
        "it should be as if the step had not been cut: one mean over all its learned tokens",
    )
    return "so the gradients do not depend on how a step is cut to fit into memory"


@check
def schedule(answer):
    """A function (step, steps, warmup, peak) -> the learning rate: linear warm-up, then half a cosine down to 0."""
    for steps, warmup, peak in ((40, 10, 2e-5), (100, 5, 3.0), (12, 0, 1e-3)):
        rates = []
        for step in range(steps + 1):
            case = f"answer({step}, {steps}, {warmup}, {peak})"
            rates.append(numbers(call(answer, step, steps, warmup, peak), (), case))
        found, (right, mistakes) = torch.stack(rates) / peak, _schedules(steps, warmup)
        first = int(((found - right).abs() > 1e-4).int().argmax())  # step that is off, if any
        where = "in the warm-up" if first < warmup else "when the warm-up is over"
        compare(
            found,
            right,
            {"the peak is forgotten: the shape is right, its height is not": right / peak, **mistakes},
            f"answer({first}, {steps}, {warmup}, {peak}) is the first that is off, {where}: draw both parts, and where they meet",
            tolerance=1e-4,
        )
    return "slow while AdamW's moments are still poor estimates, and slow again at the end"


def _schedules(steps: int, warmup: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The rates of step 0 to `steps` as parts of the peak, and those that mistakes lead to."""
    step = torch.arange(steps + 1, dtype=torch.float64)
    rise = step / warmup if warmup else torch.ones_like(step)
    after = (step - warmup) / (steps - warmup)

    def then(fall: Tensor) -> Tensor:
        return torch.where(step < warmup, rise, fall)

    right = then(_cosine(after))
    return right, {
        "there is no warm-up: the rate begins at its peak": _cosine(step / steps),
        "there is no warm-up: the rate stays at its peak until the cosine begins": _cosine(after.clamp(min=0)),
        "the rate falls along a straight line: a cosine falls slowly, then fast, then slowly again": then(1 - after),
        "the cosine is counted from step 0, so the rate drops where the warm-up ends": then(_cosine(step / steps)),
        "the warm-up is multiplied with a cosine over all steps, and the peak is never reached": (
            rise.clamp(max=1) * _cosine(step / steps)
        ),
        "the rate never reaches 0: the cosine begins after the warm-up, so fewer steps than all are left for it": then(
            _cosine((step - warmup) / steps)
        ),
        "the rate rises again in the second half: that is a whole period of the cosine": then(_cosine(2 * after)),
        "that is a quarter of a period: half a period takes the cosine from 1 to -1": then((after * math.pi / 2).cos()),
        "the rate becomes negative: half a cosine goes from 1 to -1, so shift and scale it": then((after * math.pi).cos()),
        "after the warm-up the rate stays at its peak: it has to fall": then(torch.ones_like(step)),
        "the warm-up is one step ahead: with step 0 the rate is 0": torch.where(
            step < warmup, (step + 1) / max(warmup, 1), right
        ),
        "the warm-up follows a cosine as well: it is linear": torch.where(step < warmup, 1 - _cosine(rise), right),
    }  # fmt: skip


def _cosine(part: Tensor) -> Tensor:
    """From 1 at part 0 to 0 at part 1."""
    return (1 + (part * math.pi).cos()) / 2


@check
def credit(answer):
    """Points that the boxes added, and points that the picture added without boxes."""
    boxes, picture = REGIONS - IMAGE_ONLY, IMAGE_ONLY - TEXT_ONLY
    compare(
        numbers(answer, (2,)),
        (boxes, picture),
        {
            "the first number is what boxes and picture add together: compare two runs that differ in the boxes alone": (
                REGIONS - TEXT_ONLY,
                picture,
            ),
            "the second number is what boxes and picture add together: compare two runs that differ in the picture alone": (
                boxes,
                REGIONS - TEXT_ONLY,
            ),
            "the second number is an accuracy: even without the picture many questions are answered right": (boxes, IMAGE_ONLY),
            "those are accuracies, not what was added to them": (REGIONS, IMAGE_ONLY),
            "the numbers are right but swapped: the boxes come first": (picture, boxes),
            "points were *lost* in your order: subtract the run that has less to look at": (-boxes, -picture),
            "those are ratios: points are a difference of percentages": (REGIONS / IMAGE_ONLY, IMAGE_ONLY / TEXT_ONLY),
            "those are percent of the lower accuracy: points are a difference of percentages": (
                100 * boxes / IMAGE_ONLY,
                100 * picture / TEXT_ONLY,
            ),
            "those are shares: a point is one of a hundred": (boxes / 100, picture / 100),
        },
        "take for each the two runs that differ in nothing else, and subtract",
        tolerance=5e-3,
    )  # fmt: skip
    return "and more than half of the 62 is reached without looking at anything"
