"""Exercises of notebooks/08_interventions: verdicts of the region tests, planted defects, a control for knockout, circuits."""

import math

import torch

from .checking import Wrong, call, check, compare, numbers

SCORES = {  # of four answers: as it is, with the mean token, with tokens from elsewhere (on average), without the region's pixels
    "a red car": (-0.1, -0.3, -4.1, -0.2),
    "a boat": (-0.5, -0.9, -0.95, -3.0),
    "outdoors": (-2.0, -2.3, -2.55, -2.6),
    "running": (-0.2, -3.2, -2.2, -1.0),
}
VERDICTS = ("token", "picture", "both", "text")
MODELS = {  # who is who in section 2
    "A": "tiny-only-positions",
    "B": "tiny-swaps-1-and-2",
    "C": "tiny-only-text",
    "D": "tiny",
    "E": "tiny-ignores-order",
}
BEHAVIOURS = {
    "tiny": "healthy",
    "tiny-ignores-order": "order",
    "tiny-only-positions": "positions",
    "tiny-only-text": "text",
    "tiny-swaps-1-and-2": "swaps",
}
CUT = ((8, (2, 3)), (9, (2, 3, 5)), (10, (4,)))  # query, keys
LENGTH, DRAWS = 12, 200


def _words(answer, count: int, allowed) -> list[str]:
    """`count` words of `allowed`, in any case."""
    given = list(answer) if isinstance(answer, (list, tuple)) else [answer]
    if len(given) != count or not all(isinstance(each, str) for each in given):
        raise Wrong(f"expected {count} words, each of {', '.join(allowed)}")
    given = [each.strip().lower() for each in given]
    if unknown := [each for each in given if each not in allowed]:
        raise Wrong(f"{unknown[0][:30]!r} is none of the words {', '.join(allowed)}")
    return given


def _verdicts(limit: float, drop=max, relative: bool = True) -> list[str]:
    found = []
    for score, mean, foreign, hidden in SCORES.values():
        whole = score if relative else 0.0
        token, picture = drop(whole - mean, whole - foreign) > limit, whole - hidden > limit
        found.append(VERDICTS[2 if token and picture else 0 if token else 1 if picture else 3])
    return found


@check
def verdicts(answer):
    """One word of VERDICTS per answer of SCORES, by the rule of `roilab.interpret.region_tests`."""
    given, right = _words(answer, len(SCORES), VERDICTS), _verdicts(math.log(2))
    if given == right:
        return "a token of another picture is the sharper test; the mean token may happen to fit"
    swapped = {"token": "picture", "picture": "token", "both": "both", "text": "text"}
    told = (
        (
            _verdicts(math.log(2), drop=min),
            "the larger of the two drops counts: a mean token that happens to fit proves nothing",
        ),
        (
            _verdicts(math.log(2), relative=False),
            "a drop is a difference: take each score from the score as it is, which may be low from the start",
        ),
        (_verdicts(0.5), "half as likely is a drop of log 2, that is 0.69, not of 0.5"),
        (_verdicts(1.0), "half as likely is a drop of log 2, that is 0.69; 1 is more than that"),
        (
            [swapped[each] for each in right],
            "token and picture are exchanged: the last column is without the region's pixels, and its token stays",
        ),
    )
    for value, message in told:
        if given == value:
            raise Wrong(message)
    name = next(name for name, a, b in zip(SCORES, given, right) if a != b)
    raise Wrong(f"look at {name!r} again: which of its two drops, token and picture, is larger than 0.69?")


# What tells two behaviours apart.
APART = {
    ("healthy", "order"): "exchanging the two tokens must cost a model that goes by their order; a model blind to it loses nothing",
    ("healthy", "positions"): "a model that uses what is in a region loses the colour with another token; one that sees places alone does not",
    ("healthy", "swaps"): "both lose much with another token and by exchanging; only one of them is right about left and right",
    ("healthy", "text"): "a model that reads the text alone loses nothing in any test",
    ("order", "positions"): "one loses the colour with another token, the other does not; one loses by exchanging, the other does not",
    ("order", "swaps"): "both lose with another token; look at the column `exchanged`",
    ("order", "text"): "neither loses by exchanging; only one of them loses with another token",
    ("positions", "swaps"): "both lose by exchanging; look at the column `token`",
    ("positions", "text"): "neither loses with another token; only one of them loses when the two tokens are exchanged",
    ("swaps", "text"): "one of them loses nothing in any test; the other loses in two, and is mostly wrong",
}  # fmt: skip


@check
def defects(answer):
    """{letter: behaviour} of the five models of MODELS, with the words of BEHAVIOURS."""
    if not isinstance(answer, dict) or {str(letter) for letter in answer} != set(MODELS):
        raise Wrong(f"expected a word for each of the letters {', '.join(MODELS)}, as {{'A': ..., 'B': ...}}")
    allowed = sorted(BEHAVIOURS.values())
    given = dict(zip(MODELS, _words([answer[letter] for letter in MODELS], len(MODELS), allowed)))
    right = {letter: BEHAVIOURS[name] for letter, name in MODELS.items()}
    if given == right:
        return "five numbers for each model were enough"
    off = [letter for letter in MODELS if given[letter] != right[letter]]
    pair = tuple(sorted((given[off[0]], right[off[0]])))
    raise Wrong(f"look at {' and '.join(off[:2])} again: {APART[pair]}")


@check
def control(answer):
    """A function (cut [T, T] bool, generator) -> [T, T] bool: as many random edges of the same queries, none of them in `cut`."""
    cut = torch.zeros(LENGTH, LENGTH, dtype=torch.bool)
    for query, keys in CUT:
        cut[query, list(keys)] = True

    def drawn(count: int) -> list[torch.Tensor]:
        found = []
        for seed in range(count):
            result = call(answer, cut.clone(), torch.Generator().manual_seed(seed))
            found.append(numbers(result, (LENGTH, LENGTH), "what your function returns"))
        return found

    first = drawn(20)
    if any(not ((each == 0) | (each == 1)).all() for each in first):
        raise Wrong("an edge is cut or not: return True and False")
    edges = torch.stack(first).bool()
    if not edges.any():
        raise Wrong("no edge is cut at all")
    if edges.triu(1).any():
        raise Wrong(
            "a position cannot look ahead: draw keys in front of the query only, or the control cuts nothing there"
        )
    if edges.diagonal(dim1=1, dim2=2).any():
        raise Wrong("a position must keep itself, the control too: leave out the diagonal")
    if (edges & cut).any():
        raise Wrong("some of the edges are those under test: the control must leave them whole")
    if edges[:, cut.sum(1) == 0].any():
        raise Wrong("edges of other queries are cut: the control is about the same queries, here 8, 9 and 10")
    if (edges.sum((1, 2)) != cut.sum()).any():
        raise Wrong("the control cuts another number of edges: what is cut more may cost more")
    if (edges.sum(2) != cut.sum(1)).any():
        raise Wrong("the number of edges is right in all, but not query by query")
    if all(torch.equal(each, edges[0]) for each in edges):
        raise Wrong("every control is the same: draw with `generator`, which is another one each time")
    if any(not torch.equal(a, b) for a, b in zip(first, drawn(20))):
        raise Wrong(
            "the same generator gives another control: take all chance from it, or nobody can repeat your numbers"
        )
    free = torch.ones_like(cut).tril(-1) & ~cut & cut.any(1)[:, None]
    if (free & ~torch.stack(drawn(DRAWS)).bool().any(0)).any():
        raise Wrong(f"some free edges never come in {DRAWS} draws: each of them must have its chance")
    return "now a drop can be told from what any cut of this size costs"


@check
def circuits(answer):
    """[[recovered, lost]] of component a in the circuits `a and b`, `a or b`, `(a and b) or c`."""
    compare(
        numbers(answer, (3, 2)),
        [[0, 1], [1, 0], [0, 0]],
        {
            "the columns are swapped: recovered puts the clean a into the corrupt pass, where all else is 0": [[1, 0], [0, 1], [0, 0]],
            "the third is not like the first: in the clean pass c is 1 as well, and one of the two ways is enough": [[0, 1], [1, 0], [0, 1]],
            "the third is not like the second: in the corrupt pass b is 0, so that a clean a alone opens nothing": [[0, 1], [1, 0], [1, 0]],
            "the third has neither: a alone opens no way in the corrupt pass, and closes only one of two in the clean pass": [
                [0, 1],
                [1, 0],
                [1, 1],
            ],
            "a takes part in all three, but that is not what patching measures: change a alone and work out the result": [[1, 1]] * 3,
            "the two directions need not agree: work out both, once with all else 0 and once with all else 1": [[0, 0], [1, 1], [0, 0]],
            "the first two are exchanged: an `and` needs both, for an `or` one is enough": [[1, 0], [0, 1], [1, 0]],
            "nothing is shared out here: the result is 0 or 1": [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]],
        },
        "for each circuit, set everything to 0 and a to 1 (recovered is the result), then everything to 1 and a to 0 (lost is 1 minus the result)",
    )  # fmt: skip
    return "`lost` misses an `or`, `recovered` misses an `and`, and both miss the third: patch pairs as well"
