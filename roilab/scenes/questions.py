"""Question families about what is in the regions: attributes, granularity, counting, and the whole picture.

Each family is a generator of questions about a scene, in random order. Answers of hard families name the evidence before the
verdict ("region1 and region3, so two."): a small model finds it easier to decide what it has just said.
"""

import itertools
import random
from collections.abc import Iterator

from .wording import (
    NUMBERS,
    PLACES,
    Question,
    Slot,
    View,
    article,
    ask,
    count_phrase,
    doing,
    listing,
    long_phrase,
    short_phrase,
    shuffled,
    truth,
    union,
)

_ATTRIBUTES = {  # family: (attribute, who has it, questions, answers); {x} is the value in words
    "kind": ("kind", "all", ("What is {a}?", "What kind of object is {a}?", "What do you see at {a}?", "Name {a}."), ("{x}", "It is {x}.", "{a} is {x}.")),
    "shape": ("shape", "things", ("What shape is {a}?", "What is the shape of {a}?", "What shape does {a} have?"), ("{x}", "It has a {x} shape.", "{a} has a {x} shape.")),
    "material": (
        "material", "things",
        ("Is {a} matte, shiny or striped?", "What does the surface of {a} look like?", "What surface does {a} have?", "How is {a} painted?"),
        ("{x}", "It is {x}.", "{a} is {x}."),
    ),
    "size": ("size", "things", ("How large is {a}?", "What size is {a}?", "Is {a} small, medium or large?", "How big is {a}?"), ("{x}", "It is {x}.", "{a} is {x}.")),
    "action": ("action", "people", ("What is {a} doing?", "What does {a} do?", "Which action does {a} show?"), ("{x}", "{a} is {x}.")),
    "mood": ("mood", "people", ("How does {a} feel?", "What mood is {a} in?", "Is {a} happy, sad or angry?"), ("{x}", "{a} is {x}.", "{a} looks {x}.")),
    "headgear": (
        "headgear", "people", ("What is {a} wearing on the head?", "What does {a} have on the head?", "Which headgear does {a} wear?"),
        ("{x}", "{a} has {x} on the head."),
    ),
}  # fmt: skip
_COLOUR = (
    ("What colour is {a}?", "Which colour does {a} have?", "What is the colour of {a}?", "Name the colour of {a}."),
    ("{x}", "It is {x}.", "{a} is {x}."),
)
_SHIRT = (
    ("What colour is the shirt of {a}?", "Which colour does {a} wear?", "What is the colour of {a}'s shirt?"),
    ("{x}", "It is {x}.", "{a} wears {x}."),
)
_DESCRIBE = ("Describe {a}.", "Describe {a} in detail.", "What does {a} look like?", "Give a full description of {a}.")
_SHOW = ("What does {a} show?", "What is inside {a}?", "What can be seen in {a}?", "What does the box of {a} contain?")


def _in_words(name: str, value: str) -> str:
    if name == "kind":
        return article(value)
    if name == "headgear":
        return "nothing" if value == "none" else article(value)
    return doing(value) if name == "action" else value


def attribute(family: str):
    """The family that asks for one attribute of one region."""
    name, group, texts, answers = _ATTRIBUTES[family]

    def generate(view: View, rng: random.Random) -> Iterator[Question]:
        for item in shuffled(rng, view.objects if group == "all" else getattr(view, group)):
            yield ask(
                rng, family, texts, answers, [item], truth([item], name), x=_in_words(name, item.attributes[name])
            )

    return generate


def colour(view: View, rng: random.Random) -> Iterator[Question]:
    for item in shuffled(rng, view.objects):
        texts, answers = _SHIRT if item.kind == "person" else _COLOUR
        yield ask(rng, "colour", texts, answers, [item], truth([item], "colour"), x=item.colour)


def description(view: View, rng: random.Random) -> Iterator[Question]:
    for item in shuffled(rng, view.objects):
        decides = [name for name in item.attributes if name != "shape"]
        yield ask(
            rng, "description", _DESCRIBE, ("{x}", "{a} is {x}."), [item], truth([item], *decides), x=long_phrase(item)
        )


def _alone(view: View, items, box) -> bool:
    """Whether no other object's centre lies inside `box`."""
    return all(
        o in items or not (box[0] < o.centre[0] < box[2] and box[1] < o.centre[1] < box[3]) for o in view.objects
    )


def _group_phrase(items) -> str:
    people = sum(o.kind == "person" for o in items)
    things = len(items) - people
    if not people or not things:
        return f"a group of {NUMBERS[len(items)]} {'people' if people else 'things'}"
    return f"a group of {count_phrase(people, 'person', 'people')} and {count_phrase(things, 'thing', 'things')}"


def granularity(view: View, rng: random.Random) -> Iterator[Question]:
    """Boxes of a part, a thing, a pair or a group: a smaller or larger box has another answer."""
    levels = [_parts(view, rng), _wholes(view, rng), _pairs(view, rng), _groups(view, rng)]
    while levels:
        level = rng.choice(levels)
        found = next(level, None)
        if found is None:
            levels.remove(level)
            continue
        items, part, box, phrase = found
        decides = ("kind",) if len(items) > 2 else ("kind", "colour")
        slot = Slot(tuple(o.id for o in items), part)
        yield ask(
            rng,
            "granularity",
            _SHOW,
            ("{x}", "It shows {x}.", "{a} shows {x}."),
            items,
            truth(items, *decides),
            [slot],
            [box],
            x=phrase,
        )


def _parts(view, rng):
    for item in shuffled(rng, view.objects):
        for name in shuffled(rng, item.parts):
            word = item.headgear if name == "hat" else name
            yield [item], name, rng.choice(item.parts[name]), f"the {word} of {short_phrase(item)}"


def _wholes(view, rng):
    for item in shuffled(rng, view.objects):
        yield [item], None, item.box, short_phrase(item)


def _pairs(view, rng):
    for one, two in shuffled(rng, itertools.permutations(view.objects, 2)):
        box = union(o.box for o in (one, two))
        if view.holds("left of", one, two) and _alone(view, (one, two), box):
            yield [one, two], None, box, f"{short_phrase(one)} and {short_phrase(two)}"


def _groups(view, rng):
    sizes = range(3, len(view.objects) + 1)
    for items in shuffled(rng, (g for n in sizes for g in itertools.combinations(view.objects, n))):
        box = union(o.box for o in items)
        if _alone(view, items, box):
            yield list(items), None, box, _group_phrase(items)


_PLURALS = {"person": "people", "box": "boxes"}
_COUNTED = {  # attribute: how "How many of ... " ends
    "colour": "are {x}", "material": "are {x}", "size": "are {x}", "shape": "have a {x} shape", "mood": "are {x}", "action": "are {x}",
    "kind": "are {x}", "headgear": "have {x} on the head", "shirt": "wear {x}",
}  # fmt: skip


def _values(group) -> Iterator[tuple[str, str]]:
    """(attribute, value) pairs that can be counted over `group`."""
    people = sum(o.kind == "person" for o in group)
    if people == len(group):
        names = ("mood", "action", "headgear", "shirt")
    else:
        names = ("kind",) if people else ("kind", "colour", "material", "size", "shape")
    for name in names:
        for value in {o.attributes["colour" if name == "shirt" else name] for o in group}:
            yield name, value


def _countable(view: View, group) -> dict[int, list[tuple]]:
    """count -> [(name, attribute, value, positions in the group that have it)], values of similar objects outside the group included."""
    groups = {o.kind == "person" for o in group}
    by_count: dict[int, list] = {}
    for name, value in sorted(_values([o for o in view.objects if (o.kind == "person") in groups])):
        fact = "colour" if name == "shirt" else name
        hits = [i for i, o in enumerate(group, 1) if o.attributes[fact] == value]
        by_count.setdefault(len(hits), []).append((name, fact, value, hits))
    return by_count


def counting(view: View, rng: random.Random) -> Iterator[Question]:
    """How many of two to four regions have a property; the count is drawn first, so that it is rarely plain "one"."""
    sizes, asked = [n for n in (2, 3, 4) if n <= len(view.objects)], set()
    for _ in range(4 * len(view.objects)):
        wanted = rng.choice((0, 1, 2, 2, 3))
        for _ in range(6):
            group = rng.sample(view.objects, rng.choice(sizes))
            by_count = _countable(view, group)
            if wanted in by_count:
                break
        else:
            continue
        name, fact, value, hits = rng.choice(by_count[wanted])
        key = (value, frozenset(o.id for o in group))
        if key in asked:
            continue
        asked.add(key)
        words = _PLURALS.get(value, value + "s") if name == "kind" else _in_words(name, value)
        end = _COUNTED[name].format(x=words)
        regions = [f"<region{i + 1}>" for i in range(len(group))]
        texts = (
            f"How many of {listing(regions)} {end}?",
            f"Count: how many of {listing(regions)} {end}?",
            f"Of {listing(regions)}, how many {end}?",
        )
        named = listing([f"<region{i}>" for i in hits]) if hits else "none of them"
        answers = (f"{named}, so {NUMBERS[len(hits)]}.", f"{named}: {NUMBERS[len(hits)]}.")
        yield ask(rng, "counting", texts, answers, group, truth(group, fact))


_CAPTION = ("Describe the picture.", "What does the picture show?", "Give a short caption.", "What is in the picture?")


def caption(view: View, rng: random.Random) -> Iterator[Question]:
    people, things = len(view.people), len(view.things)
    seen = [count_phrase(people, "person", "people")] if people else []
    seen += [count_phrase(things, "thing", "things")] if things else []
    answers = ("{x} {place}", "The picture shows {x} {place}.", "There {be} {x} {place}.")
    why = truth(view.objects, "kind", also=[(None, "setting")])
    be = "is" if (people or things) == 1 else "are"
    yield ask(rng, "caption", _CAPTION, answers, [], why, x=listing(seen), place=PLACES[view.scene.setting], be=be)


_WHERE = ("Where is this?", "Where does this take place?", "What is the setting?", "Where was this picture made?")
_WEATHER = ("What is the weather?", "What is the weather like?", "How is the weather?")
_WEATHER_WORDS = {
    "indoor": ("no weather indoors", "There is no weather indoors."),
    "outdoor": ("cloudy", "It is cloudy."),
    "rain": ("rainy", "It is raining."),
    "sun": ("sunny", "It is sunny."),
}


def setting(view: View, rng: random.Random) -> Iterator[Question]:
    why = truth((), also=[(None, "setting")])
    for form in shuffled(rng, ("where", "weather")):
        if form == "where":
            yield ask(rng, "setting", _WHERE, ("{x}", "It is {x}."), [], why, x=PLACES[view.scene.setting])
        else:
            yield ask(rng, "setting", _WEATHER, _WEATHER_WORDS[view.scene.setting], [], why)


SEEING = {
    "kind": attribute("kind"), "colour": colour, "shape": attribute("shape"), "material": attribute("material"), "size": attribute("size"),
    "action": attribute("action"), "mood": attribute("mood"), "headgear": attribute("headgear"), "description": description,
    "granularity": granularity, "counting": counting, "caption": caption, "setting": setting,
}  # fmt: skip
"""family -> generator(view, rng) of its questions about a scene, in random order."""
