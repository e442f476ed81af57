"""Referring expressions: words that fit one object of a scene and clearly no other.

A description is a list of facts, each with a test. An object is singled out when it passes all tests and every other object clearly fails
one; what is too close to call (`Scene.holds` gives None) counts as fitting.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

from ..wording import View, article, doing
from ..world import SceneObject

Test = Callable[[SceneObject], "bool | None"]


class Fact(NamedTuple):
    """One thing that can be said of an object.

    `slot` is where its words go: "before" the noun, "with" (clothes, after it), "clause" ("held by the person") or "where" ("on the left").
    """

    name: str
    words: str
    fits: Test
    slot: str
    place: bool = False  # says where something is


class Reference(NamedTuple):
    """An expression, and the characters [start, end) of it that hold the noun and the adjectives before it."""

    text: str
    head: tuple[int, int]


def traits(item: SceneObject) -> list[Fact]:
    """What can be said of an object by itself, in the order of the words."""

    def fact(name, words, slot):
        value = getattr(item, name)
        return Fact(name, words, lambda other: getattr(other, name) == value, slot)

    if not item.is_person:
        return [fact(name, getattr(item, name), "before") for name in ("size", "material", "colour")]
    headgear = "without headgear" if item.headgear == "none" else f"with {article(item.headgear)}"
    return [
        fact("mood", item.mood, "before"), fact("colour", f"in {article(item.colour)} shirt", "with"), fact("headgear", headgear, "with"),
        fact("action", doing(item.action), "clause"),
    ]  # fmt: skip


def noun(item: SceneObject, word: str | None = None) -> Fact:
    """The kind; or another `word` for things of any kind."""
    if word:
        return Fact("kind", word, lambda other: not other.is_person, "noun")
    return Fact("kind", item.kind, lambda other: other.kind == item.kind, "noun")


_SIDES = {  # name: (axis, whether the low end); the words before and after the noun
    "left": ((0, True), ("left",), ("on the left", "on the left side")),
    "right": ((0, False), ("right",), ("on the right", "on the right side")),
    "top": ((1, True), ("top", "upper"), ("at the top",)),
    "bottom": ((1, False), ("bottom", "lower"), ("at the bottom",)),
}  # fmt: skip


def _side(size: int, *sides: tuple[int, bool]) -> Test:
    """Within the outer 40 % of the picture on all `sides`; clearly not when in the other half on one."""

    def fits(item):
        shares = [item.centre[axis] / size if low else 1 - item.centre[axis] / size for axis, low in sides]
        return False if max(shares) > 0.5 else True if max(shares) < 0.4 else None

    return fits


def _places(size: int) -> Iterator[Fact]:
    """Places in a picture of `size` pixels."""
    for side, before, after in _SIDES.values():
        yield from (Fact("where", words, _side(size, side), "before", True) for words in before)
        yield from (Fact("where", words, _side(size, side), "where", True) for words in after)
    for vertical, y in (("upper", "top"), ("lower", "bottom")):
        for horizontal in ("left", "right"):
            test = _side(size, _SIDES[y][0], _SIDES[horizontal][0])
            yield Fact("where", f"{vertical} {horizontal}", test, "before", True)
            yield Fact("where", f"in the {vertical} {horizontal} corner", test, "where", True)


_EXTREMES = {  # words: (relation, whether it holds of the extreme one)
    "leftmost": ("left of", True), "rightmost": ("left of", False), "highest": ("above", True), "lowest": ("above", False),
    "largest": ("larger than", True), "smallest": ("larger than", False),
}  # fmt: skip
_RELATED = (  # relation, whether the object comes first in it, words
    ("left of", True, ("left of {x}", "to the left of {x}")), ("left of", False, ("right of {x}", "to the right of {x}")),
    ("above", True, ("above {x}", "higher than {x}")), ("above", False, ("below {x}", "lower than {x}")),
    ("larger than", True, ("larger than {x}",)), ("larger than", False, ("smaller than {x}",)),
    ("holding", True, ("holding {x}",)), ("holding", False, ("held by {x}", "that {x} is holding")),
    ("kicking", True, ("kicking {x}",)), ("kicking", False, ("kicked by {x}", "that {x} is kicking")),
    ("pointing at", True, ("pointing at {x}",)), ("pointing at", False, ("that {x} is pointing at",)),
    ("looking at", True, ("looking at {x}",)), ("looking at", False, ("that {x} is looking at",)),
)  # fmt: skip
PLACING = ("left of", "above")


class Describer:
    """Describes the objects of one scene. What is found out about the scene is kept, because many expressions are tried."""

    def __init__(self, view: View):
        self.view, self.objects = view, view.objects
        self.holds = functools.cache(view.scene.holds)
        self.traits = {item.id: traits(item) for item in self.objects}
        self._places = list(_places(view.scene.size))
        self.places = {item.id: [fact for fact in self._places if fact.fits(item) is True] for item in self.objects}
        self.options = functools.cache(self._options)

    def singles_out(self, facts: Sequence[Fact], item: SceneObject) -> bool:
        """Whether all `facts` are true of `item`, and of every other object one is clearly false."""
        return all(fact.fits(item) is True for fact in facts) and all(
            other is item or any(fact.fits(other) is False for fact in facts) for other in self.objects
        )

    def the(self, item: SceneObject, rng: random.Random, hide: tuple[str, ...] = ("action",)) -> str | None:
        """The shortest description by looks alone, "the red ball"; None if another object looks the same.

        Args:
            hide: attributes that may not be named; with "kind" a ball is a "thing".
        """
        options = self.options(item.id, hide)
        return rng.choice(options) if options else None

    def _options(self, id: int, hide: tuple[str, ...]) -> list[str]:
        item = self.view.scene.object(id)
        name = noun(item, "thing" if "kind" in hide and not item.is_person else None)
        own = [fact for fact in self.traits[id] if fact.name not in hide]
        for count in range(3):
            found = [facts for facts in combinations(own, count) if self.singles_out([name, *facts], item)]
            if found:
                return [compose("the", name, facts).text for facts in found]
        return []

    def extremes(self, item: SceneObject, facts: Sequence[Fact]) -> Iterator[Fact]:
        """Superlatives that pick `item` among the two or more objects that `facts` fit."""
        rivals = [o for o in self.objects if o is not item and all(fact.fits(o) is not False for fact in facts)]
        for words, (relation, holds) in _EXTREMES.items():
            of_size = relation == "larger than"
            if of_size and (item.is_person or any(fact.name == "size" for fact in facts)):
                continue  # an arm that is stretched out makes no larger person
            if rivals and all(self.holds(relation, item.id, rival.id) is holds for rival in rivals):
                yield Fact("extreme", words, lambda other: other is item, "before", not of_size)

    @functools.cached_property
    def _related(self) -> dict[int, list[tuple]]:
        """Object id -> (relation, whether it comes first, words, the other object), of all that clearly holds."""
        found: dict[int, list[tuple]] = {item.id: [] for item in self.objects}
        for item, other in permutations(self.objects, 2):
            for relation, first, words in _RELATED:
                if self.holds(relation, *((item.id, other.id) if first else (other.id, item.id))) is True:
                    found[item.id].append((relation, first, words, other))
        return found

    def related(self, item: SceneObject, rng: random.Random, place: bool = True) -> Fact | None:
        """One thing that can be said of an object by its relation to another one, which is described by its looks."""
        options = [each for each in self._related[item.id] if place or each[0] not in PLACING]
        while options:
            relation, first, words, other = options.pop(rng.randrange(len(options)))
            name = self.the(other, rng)
            if name is not None:
                test = functools.partial(self._relates, relation, first, other)
                return Fact(relation, rng.choice(words).format(x=name), test, "clause", relation in PLACING)
        return None

    def _relates(self, relation: str, first: bool, other: SceneObject, one: SceneObject) -> bool | None:
        pair = (one.id, other.id) if first else (other.id, one.id)
        return False if one is other else self.holds(relation, *pair)

    def refer(self, item: SceneObject, rng: random.Random, place: bool, full: bool = False) -> Reference | None:
        """An expression that singles `item` out; None if none was found. One in 50 may be very short.

        Args:
            place: whether it may say where the object is, in the picture or beside another object; most then do, the others say
                more of its looks.
            full: a grammatical noun phrase with more detail, as in RefCOCOg, rather than words as people type them in a hurry.
        """
        least = 1 if rng.random() < 0.02 else 5 if full else 3  # words
        for _ in range(40):
            other_word = not item.is_person and rng.random() < 0.1
            name = noun(item, rng.choice(("thing", "object")) if other_word else None)
            facts = rng.sample(self.traits[item.id], rng.choice((0, 1, 1, 2) if place and not full else (1, 2, 2, 3)))
            more = self._more(item, rng, [name, *facts], place, full)
            if more and not (more.slot == "clause" and any(fact.slot == "clause" for fact in facts)):
                facts.append(more)
            link = rng.choice(("", "who is" if item.is_person else "that is")) if full else ""
            found = compose(rng.choice(("the", "the", "a")) if full else "the", name, facts, link)
            if not full and rng.random() < 0.7:
                found = _hasty(found)
            if len(found.text.split()) >= least and self.singles_out([name, *facts], item):
                return found
        return None

    def _more(self, item, rng, facts, place, full) -> Fact | None:
        """A fact beyond looks: a relation, a superlative or a place."""
        usual = ("related", "extreme", "where", "where", "none") if place else ("related", "extreme", *("none",) * 4)
        what = rng.choice(("related", "related", "none") if full else usual)
        if what == "related":
            return self.related(item, rng, place)
        options = (
            list(self.extremes(item, facts)) if what == "extreme" else self.places[item.id] if what == "where" else []
        )
        options = [fact for fact in options if place or not fact.place]
        return rng.choice(options) if options else None


def compose(determiner: str, name: Fact, facts: Sequence[Fact], link: str = "") -> Reference:
    """The words in order. `determiner` is "the", "a" or nothing; `link` ("that is") opens a clause."""
    order = ["extreme", "where", "mood", "size", "material", "colour", "headgear"]
    facts = sorted(facts, key=lambda fact: order.index(fact.name) if fact.name in order else len(order))
    slots = {
        slot: [fact.words for fact in facts if fact.slot == slot] for slot in ("before", "with", "clause", "where")
    }
    head = " ".join([*slots["before"], name.words])
    head = article(head) if determiner == "a" else f"{determiner} {head}".strip()
    start = len(head.split(" ")[0]) + 1 if determiner else 0
    clauses = [words if words.startswith("that ") else f"{link} {words}".strip() for words in slots["clause"]]
    return Reference(" ".join([head, *slots["with"], *clauses, *slots["where"]]), (start, len(head)))


def _hasty(reference: Reference) -> Reference:
    """Without articles."""

    def dropped(text):
        return re.sub(r"\b(the|a|an) ", "", text)

    before, head = reference.text[: reference.head[0]], reference.text[slice(*reference.head)]
    start = len(dropped(before))
    return Reference(dropped(reference.text), (start, start + len(dropped(head))))
