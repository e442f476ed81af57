"""Rules that people decide: what they need and feel, what they point and look at, who of several."""

import math
import random

from ..evidence import Case, grid, in_words, other, person_grid, thing_grid
from ..wording import View, article, doing, truth
from ..world import ACTIONS, COLOURS, HEADGEAR, KINDS, SceneObject
from .things import WEATHER, pick

ACTIVE = ("running", "jumping", "kicking")
_CALM = tuple(a for a in ACTIONS if a not in ACTIVE)


def _under_umbrella(view: View, person: SceneObject) -> bool:
    return person.action == "holding" and view.scene.object(person.target).kind == "umbrella"


def need(view: View, rng: random.Random) -> Case | None:
    person = pick(rng, view.people)
    if person is None or _under_umbrella(view, person):
        return None
    place, bare = view.scene.setting, person.headgear == "none"
    if place == "rain":
        outcome, where, because = "umbrella", "in the rain", WEATHER[place]
    elif place == "sun" and bare:
        outcome, where, because = (
            "hat",
            "in the sun without headgear",
            WEATHER[place] + " and {a} has nothing on the head",
        )
    elif place == "sun":
        outcome, where, because = (
            "drink",
            "in the sun with headgear",
            WEATHER[place] + " and {a} has " + article(person.headgear),
        )
    else:
        outcome, where, because = "nothing", "where it is dry", WEATHER[place]
    also = [(None, "setting")] + ([(person.id, "headgear")] if place == "sun" else [])
    rationales = person_grid(view, rng, person, "{a} in the {x} shirt is {y} " + where)
    return Case(outcome, [person], because, rationales, truth([person], also=also))


def head(view: View, rng: random.Random) -> Case | None:
    person, place = pick(rng, view.people), view.scene.setting
    if person is None or place not in ("rain", "sun") or _under_umbrella(view, person):
        return None
    bare = person.headgear == "none"
    because = f"{WEATHER[place]} and {{a}} has {'nothing on the head' if bare else article(person.headgear)}"
    if bare:
        rationales = person_grid(view, rng, person, "{a} in the {x} shirt is {y} without headgear")
    else:
        colour = other(rng, person.colour, COLOURS, [o.colour for o in view.people])
        headgear = other(rng, person.headgear, HEADGEAR[1:], [o.headgear for o in view.people])
        rationales = grid("{a} wears a {x} shirt and a {y}", (person.colour, colour), (person.headgear, headgear))
    why = truth([person], "headgear", also=[(None, "setting")])
    return Case(f"{place} {'bare' if bare else 'covered'}", [person], because, rationales, why)


def help(view: View, rng: random.Random) -> Case | None:
    """By mood, and by weather for those who are happy; whoever is both unhappy and wet is left out."""
    person, rain = pick(rng, view.people), view.scene.setting == "rain"
    if person is None or (rain and (person.mood != "happy" or _under_umbrella(view, person))):
        return None
    if rain:
        outcome, because, template = (
            "rain",
            "{a} looks happy but it is raining",
            "{a} in the {x} shirt is {y} in the rain",
        )
    else:
        outcome, template = person.mood, "{a} in the {x} shirt looks " + person.mood + " while {y}"
        because = "{a} looks " + person.mood + (" and it is not raining" if person.mood == "happy" else "")
    return Case(
        outcome,
        [person],
        because,
        person_grid(view, rng, person, template),
        truth([person], "mood", also=[(None, "setting")]),
    )


def mood(view: View, rng: random.Random) -> Case | None:
    """Cases with two possible reasons, or none, are left out."""
    person = pick(rng, view.people)
    if person is None:
        return None
    happy, place, company, active = (
        person.mood == "happy",
        view.scene.setting,
        len(view.people) > 1,
        person.action in ACTIVE,
    )
    if happy and company and place == "sun" and not active:
        outcome, because = "sun", "{a} looks happy and the sun is shining"
    elif happy and company and place in ("indoor", "outdoor") and active:
        outcome, because = "active", "{a} looks happy while " + doing(person.action)
    elif not happy and company and place == "rain" and not active:
        outcome, because = "rain", "{a} looks " + person.mood + " and it is raining"
    elif not happy and not company and place in ("indoor", "outdoor") and not active:
        outcome, because = "alone", "{a} looks " + person.mood + " and nobody else is there"
    else:
        return None
    template = "{a} in the {x} shirt looks " + person.mood + " while {y}"
    why = truth(
        view.people if outcome == "alone" else [person],
        "kind",
        also=[(person.id, "mood"), (person.id, "action"), (None, "setting")],
    )
    return Case(outcome, [person], because, person_grid(view, rng, person, template, ACTIVE if active else _CALM), why)


def point(view: View, rng: random.Random) -> Case | None:
    person = pick(rng, [p for p in view.people if p.action == "pointing"])
    if person is None:
        return None
    target = view.scene.object(person.target)
    pair, also, relations = [person, target], [(target.id, "kind")], [("pointing at", person.id, target.id)]
    if target.kind == "person":
        rationales = person_grid(view, rng, target, "{b} is a person in a {x} shirt, {y}")
        return Case("person", pair, "{b} is a person", rationales, truth(pair, also=also, relations=relations))
    looks = "{a} looks " + person.mood + " and {b} is "
    rationales = thing_grid(view, rng, target, KINDS, looks + "a {x} {y}")
    return Case(
        person.mood,
        pair,
        looks + article(target.kind),
        rationales,
        truth(pair, also=[(person.id, "mood"), *also], relations=relations),
    )


def look(view: View, rng: random.Random) -> Case | None:
    found = pick(
        rng,
        [
            (p, o)
            for p in view.people
            for o in view.people
            if p is not o and o.action != "kicking" and view.has("looking at", p, o)
        ],
    )
    if found is None:
        return None
    person, seen = found
    colour = other(rng, seen.colour, COLOURS, [o.colour for o in view.people])
    sides = ("left", "right") if person.facing == "left" else ("right", "left")
    rationales = grid(
        "{b} in the {x} shirt is " + doing(seen.action) + " and {a} faces {y}", (seen.colour, colour), sides
    )
    why = truth([person, seen], also=[(seen.id, "action")], relations=[("looking at", person.id, seen.id)])
    return Case(seen.action, [person, seen], "{b} is " + doing(seen.action), rationales, why)


def reach(view: View, rng: random.Random) -> Case | None:
    """The closer one gets there first, unless that one is sitting."""
    if len(view.people) < 2:
        return None
    pair, found = rng.sample(view.people, 2), None
    sits = [p.action == "sitting" for p in pair]
    for goal in rng.sample(view.things, len(view.things)):
        far, near = sorted((math.dist(p.centre, goal.centre), i) for i, p in enumerate(pair))[::-1]
        if (
            goal.id in (pair[0].target, pair[1].target)
            or far[0] < 1.3 * near[0]
            or (any(sits) and not (sits[near[1]] and not sits[far[1]]))
        ):
            continue
        found = goal, far[1] if any(sits) else near[1]
    if found is None:
        return None
    goal, winner = found
    name, loser = ("{b}", "{c}") if winner == 0 else ("{c}", "{b}")
    because = (
        f"{loser} is closer to {{a}} but is sitting"
        if any(sits)
        else f"nobody is sitting and {name} is closer to {{a}}"
    )
    rationales = person_grid(
        view, rng, pair[winner], name + " in the {x} shirt is {y}", [a for a in ACTIONS if a != "sitting"]
    )
    why = truth([goal, *pair], also=[(p.id, "action") for p in pair])
    return Case(
        f"{'first' if winner == 0 else 'second'} {'free' if any(sits) else 'closer'}",
        [goal, *pair],
        because,
        rationales,
        why,
    )


def either(attribute: str, values: tuple[str, ...]):
    """Which of two things (kind) or people (action) have a property: those whose `attribute` is among `values`."""
    every = KINDS if attribute == "kind" else ACTIONS

    def apply(view: View, rng: random.Random) -> Case | None:
        group = view.things if attribute == "kind" else view.people
        if len(group) < 2:
            return None
        pair = rng.sample(group, 2)
        facts = [o.attributes[attribute] for o in pair]
        fits = tuple(fact in values for fact in facts)
        shown = [o.attributes[attribute] for o in group]
        changed = [
            other(rng, fact, [v for v in every if (v in values) is fit], shown) for fact, fit in zip(facts, fits)
        ]
        rationales = grid(
            "{a} is {x} and {b} is {y}",
            *((in_words(attribute, f), in_words(attribute, c)) for f, c in zip(facts, changed)),
        )
        outcome = {(True, False): "first", (False, True): "second", (True, True): "both", (False, False): "neither"}[
            fits
        ]
        return Case(outcome, pair, rationales[0], rationales, truth(pair, attribute))

    return apply
