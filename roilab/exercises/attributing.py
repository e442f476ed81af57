"""Exercises of notebooks/07_attribution: three gradient methods by hand, a completeness gap, an object the colour of the baseline, a game of three."""

from collections.abc import Mapping
from itertools import permutations

from .checking import Wrong, check, compare, numbers

POINT = (1, -2)  # of f(x, y) = x * y, from (0, 0)
METHODS = ("saliency", "input x gradient", "integrated gradients")
END, STEPS = 2, 4  # of f(x) = x ** 3, from 0
PIXELS = (0, 0, 0.6, 1)  # of a picture; the first two are a black object
WEIGHTS = (-3, -1, 0, 0.5)  # of a linear model, one per pixel
BASELINES = {"black": 0.0, "mean": 0.4, "white": 1.0}
PLAYERS = "ABC"
WORTH = {"": 0, "A": 6, "B": 6, "C": 0, "AB": 6, "AC": 9, "BC": 9, "ABC": 9}


@check
def three_methods(answer):
    """{method: (score of x, score of y)} of f(x, y) = x * y at POINT; integrated gradients from (0, 0)."""
    if isinstance(answer, (list, tuple)) and len(answer) == len(METHODS):
        answer = dict(zip(METHODS, answer))
    if not isinstance(answer, Mapping) or set(answer) != set(METHODS):
        raise Wrong(f"expected a dict with the keys {', '.join(map(repr, METHODS))}")
    x, y = POINT
    compare(
        numbers(answer["saliency"], (2,), "saliency"),
        (abs(y), abs(x)),
        {
            "saliency: those are slopes with their signs: saliency takes their size alone, so it cannot say for or against": (y, x),
            "saliency: x and y are exchanged: the slope along x is y, how much the product grows when x grows by one": (abs(x), abs(y)),
            "saliency: that is multiplied by the input: saliency is the slope alone, whatever the input is": (abs(x * y), abs(x * y)),
            "saliency: those are slopes at the baseline: saliency looks at the point itself": (0, 0),
        },
        "saliency: take the slope of x * y along x, then along y, at the point, without their signs",
    )  # fmt: skip
    compare(
        numbers(answer["input x gradient"], (2,), "input x gradient"),
        (x * y, x * y),
        {
            "input x gradient: the sign is lost: multiply the slope, with its sign, by the input, with its sign": (-x * y, -x * y),
            "input x gradient: those are slopes: multiply each by its input": (y, x),
            "input x gradient: each size of a slope was multiplied by its input: the slope has a sign too": (x * abs(y), y * abs(x)),
            "input x gradient: those scores add up to the product; this method's need not": (x * y / 2, x * y / 2),
        },
        "input x gradient: multiply the slope along x by x, and the slope along y by y",
    )  # fmt: skip
    compare(
        numbers(answer["integrated gradients"], (2,), "integrated gradients"),
        (x * y / 2, x * y / 2),
        {
            "integrated gradients: that is input x gradient: on the way from (0, 0) the slopes are smaller than at the end": (x * y, x * y),
            "integrated gradients: those are mean slopes: multiply each by how far its input has moved": (y / 2, x / 2),
            "integrated gradients: the way goes first along x and then along y; the straight one moves both at once": (0, x * y),
            "integrated gradients: the way goes first along y and then along x; the straight one moves both at once": (x * y, 0),
            "integrated gradients: the sign is lost: scores add up to f at the point minus f at the baseline": (-x * y / 2, -x * y / 2),
            "integrated gradients: that is the mean of t squared: the slope along x at t is t * y, not t * t * y": (x * y / 3, x * y / 3),
        },
        "integrated gradients: at (t x, t y) the slopes are t y and t x; take their mean over t from 0 to 1, times x and y",
    )  # fmt: skip
    return "only integrated gradients add up to f(x, y) - f(0, 0); saliency knows no sign, input x gradient counts the product twice"


@check
def riemann_gap(answer):
    """(gap with left ends, gap with middles): integrated gradients of x ** 3 from 0 to END in STEPS steps, less the true difference."""
    true = END**3

    def total(offset: float, power: int = 2, steps: int = STEPS) -> float:
        return END / steps * sum(3 * (END * (k + offset) / steps) ** power for k in range(steps))

    left, middle, right = total(0), total(0.5), total(1)
    compare(
        numbers(answer, (2,)),
        (left - true, middle - true),
        {
            "those are the scores: the gap is the score less the true difference": (left, middle),
            "the sign is turned: the gap is the score less the true difference, so it is below 0 where too little was found": (true - left, true - middle),
            "the two are swapped: left ends come first": (middle - true, left - true),
            "those are right ends, where left ones are asked for: the first step is read at 0": (right - true, middle - true),
            "those are means of slopes, less the difference: multiply the mean by how far x has moved": (left / END - true, middle / END - true),
            "the sums of the four slopes have not been divided by four": (left * STEPS - true, middle * STEPS - true),
            "those are shares of the difference, or the gaps on the way from 0 to 1: give the gaps themselves, on the way to 2": (
                (left - true) / true,
                (middle - true) / true,
            ),
            "the slope of x ** 3 is 3 * x ** 2": (total(0, 3) - true, total(0.5, 3) - true),
            "the factor 3 of the slope 3 * x ** 2 is missing": (left / 3 - true, middle / 3 - true),
            "four steps leave a gap: it vanishes only in the limit of many": (0, 0),
        },
        "write down the four places, the slope 3 x x at each, their mean times 2, and take 8 away",
    )  # fmt: skip
    return "as many passes, and a gap 22 times smaller: where the slope is read matters as much as how often"


@check
def black_object(answer):
    """The sum of the two object pixels' scores by integrated gradients, from each of BASELINES."""
    if isinstance(answer, Mapping):
        if set(answer) != set(BASELINES):
            raise Wrong(f"expected one number for each of {', '.join(BASELINES)}")
        answer = [answer[name] for name in BASELINES]
    found, levels = numbers(answer, (3,)), list(BASELINES.values())

    def scores(part: slice) -> list[float]:
        return [sum(w * (x - level) for w, x in zip(WEIGHTS[part], PIXELS[part])) for level in levels]

    thing = slice(0, 2)
    compare(
        found,
        scores(thing),
        {
            "that is input x gradient, which has black, 0, for its baseline whatever is asked: multiply the weight by pixel minus baseline": (0, 0, 0),
            "the signs are turned: it is pixel minus baseline": [-each for each in scores(thing)],
            "that is how far the pixels are from the baseline: multiply each by its weight": [sum(x - level for x in PIXELS[thing]) for level in levels],
            "those are weights: multiply each by how far its pixel is from the baseline": [sum(WEIGHTS[thing])] * 3,
            "that is saliency, which needs no baseline: multiply by pixel minus baseline, with signs": [4] * 3,
            "that is the whole picture: the object is its first two pixels": scores(slice(None)),
            "that is the background: the object is the first two pixels": scores(slice(2, None)),
            "that is a mean over two pixels: the sum is asked for": [each / 2 for each in scores(thing)],
            "that is the first pixel alone: the object has two": scores(slice(0, 1)),
            "white and black are exchanged: 0 is black": scores(thing)[::-1],
        },
        "the model is linear, so its slope is the weight everywhere: add up weight times (pixel minus baseline) over the first two pixels",
    )  # fmt: skip
    return "a thing that looks like the baseline gets nothing, however much the model rests on it"


@check
def shapley(answer):
    """{part: Shapley value} of the game WORTH, or three numbers in the order A, B, C."""
    if isinstance(answer, Mapping):
        if set(answer) != set(PLAYERS):
            raise Wrong(f"expected one number for each of {', '.join(PLAYERS)}")
        answer = [answer[player] for player in PLAYERS]
    found = numbers(answer, (3,))
    orders = [_gains(order) for order in permutations(PLAYERS)]
    mean = [sum(gains[player] for gains in orders) / len(orders) for player in PLAYERS]
    others = [[team for team in WORTH if player not in team] for player in PLAYERS]
    single = [
        sum(WORTH[_team(team + player)] - WORTH[team] for team in teams) / len(teams)
        for player, teams in zip(PLAYERS, others)
    ]
    compare(
        found,
        mean,
        {
            "that is ablation, what is lost when one part alone is covered: A and B stand in for each other, so neither seems to matter": [WORTH["ABC"] - WORTH["ABC".replace(player, "")] for player in PLAYERS],
            "that is what each part is worth alone, on a covered picture: it counts what A and B share twice, and C not at all": [WORTH[player] for player in PLAYERS],
            "that is an equal share for each: parts that bring more get more": [WORTH["ABC"] / 3] * 3,
            "those are sums over the six orders: take their means": [6 * each for each in mean],
            "that is the mean over the four sets without the part, each counted alike (Banzhaf): over orders, the empty set and the set of both others count twice": single,
            "the values are right but turned round: A comes first, C last": mean[::-1],
        }
        | {f"that is one order, {', '.join(order)}: take the mean over all six": [_gains(order)[player] for player in PLAYERS] for order in permutations(PLAYERS)},
        "write down the six orders of A, B and C, and what each part adds to what stands before it; then take means. They add up to 9",
    )  # fmt: skip
    return "they add up to the worth of the whole, and parts that stand in for each other share it"


def _team(players) -> str:
    return "".join(sorted(players))


def _gains(order) -> dict[str, int]:
    """What each part adds to those before it."""
    return {player: WORTH[_team(order[: i + 1])] - WORTH[_team(order[:i])] for i, player in enumerate(order)}
