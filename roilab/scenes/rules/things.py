"""Rules that a thing decides: what it is for, what may happen to it, who holds or kicks it."""

import random

from ..evidence import Case, thing_grid
from ..wording import View, article, truth
from ..world import KINDS


def _classes(**kinds: str) -> dict[str, str]:
    """kind -> outcome, from outcome="kind kind ..."."""
    return {kind: outcome for outcome, names in kinds.items() for kind in names.split()}


def _same_class(classes: dict[str, str], kind: str) -> list[str]:
    return [k for k in KINDS if classes.get(k) == classes[kind]]


def pick(rng: random.Random, items):
    return rng.choice(items) if items else None


KICKED = _classes(roll="ball clock car", breaks="bottle cup lamp", fall="chair umbrella kite", stay="house boat box")
RISKS = _classes(shatter="bottle cup lamp", wind="umbrella kite ball", stop="car clock", sink="boat")
USES = _classes(
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
WEATHER = {
    "indoor": "this is indoors",
    "outdoor": "the weather is dry",
    "rain": "it is raining",
    "sun": "the sun is shining",
}


def by_kind(classes: dict[str, str], with_person: bool = False):
    """The kind of a thing decides; where a person comes first, the thing is {b}."""
    name = "{b}" if with_person else "{a}"

    def apply(view: View, rng: random.Random) -> Case | None:
        item = pick(rng, [o for o in view.things if o.kind in classes])
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


def held(view: View, rng: random.Random) -> Case | None:
    person = pick(rng, [p for p in view.people if p.action == "holding"])
    if person is None:
        return None
    item = view.scene.object(person.target)
    rationales = thing_grid(view, rng, item, _same_class(_HOLDING, item.kind), "{b} is a {x} {y}")
    why = truth([person, item], also=[(item.id, "kind")], relations=[("holding", person.id, item.id)])
    return Case(_HOLDING[item.kind], [person, item], "{b} is " + article(item.kind), rationales, why)


def kicked(view: View, rng: random.Random) -> Case | None:
    person = pick(rng, [p for p in view.people if p.action == "kicking"])
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


def carry(view: View, rng: random.Random) -> Case | None:
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


def umbrella(view: View, rng: random.Random) -> Case | None:
    item = pick(rng, [o for o in view.things if o.kind == "umbrella"])
    if item is None or not view.people:
        return None
    objects, weather = [rng.choice(view.people), item], WEATHER[view.scene.setting]
    rationales = thing_grid(view, rng, item, ["umbrella"], "{b} is a {x} {y} and " + weather)
    why = truth(objects, also=[(item.id, "kind"), (None, "setting")])
    return Case(view.scene.setting, objects, "{b} is an umbrella and " + weather, rationales, why)
