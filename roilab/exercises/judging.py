"""Exercises of notebooks/09_faithfulness: pointing game and energy, areas under deletion curves, a rank correlation, what intervals show."""

import torch

from .checking import Wrong, check, compare, numbers

MAP = ((0, 1, 0, 2), (-5, 4, 1, 0), (0, 2, -2, 1), (1, 0, 3, 0))  # of the patches of a picture, 16 pixels each
BOX = (16, 16, 64, 48)  # xyxy in its pixels
SHARES = (0, 0.25, 0.5, 0.75, 1)  # of the patches that are covered
METHOD, RANDOM = (0.9, 0.5, 0.1, 0.1, 0.1), (0.9, 0.8, 0.7, 0.4, 0.1)  # probabilities of the answer
ENERGY, EFFECT = (0.60, 0.04, 0.16, 0.12, 0.08), (6.0, 0.4, 0.2, 0.1, 0.3)  # of five objects
DIFFERENCES = {  # area of a method less that of the random order, 95 % intervals: of deletion, of insertion
    "A": ((-0.12, -0.05), (0.03, 0.11)),
    "B": ((-0.04, 0.02), (0.05, 0.12)),
    "C": ((0.03, 0.09), (0.04, 0.10)),
    "D": ((-0.10, -0.03), (-0.02, 0.06)),
    "E": ((-0.09, -0.04), (-0.08, -0.02)),
    "F": ((-0.03, -0.01), (0.01, 0.02)),
}


@check
def lies_in_the_box(answer):
    """(1 if the pointing game is won, else 0; energy in the region) of MAP and BOX."""
    compare(
        numbers(answer, (2,)),
        (1, 8 / 15),
        {
            "the energy is right; but the pointing game asks for the largest score, and -5 is the smallest": (0, 8 / 15),
            "negative scores do not count: the energy is a share of the positive ones, inside and in all": (1, 6 / 8),
            "below the line only positive scores were added, above it negative ones too": (1, 6 / 15),
            "-2 and -5 were counted as if they were 2 and 5: energy is of positive scores only": (1, 10 / 22),
            "x and y are exchanged: a box is x1, y1, x2, y2, and x counts columns": (1, 10 / 15),
            "that is the energy outside of the box": (1, 7 / 15),
            "that is inside over outside: a share is of everything": (1, 8 / 7),
            "that is the share of the patches in the box: it is their scores that count": (1, 6 / 16),
            "that is the share of patches with a positive score: add the scores themselves": (1, 4 / 8),
            "the energy is in percent: a share from 0 to 1 is asked for": (1, 100 * 8 / 15),
            "that is the sum inside the box: divide it by the sum of all positive scores": (1, 8),
            "the two are swapped: the pointing game comes first": (8 / 15, 1),
        },
        "mark the patches of the box first: columns 1 to 3 and rows 1 and 2, counted from 0; then look at the positive scores",
        tolerance=6e-3,
    )  # fmt: skip
    return "the map lies well; whether the model looks there is another question"


@check
def areas(answer):
    """(area under METHOD, area under RANDOM) over SHARES, by trapezoids."""
    compare(
        numbers(answer, (2,)),
        [torch.trapezoid(torch.tensor(each), torch.tensor(SHARES)).item() for each in (METHOD, RANDOM)],
        {
            "that is the mean of the five values: the first and the last stand at the ends, and count half": (0.34, 0.58),
            "each strip has the height of its left end: take the mean of both ends": (0.4, 0.7),
            "each strip has the height of its right end: take the mean of both ends": (0.2, 0.5),
            "every strip is 0.25 wide: multiply by that": (1.2, 2.4),
            "those are sums of the five values: an area is height times width": (1.7, 2.9),
            "those are the areas above the curves": (0.7, 0.4),
            "the two are swapped: the method comes first": (0.6, 0.3),
            "that is the difference, and one area: both areas are asked for": (0.3, 0.3),
            "the first strip is left out: the curve begins where nothing is covered": (0.125, 0.3875),
        },
        "four strips, each 0.25 wide and as high as the mean of its two ends; add them up",
    )  # fmt: skip
    return "0.3 alone says little: it is half of what a random order gets on the same picture"


@check
def rank_correlation(answer):
    """Spearman's rank correlation of ENERGY and EFFECT."""
    values = torch.tensor([ENERGY, EFFECT], dtype=torch.float64)
    compare(
        numbers(answer, ()),
        0.1,
        {
            "that is the correlation of the values: take their ranks first, 1 to 5": torch.corrcoef(values)[0, 1].item(),
            "the sign is turned: rank both lists in the same direction": -0.1,
            "that is what is to be taken from 1": 0.9,
            "the differences are squared before they are added": 1 - 6 * 8 / 120,
            "the sum of the squares is multiplied by 6": 1 - 18 / 120,
            "that is the sum of the squared differences: it goes into 1 - 6 sum / (n (n² - 1))": 18,
            "below the line stands n (n² - 1), which is 120: not n² - 1": 1 - 108 / 24,
            "below the line stands n (n² - 1), which is 120: not n³": 1 - 108 / 125,
            "that is Kendall's, which counts pairs: Spearman's is asked for": 0,
        },
        "the ranks of the energies are 5, 1, 4, 3, 2: rank the effects too, and square the differences",
        tolerance=6e-3,
    )  # fmt: skip
    return "the values themselves correlate by 0.97, since one object dwarfs the others: ranks ask for all five"


@check
def shown_by_both(answer):
    """Names of the methods of DIFFERENCES of which both intervals say that they order patches better than chance."""
    found, wanted = _names(answer), {"A", "F"}
    mistakes = {
        "C": "of C, insertion is better than chance and deletion worse: a small area under deletion is the better one",
        "E": "of E, deletion is better than chance and insertion worse: a large area under insertion is the better one",
        "B": "B's interval of deletion holds 0: chance may be as good",
        "D": "D's interval of insertion holds 0: chance may be as good",
    }
    whole = {
        "C": "that is the one whose areas are both larger: under deletion, smaller is better",
        "E": "that is the one whose areas are both smaller: under insertion, larger is better",
        "A": "one is missing: small differences count as well, if their intervals leave out 0",
        "F": "F is right, and it is not the only one",
        "ABCF": "those are better by insertion: deletion has to say so too",
        "ADEF": "those are better by deletion: insertion has to say so too",
        "ABCDEF": "those are better by one of the two at least: both have to say so",
        "CE": "C and E are each worse than chance by one of the two",
        "BD": "B and D are better by one of the two, and not shown to be by the other: both have to say so",
    }
    if found == wanted:
        return "which of the two is the better method is not said by that: take the difference between them, target by target"
    if (key := "".join(sorted(found))) in whole:
        raise Wrong(whole[key])
    for name, message in mistakes.items():
        if name in found:
            raise Wrong(message)
    raise Wrong("no method at all? an interval of deletion below 0 and one of insertion above 0 are wanted")


def _names(answer) -> set[str]:
    """Names of methods, in whatever form they come."""
    if isinstance(answer, dict):
        answer = list(answer)
    if not isinstance(answer, (str, list, tuple, set, frozenset)):
        raise Wrong("the answer should be a list of names, such as ['A', 'B']")
    names = [str(each).strip().upper() for each in answer]
    names = [each for each in names if each not in ("", ",")]
    if unknown := [each for each in names if each not in DIFFERENCES]:
        raise Wrong(f"there is no method {unknown[0][:20]!r}: they are {', '.join(DIFFERENCES)}")
    return set(names)
