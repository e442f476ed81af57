"""Cases of commonsense rules, and the visible facts that their rationales state.

A rationale states two facts; `grid` makes it, and three wrong ones with the first, the second or both facts changed:

    "region1 is a red ball"    "region1 is a blue ball"    "region1 is a red car"    "region1 is a blue car"

Every changed fact still fits the answer, and each wording occurs as often right as wrong, so only the picture tells which is true.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .wording import View, article, doing
from .world import ACTIONS, COLOURS, HELD_OUT, MATERIALS, SceneObject

_KEEP_LETTERS = {letter: "{" + letter + "}" for letter in "abcdef"}  # {a} survives the filling of {x} and {y}


@dataclass
class Case:
    """A rule applied to a scene. Texts are clauses in which {a}, {b}, ... stand for the regions of `objects`."""

    outcome: str
    objects: list[SceneObject]
    because: str  # the facts that decide
    rationales: list[str]  # four, the first one true
    truth: dict


def other(rng: random.Random, value: str, values: Sequence[str], shown: Sequence[str] = ()) -> str:
    """Another one of `values`, half of the time one that the scene shows elsewhere (`shown`)."""
    near = [v for v in shown if v != value and v in values]
    if near and rng.random() < 0.5:
        return rng.choice(near)
    return rng.choice([v for v in values if v != value])


def grid(template: str, one: tuple[str, str], two: tuple[str, str]) -> list[str]:
    """The template filled with the true facts {x} and {y}, then with the first, the second, both changed; each is (true, changed)."""
    pairs = ((one[0], two[0]), (one[1], two[0]), (one[0], two[1]), (one[1], two[1]))
    return [_articles(template.format_map(_KEEP_LETTERS | {"x": x, "y": y})) for x, y in pairs]


def _articles(text: str) -> str:
    """ "a orange" becomes "an orange" once filled."""
    words = text.split(" ")
    return " ".join("an" if w == "a" and n[0] in "aeiou" else w for w, n in zip(words, words[1:] + ["."]))


def thing_grid(view: View, rng: random.Random, item: SceneObject, kinds: Sequence[str], template: str) -> list[str]:
    """Facts about colour and kind, a changed kind being one of `kinds`; where there is no other, about material and colour.

    A combination that training never shows would betray a wrong rationale: changed ones avoid `HELD_OUT` unless the true one is of it.
    """
    rare = (item.colour, item.kind) in HELD_OUT
    for _ in range(50):
        colour = other(rng, item.colour, COLOURS, [o.colour for o in view.things])
        if len(kinds) > 1:
            kind = other(rng, item.kind, kinds, [o.kind for o in view.things])
            made = grid(template, (item.colour, colour), (item.kind, kind))
        else:
            kind = item.kind
            colours = (f"{item.colour} {kind}", f"{colour} {kind}")
            made = grid(template, (item.material, other(rng, item.material, MATERIALS)), colours)
        if rare or not HELD_OUT & {(colour, item.kind), (item.colour, kind), (colour, kind)}:
            break
    return made


def person_grid(
    view: View, rng: random.Random, person: SceneObject, template: str, actions: Sequence[str] = ACTIONS
) -> list[str]:
    """Facts about shirt colour and action, a changed action being one of `actions`."""
    colour = other(rng, person.colour, COLOURS, [o.colour for o in view.people])
    action = other(rng, person.action, actions, [o.action for o in view.people])
    return grid(template, (person.colour, colour), (doing(person.action), doing(action)))


def in_words(attribute: str, value: str) -> str:
    return article(value) if attribute == "kind" else doing(value)
