"""Question families that compare and relate regions.

The picture decides, not the text: which region comes first and which way a question is asked are coins, and a yes/no question is asked
only where the scene offers both answers. Relations that are too close to call are never asked about.
"""

import itertools
import random
from collections.abc import Iterator

from .wording import Question, View, ask, shuffled, truth

_COMPARISONS = {  # family: (relation, words when it holds, words when it is reversed), each (adjective in "which is ...", phrase in "is a ... b")
    "larger": ("larger than", ("larger", "larger than"), ("smaller", "smaller than")),
    "left_of": ("left of", ("further left", "left of"), ("further right", "right of")),
    "above": ("above", ("higher", "above"), ("lower", "below")),
}
_WHICH = ("Which is {w}, {a} or {b}?", "Which of {a} and {b} is {w}?", "Is {a} or {b} {w}?")
_WHETHER = ("Is {a} {p} {b}?", "Would you say that {a} is {p} {b}?", "Is it true that {a} is {p} {b}?")


def comparison(family: str):
    """The family that compares two regions: which one, or yes and no."""
    relation, *words = _COMPARISONS[family]

    def generate(view: View, rng: random.Random) -> Iterator[Question]:
        for one, two in shuffled(rng, itertools.combinations(view.objects, 2)):
            pair = shuffled(rng, (one, two))
            first = view.holds(relation, *pair)
            if first is None:
                continue
            asked = rng.randrange(2)  # 0: asked with the relation's own word, 1: with the opposite
            word, phrase = words[asked]
            yes = first == (asked == 0)
            why = truth(pair, relations=[(relation, *(o.id for o in (pair if first else pair[::-1])))])
            if rng.random() < 0.5:
                yield ask(
                    rng,
                    family,
                    _WHICH,
                    ("{x}", "{x} is {w}."),
                    pair,
                    why,
                    w=word,
                    x="<region1>" if yes else "<region2>",
                )
            else:
                verdict, is_so = ("yes", phrase) if yes else ("no", words[1 - asked][1])
                yield ask(
                    rng, family, _WHETHER, ("{v}", "{a} is {q} {b}, so {v}."), pair, why, p=phrase, q=is_so, v=verdict
                )

    return generate


_EXTREMES = {
    "leftmost": ("left of", "furthest left", "furthest right"),
    "largest": ("larger than", "the largest", "the smallest"),
}
_WHICH_OF_THREE = ("Which is {w}, {a}, {b} or {c}?", "Which of {a}, {b} and {c} is {w}?", "Is {a}, {b} or {c} {w}?")


def extreme(family: str):
    """The family that picks one of three regions."""
    relation, most, least = _EXTREMES[family]

    def generate(view: View, rng: random.Random) -> Iterator[Question]:
        for trio in shuffled(rng, itertools.combinations(view.objects, 3)):
            trio = shuffled(rng, trio)
            top = rng.random() < 0.5
            for i, item in enumerate(trio):
                rest = trio[:i] + trio[i + 1 :]
                if all(view.holds(relation, item, o) is top for o in rest):
                    why = truth(
                        trio, relations=[(relation, *((item.id, o.id) if top else (o.id, item.id))) for o in rest]
                    )
                    word = most if top else least
                    yield ask(
                        rng, family, _WHICH_OF_THREE, ("{x}", "{x} is {w}."), trio, why, w=word, x=f"<region{i + 1}>"
                    )

    return generate


_SAME = {
    False: (
        "Do {a} and {b} have the same colour?",
        "Are {a} and {b} the same colour?",
        "Is the colour of {a} the same as that of {b}?",
    ),
    True: (
        "Do {a} and {b} wear the same colour?",
        "Are the shirts of {a} and {b} the same colour?",
        "Does {a} wear the same colour as {b}?",
    ),
}


def same_colour(view: View, rng: random.Random) -> Iterator[Question]:
    """At most one per scene, from those that offer both verdicts: a second one could be guessed from the first."""
    pools = [(group, people) for group, people in ((view.things, False), (view.people, True)) if len(group) > 1]
    for group, people in shuffled(rng, pools):
        pairs = shuffled(rng, itertools.permutations(group, 2))
        alike = [p for p in pairs if p[0].colour == p[1].colour]
        unlike = [p for p in pairs if p[0].colour != p[1].colour]
        if not alike or not unlike:
            continue
        same = rng.random() < 0.5
        one, two = (alike if same else unlike)[0]
        verb = "wears" if people else "is"
        answers = ("{a} {verb} {x} and {b} {verb} {y}, so {v}.", "{x} and {y}, so {v}.")
        yield ask(rng, "same_colour", _SAME[people], answers, [one, two], truth([one, two], "colour"), verb=verb, x=one.colour, y=two.colour,
                  v="yes" if same else "no")  # fmt: skip
        return


def directed(family: str, relation: str):
    """Who holds, points at or looks at what. At most one per scene, where several answers are possible."""

    def generate(view: View, rng: random.Random) -> Iterator[Question]:
        pairs = [(p, o) for p in view.people for o in view.objects if o is not p]
        known = {(p.id, o.id): view.holds(relation, p, o) for p, o in pairs}
        yes = shuffled(rng, (pair for pair in pairs if known[pair[0].id, pair[1].id]))
        no = shuffled(rng, (pair for pair in pairs if known[pair[0].id, pair[1].id] is False))
        if not yes or not no:
            return
        for form in shuffled(rng, ("whether", "what", "who")):
            if form == "whether":
                holds = rng.random() < 0.5
                one, two = (yes if holds else no)[0]
                asked = ("Is {a} {r} {b}?", "Is it true that {a} is {r} {b}?", "Would you say that {a} is {r} {b}?")
                answers = ("yes", "{a} is {r} {b}, so yes.") if holds else ("no", "{a} is not {r} {b}, so no.")
                why = truth([one, two], relations=[(relation, one.id, two.id)])
                yield ask(rng, family, asked, answers, [one, two], why, r=relation)
                return
            person, target = yes[0]
            if form == "what":
                others = [o for p, o in no if p is person]
                asked = ("What is {a} {r}, {b} or {c}?", "Is {a} {r} {b} or {c}?", "Which one is {a} {r}, {b} or {c}?")
                answers = ("{x}", "{a} is {r} {x}.")
            else:
                others = [p for p, o in no if o is target]
                asked = (
                    "Who is {r} {a}, {b} or {c}?",
                    "Who of the two is {r} {a}, {b} or {c}?",
                    "Someone is {r} {a}. Is it {b} or {c}?",
                )
                answers = ("{x}", "{x} is {r} {a}.")
            if others:
                right = target if form == "what" else person
                options = shuffled(rng, (right, rng.choice(others)))
                first = person if form == "what" else target
                why = truth([first, *options], relations=[(relation, person.id, target.id)])
                yield ask(
                    rng,
                    family,
                    asked,
                    answers,
                    [first, *options],
                    why,
                    r=relation,
                    x=f"<region{2 + options.index(right)}>",
                )
                return

    return generate


COMPARING = {
    "larger": comparison("larger"), "left_of": comparison("left_of"), "above": comparison("above"), "same_colour": same_colour,
    "holding": directed("holding", "holding"), "pointing": directed("pointing", "pointing at"), "looking": directed("looking", "looking at"),
    "leftmost": extreme("leftmost"), "largest": extreme("largest"),
}  # fmt: skip
"""family -> generator(view, rng) of its questions about a scene, in random order."""
