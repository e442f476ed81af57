"""Exercises of notebooks/06_attention: a sink taken out, rollout and relevance on paper, edges that are cut."""

import torch

from .checking import check, compare, numbers

# Rows of two heads over six positions: a sink, two image tokens, a region, two words of the question.
HEADS = ((0.50, 0.10, 0.10, 0.20, 0.05, 0.05), (0.80, 0.04, 0.06, 0.00, 0.05, 0.05))
# Mean attention of two layers, first to last.
LAYERS = (
    ((1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.2, 0.4, 0.4)),
    ((1.0, 0.0, 0.0), (0.6, 0.4, 0.0), (0.0, 0.4, 0.6)),
)
# R after the first layer; the last row of two heads of the second, and the gradients upon it.
RELEVANCE = ((1.0, 0.0, 0.0), (0.2, 1.0, 0.0), (0.1, 0.3, 1.0))
ATTENTION, GRADIENT = ((0.2, 0.3, 0.5), (0.5, 0.5, 0.0)), ((1.0, -2.0, 0.4), (-0.8, 2.0, 3.0))
# What one query pays to three keys, and what it finds there.
PAID, FOUND = (0.6, 0.3, 0.1), (2.0, 1.0, 5.0)


def _tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@check
def without_sink(answer):
    """(image, region1, question): mean attention of HEADS to each part, the sink at position 0 taken out."""
    rows = _tensor(HEADS)

    def parts(row):
        return torch.stack([row[1] + row[2], row[3], row[4] + row[5]])

    plain, others = parts(rows.mean(0)), rows[:, 1:].sum(1, keepdim=True)
    shared = rows / others
    right = parts(shared.mean(0))
    compare(
        numbers(answer, (3,)),
        right,
        {
            "the sink is gone, but its share is lost: what is left of each head must add up to 1 again": plain,
            "the heads were averaged first: each head has its own share to give back, so divide first and take the mean then": plain
            / plain.sum(),
            "those are sums over the heads: take their mean": 2 * right,
            "those are means over the positions of a part: a part gets the sum of its positions": right / _tensor((2, 1, 2)),
            "the sink's share was dealt out evenly: the others get it in proportion to what they have": parts(
                (rows + rows[:, :1] / 5).mean(0)
            ),
            "that is the first head alone: take the mean of both": parts(shared[0]),
            "that is the second head alone: take the mean of both": parts(shared[1]),
            "the numbers are right but in another order: image, region1, question": right[[1, 0, 2]],
            "those are percent: give shares": 100 * right,
        },
        "for each head: drop position 0, divide the rest by its sum, add up the parts; then the mean of the two heads",
    )  # fmt: skip
    return "a head that spends most of itself on a sink speaks as loudly as the other once the sink is gone"


@check
def rollout_by_hand(answer):
    """The last row of the rollout of LAYERS."""
    first, second = (_tensor(layer) for layer in LAYERS)
    one, two = ((layer + torch.eye(3, dtype=torch.float64)) / 2 for layer in (first, second))
    compare(
        numbers(answer, (3,)),
        (two @ one)[2],
        {
            "the layers are in the wrong order: the last layer looks at what the first has mixed, so its matrix stands left": (
                one @ two
            )[2],
            "the identity is missing: half of every position is what it was before": (second @ first)[2],
            "attention plus identity was not halved: each row has to add up to 1": 4 * (two @ one)[2],
            "the identity came in once, at the end: each layer keeps half": ((second @ first)[2] + _tensor((0, 0, 1))) / 2,
            "that is the mean of the two layers: what the layers mix is multiplied": (first + second)[2] / 2,
            "that is the last layer alone, with its identity: multiply by the first layer's matrix": two[2],
            "that is the last layer's attention: half identity, then multiply by the first layer's matrix": second[2],
            "that is the first layer alone: multiply it by the last layer's row": one[2],
            "the numbers were multiplied place by place: it is a product of matrices": (two * one)[2],
            "that is the last column: the last row says what the last position is made of": (two @ one)[:, 2],
            "that is the middle row: the last one is asked for": (two @ one)[1],
        },
        "make (A + identity) / 2 of both layers; then the last row of the second, times the matrix of the first",
    )  # fmt: skip
    return "the last layer does not look at position 0 at all, and rollout still finds 13 % there: it came through the others"


@check
def relevance_step(answer):
    """The last row of R after the second layer, from RELEVANCE and the rows ATTENTION and GRADIENT."""
    before, attention, slopes = _tensor(RELEVANCE), _tensor(ATTENTION), _tensor(GRADIENT)
    product = attention * slopes

    def step(row):
        return before[2] + row @ before

    matters = product.clamp_min(0).mean(0)
    compare(
        numbers(answer, (3,)),
        step(matters),
        {
            "what is negative was kept: (.)+ sets it to 0": step(product.mean(0)),
            "the mean came before (.)+: a head that speaks against must not cancel one that speaks for": step(
                product.mean(0).clamp_min(0)
            ),
            "the heads were added up: take their mean": step(2 * matters),
            "that is only what the layer adds: R keeps what it was": matters @ before,
            "the layer's row was added as it is: multiply it by R first, what is looked at has a history": before[2] + matters,
            "that is the layer's row alone: R <- R + row times R": matters,
            "the gradient is missing: that is attention alone, whatever is asked": step(attention.mean(0)),
            "the attention is missing: multiply each gradient by the attention it belongs to": step(
                slopes.clamp_min(0).mean(0)
            ),
            "that is the first head alone: take the mean of both": step(product[0].clamp_min(0)),
            "that is the second head alone: take the mean of both": step(product[1].clamp_min(0)),
            "absolute values were taken: (.)+ drops what is negative": step(product.abs().mean(0)),
            "1 was taken off at the end: the exercise asks for R itself": step(matters) - _tensor((0, 0, 1)),
        },
        "gradient times attention per head, negative ones to 0, mean over the heads; that row times R, plus the old last row",
    )  # fmt: skip
    return "without (.)+ a position that speaks for the answer in one head and against it in another would vanish"


@check
def cut_keys(answer):
    """[3] how much the output of a query changes (afterwards minus before) when its edge to each key is cut."""
    paid, found = _tensor(PAID), _tensor(FOUND)
    whole = paid @ found
    cut = (whole - paid * found) / (1 - paid)
    compare(
        numbers(answer, (3,)),
        cut - whole,
        {
            "the shares that are left no longer add up to 1: minus infinity goes in before the softmax, so they are divided by their sum": -paid
            * found,
            "those are the contributions, attention times value: cut the edge, and share its attention out": paid * found,
            "those are the outputs after the cut: take off the output before it": cut,
            "the signs are turned round: afterwards minus before": whole - cut,
            "those are sizes: an output may also fall, so keep the sign": (cut - whole).abs(),
            "that is the attention itself: what is found at a key counts as well": paid,
            "the attention was dealt out evenly to the other two: they get it in proportion to what they have": torch.stack(
                [found @ _tensor([0 if i == j else paid[j] + paid[i] / 2 for j in range(3)]) - whole for i in range(3)]
            ),
            "those are changes in percent of the output: the change itself is asked for": 100 * (cut - whole) / whole,
            "those are changes as shares of the output: the change itself is asked for": (cut - whole) / whole,
        },
        "before: 0.6 * 2 + 0.3 * 1 + 0.1 * 5. Then for each key: leave it out, divide the other two shares by their sum, add up again",
        tolerance=2e-3,
    )  # fmt: skip
    return "the key with 60 % of the attention can go: what was found there is what the others say together"
