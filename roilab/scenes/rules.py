"""The commonsense rules of the scene world: how each is asked, what its outcomes are, and how it applies to a scene.

Of a rule's outcomes exactly one is true of the regions it is asked about; a scene that leaves it open gives no case. To invent
a rule: write a function (view, rng) -> `Case` or None, and add a `Rule` with at least four outcomes to `RULES`.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from .evidence import Case, grid, in_words, other, person_grid, thing_grid
from .wording import View, article, doing, truth
from .world import ACTIONS, COLOURS, HEADGEAR, KINDS, SceneObject


@dataclass(frozen=True)
class Rule:
    """A rule family.

    Args:
        texts: phrasings of the question; {a}, {b}, ... are the regions, first mentioned in this order.
        answers: outcome -> its words, a clause; at least four.
        apply: (view, rng) -> a case of a randomly chosen region, or None.
        verdicts: outcome -> words for the free-form answer, where `answers` would repeat the evidence.
    """

    texts: tuple[str, ...]
    answers: dict[str, str]
    apply: Callable[[View, random.Random], Case | None]
    verdicts: dict[str, str] | None = None


def _classes(**kinds: str) -> dict[str, str]:
    """kind -> outcome, from outcome="kind kind ..."."""
    return {kind: outcome for outcome, names in kinds.items() for kind in names.split()}


def _same_class(classes: dict[str, str], kind: str) -> list[str]:
    return [k for k in KINDS if classes.get(k) == classes[kind]]


def _pick(rng: random.Random, items):
    return rng.choice(items) if items else None


_KICKED = _classes(roll="ball clock car", breaks="bottle cup lamp", fall="chair umbrella kite", stay="house boat box")
_RISKS = _classes(shatter="bottle cup lamp", wind="umbrella kite ball", stop="car clock", sink="boat")
_USES = _classes(
    play="ball kite",
    drink="cup bottle",
    travel="car boat",
    sit="chair box",
    read="lamp",
    time="clock",
    shelter="house umbrella",
)
_HOLDING = _classes(
    play="ball kite",
    drink="cup bottle",
    travel="car boat",
    move="house box",
    light="lamp",
    time="clock",
    sit="chair",
    dry="umbrella",
)
_ROLLING = ("ball", "clock", "car")
_ACTIVE = ("running", "jumping", "kicking")
_CALM = tuple(a for a in ACTIONS if a not in _ACTIVE)
_WEATHER = {
    "indoor": "this is indoors",
    "outdoor": "the weather is dry",
    "rain": "it is raining",
    "sun": "the sun is shining",
}


# --- things -----------------------------------------------------------------------------------------------------------------


def _by_kind(classes: dict[str, str], with_person: bool = False):
    """The kind of a thing decides; where a person comes first, the thing is {b}."""
    name = "{b}" if with_person else "{a}"

    def apply(view: View, rng: random.Random) -> Case | None:
        item = _pick(rng, [o for o in view.things if o.kind in classes])
        if item is None or (with_person and not view.people):
            return None
        objects = [rng.choice(view.people), item] if with_person else [item]
        rationales = thing_grid(view, rng, item, _same_class(classes, item.kind), name + " is a {x} {y}")
        return Case(
            classes[item.kind],
            objects,
            f"{name} is {article(item.kind)}",
            rationales,
            truth(objects, also=[(item.id, "kind")]),
        )

    return apply


def _held(view: View, rng: random.Random) -> Case | None:
    person = _pick(rng, [p for p in view.people if p.action == "holding"])
    if person is None:
        return None
    item = view.scene.object(person.target)
    rationales = thing_grid(view, rng, item, _same_class(_HOLDING, item.kind), "{b} is a {x} {y}")
    why = truth([person, item], also=[(item.id, "kind")], relations=[("holding", person.id, item.id)])
    return Case(_HOLDING[item.kind], [person, item], "{b} is " + article(item.kind), rationales, why)


def _kicked(view: View, rng: random.Random) -> Case | None:
    person = _pick(rng, [p for p in view.people if p.action == "kicking"])
    if person is None:
        return None
    item, side = view.scene.object(person.target), person.facing
    rolls = item.kind in _ROLLING
    rationales = thing_grid(
        view, rng, item, [k for k in KINDS if (k in _ROLLING) is rolls], "{b} is a {x} {y} and {a} faces " + side
    )
    because = "{b} is " + article(item.kind) + " and {a} faces " + side
    why = truth(
        [person, item], also=[(item.id, "kind"), (person.id, "facing")], relations=[("kicking", person.id, item.id)]
    )
    return Case(f"{'roll' if rolls else 'slide'} {side}", [person, item], because, rationales, why)


def _carry(view: View, rng: random.Random) -> Case | None:
    if not view.people or not view.things:
        return None
    person, item = rng.choice(view.people), rng.choice(view.things)
    if person.action == "holding" and rng.random() < 0.5:
        item = view.scene.object(person.target)
    why = truth([person, item], also=[(item.id, "size")], relations=[("holding", person.id, item.id)])
    if view.has("holding", person, item):
        return Case(
            "held",
            [person, item],
            "{a} is holding {b}",
            thing_grid(view, rng, item, KINDS, "{a} is holding {b}, a {x} {y}"),
            why,
        )
    rationales = thing_grid(view, rng, item, KINDS, "{b} is a " + item.size + " {x} {y}")
    return Case(item.size, [person, item], "{b} is " + item.size, rationales, why)


def _umbrella(view: View, rng: random.Random) -> Case | None:
    item = _pick(rng, [o for o in view.things if o.kind == "umbrella"])
    if item is None or not view.people:
        return None
    objects, weather = [rng.choice(view.people), item], _WEATHER[view.scene.setting]
    rationales = thing_grid(view, rng, item, ["umbrella"], "{b} is a {x} {y} and " + weather)
    why = truth(objects, also=[(item.id, "kind"), (None, "setting")])
    return Case(view.scene.setting, objects, "{b} is an umbrella and " + weather, rationales, why)


# --- people -----------------------------------------------------------------------------------------------------------------


def _under_umbrella(view: View, person: SceneObject) -> bool:
    return person.action == "holding" and view.scene.object(person.target).kind == "umbrella"


def _need(view: View, rng: random.Random) -> Case | None:
    person = _pick(rng, view.people)
    if person is None or _under_umbrella(view, person):
        return None
    place, bare = view.scene.setting, person.headgear == "none"
    if place == "rain":
        outcome, where, because = "umbrella", "in the rain", _WEATHER[place]
    elif place == "sun" and bare:
        outcome, where, because = (
            "hat",
            "in the sun without headgear",
            _WEATHER[place] + " and {a} has nothing on the head",
        )
    elif place == "sun":
        outcome, where, because = (
            "drink",
            "in the sun with headgear",
            _WEATHER[place] + " and {a} has " + article(person.headgear),
        )
    else:
        outcome, where, because = "nothing", "where it is dry", _WEATHER[place]
    also = [(None, "setting")] + ([(person.id, "headgear")] if place == "sun" else [])
    rationales = person_grid(view, rng, person, "{a} in the {x} shirt is {y} " + where)
    return Case(outcome, [person], because, rationales, truth([person], also=also))


def _head(view: View, rng: random.Random) -> Case | None:
    person, place = _pick(rng, view.people), view.scene.setting
    if person is None or place not in ("rain", "sun") or _under_umbrella(view, person):
        return None
    bare = person.headgear == "none"
    because = f"{_WEATHER[place]} and {{a}} has {'nothing on the head' if bare else article(person.headgear)}"
    if bare:
        rationales = person_grid(view, rng, person, "{a} in the {x} shirt is {y} without headgear")
    else:
        colour = other(rng, person.colour, COLOURS, [o.colour for o in view.people])
        headgear = other(rng, person.headgear, HEADGEAR[1:], [o.headgear for o in view.people])
        rationales = grid("{a} wears a {x} shirt and a {y}", (person.colour, colour), (person.headgear, headgear))
    why = truth([person], "headgear", also=[(None, "setting")])
    return Case(f"{place} {'bare' if bare else 'covered'}", [person], because, rationales, why)


def _help(view: View, rng: random.Random) -> Case | None:
    """By mood, and by weather for those who are happy; whoever is both unhappy and wet is left out."""
    person, rain = _pick(rng, view.people), view.scene.setting == "rain"
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


def _mood(view: View, rng: random.Random) -> Case | None:
    """Cases with two possible reasons, or none, are left out."""
    person = _pick(rng, view.people)
    if person is None:
        return None
    happy, place, company, active = (
        person.mood == "happy",
        view.scene.setting,
        len(view.people) > 1,
        person.action in _ACTIVE,
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
    return Case(outcome, [person], because, person_grid(view, rng, person, template, _ACTIVE if active else _CALM), why)


def _point(view: View, rng: random.Random) -> Case | None:
    person = _pick(rng, [p for p in view.people if p.action == "pointing"])
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


def _look(view: View, rng: random.Random) -> Case | None:
    found = _pick(
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


def _reach(view: View, rng: random.Random) -> Case | None:
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


# --- two things or people: only one, both or neither ------------------------------------------------------------------------------


def _either(attribute: str, values: tuple[str, ...]):
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


def _four(verb: str) -> dict[str, str]:
    return {
        "first": "only {a} " + verb,
        "second": "only {b} " + verb,
        "both": "both of them " + verb,
        "neither": "neither of them " + verb,
    }


RULES = {
    "kick": Rule(
        ("What will happen if someone kicks {a}?", "Someone kicks {a}. What happens next?", "What would a kick do to {a}?"),
        {"roll": "it will roll away", "breaks": "it will break", "fall": "it will fall over", "stay": "it will hardly move"},
        _by_kind(_KICKED),
    ),
    "kicked": Rule(
        ("{a} is kicking {b}. What happens next?", "Where will {a} kick {b} to?", "{a} kicks {b}. Where will it go?"),
        {f"{verb} {side}": f"it will {verb} to the {side}" for verb in ("roll", "slide") for side in ("left", "right")},
        _kicked,
    ),
    "risk": Rule(
        ("What could go wrong with {a}?", "What could happen to {a} one day?", "What is the danger for {a}?"),
        {"shatter": "it could fall and break", "wind": "the wind could carry it off", "stop": "it could stop running", "sink": "it could sink"},
        _by_kind(_RISKS),
    ),
    "use": Rule(
        ("What would {a} do with {b}?", "What could {a} use {b} for?", "How could {a} use {b}?"),
        {
            "play": "{a} could play with it", "drink": "{a} could drink from it", "travel": "{a} could travel in it", "sit": "{a} could sit on it",
            "read": "{a} could read by its light", "time": "{a} could tell the time", "shelter": "{a} could keep dry with it",
        },
        _by_kind(_USES, with_person=True),
    ),
    "holding": Rule(
        ("Why is {a} holding {b}?", "What is {a} holding {b} for?", "Why does {a} hold {b}?"),
        {
            "play": "{a} wants to play", "drink": "{a} is thirsty", "travel": "{a} wants to travel", "move": "{a} is moving house",
            "light": "{a} needs more light", "time": "{a} wants to know the time", "sit": "{a} wants to sit down", "dry": "{a} wants some cover",
        },
        _held,
    ),
    "carry": Rule(
        ("How could {a} move {b}?", "How would {a} carry {b}?", "What does it take for {a} to lift {b}?"),
        {"small": "one hand is enough", "medium": "it takes both arms", "large": "a friend has to help", "held": "it is already in hand"},
        _carry,
    ),
    "umbrella": Rule(
        ("What should {a} do with {b} now?", "How can {a} use {b} now?", "What is the best that {a} can do with {b}?"),
        {"indoor": "leave it closed", "outdoor": "take it along closed", "rain": "open it to keep dry", "sun": "open it for some shade"},
        _umbrella,
    ),
    "need": Rule(
        ("What does {a} need in this weather?", "What would help {a} in this weather?", "What does the weather make {a} need?"),
        {"umbrella": "{a} needs an umbrella", "hat": "{a} needs headgear", "drink": "{a} needs a cold drink", "nothing": "{a} needs nothing"},
        _need,
    ),
    "head": Rule(
        ("What happens to the head of {a}?", "How does the head of {a} feel?", "What does the weather do to the head of {a}?"),
        {"rain bare": "it gets wet", "rain covered": "it stays dry", "sun bare": "it gets hot", "sun covered": "it stays cool"},
        _head,
    ),
    "help": Rule(
        ("How could a friend help {a}?", "What could a friend do for {a}?", "What should a friend do for {a}?"),
        {"sad": "say a kind word", "angry": "stay calm and listen", "happy": "no help is needed", "rain": "share an umbrella"},
        _help,
    ),
    "mood": Rule(
        ("Why does {a} feel like this?", "What causes the mood of {a}?", "Where does the mood of {a} come from?"),
        {"sun": "it comes from the sun", "active": "it comes from moving", "rain": "it comes from the rain", "alone": "it comes from being alone"},
        _mood,
    ),
    "pointing": Rule(
        ("Why is {a} pointing at {b}?", "What does {a} mean by pointing at {b}?", "Why does {a} point at {b}?"),
        {"person": "{a} is calling {b}", "happy": "{a} likes {b}", "sad": "{a} would like to have {b}", "angry": "{a} wants {b} taken away"},
        _point,
    ),
    "looking": Rule(
        ("Why is {a} looking at {b}?", "What makes {a} look at {b}?", "Why does {a} look at {b}?"),
        {
            "standing": "{b} is waiting", "running": "{b} is in a hurry", "sitting": "{b} is having a rest", "jumping": "{b} is full of joy",
            "waving": "{b} is saying hello", "pointing": "{b} has found something", "holding": "{b} has brought something",
        },
        _look,
    ),
    "reach": Rule(
        ("Who will reach {a} first, {b} or {c}?", "Who can get to {a} sooner, {b} or {c}?", "Who is the first to reach {a}, {b} or {c}?"),
        {
            "first closer": "{b}, who is closer", "second closer": "{c}, who is closer",
            "first free": "{b}, since {c} is sitting", "second free": "{c}, since {b} is sitting",
        },
        _reach,
        {"first closer": "{b} will", "second closer": "{c} will", "first free": "{b} will", "second free": "{c} will"},
    ),
    "tired": Rule(
        ("Who will be tired soon, {a} or {b}?", "Who of {a} and {b} will need a rest?", "Who will be out of breath soon, {a} or {b}?"),
        _four("will"),
        _either("action", _ACTIVE),
    ),
    "shelter": Rule(
        ("Which could keep somebody dry, {a} or {b}?", "Which of {a} and {b} could help against the rain?", "What could keep the rain off, {a} or {b}?"),
        _four("could"),
        _either("kind", ("house", "car", "umbrella")),
    ),
    "float": Rule(
        ("Which would float on water, {a} or {b}?", "Which of {a} and {b} would float?", "What would swim on water, {a} or {b}?"),
        _four("would"),
        _either("kind", ("ball", "boat", "bottle", "box")),
    ),
    "seat": Rule(
        ("Which could be a seat, {a} or {b}?", "Which of {a} and {b} could serve as a seat?", "Where could one sit down, {a} or {b}?"),
        _four("could"),
        _either("kind", ("chair", "box", "car", "boat")),
    ),
}  # fmt: skip
"""name -> rule family."""
