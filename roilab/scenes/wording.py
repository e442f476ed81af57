"""Words for the scene world: noun phrases, lists, region mentions, and the `Question` record.

British spelling, short sentences, small vocabulary: a language model of a few million parameters learns them. A region is written
`<region1>`, `<region2>`, ... in the order in which the question mentions it.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .world import Scene, SceneObject

Box = tuple[float, float, float, float]
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PLACES = {"indoor": "indoors", "outdoor": "outdoors", "rain": "outdoors in the rain", "sun": "outdoors in the sun"}
DOING = {"pointing": "pointing at something", "holding": "holding something", "kicking": "kicking something"}
_MENTION = re.compile(r"<region(\d+)>")


@dataclass(frozen=True)
class Slot:
    """What a box is a box of: one object, a part of it (`part`), a pair (two objects) or a group (three or more)."""

    objects: tuple[int, ...]
    part: str | None = None


@dataclass(frozen=True)
class Question:
    """One question about a scene, with its true answer.

    Args:
        family: one of `FAMILIES`.
        text: the question; mentions `<region1>`, ... in the order of `boxes`.
        answer: one phrasing of the answer; it mentions only regions of the question.
        answers: every accepted phrasing, `answer` among them.
        boxes: one (x1, y1, x2, y2) per region, pixels of the scene's picture, origin top left.
        truth: what decides the answer: `objects` [id], `attributes` [(id, name)] (id None: the scene's), `relations` [(name, id, id)].
        choices: the four-choice form (family "vcr"): `question`, `rule`, `answers` [4], `answer_label`, `rationales` [4],
            `rationale_label`; None for the other families.
        slots: one per box.
    """

    family: str
    text: str
    answer: str
    answers: tuple[str, ...]
    boxes: tuple[Box, ...]
    truth: dict = field(repr=False)
    choices: dict | None = field(default=None, repr=False)
    slots: tuple[Slot, ...] = ()


class View:
    """A scene's objects by role, with the lookups that the question families share."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.objects = scene.objects
        self.people = [o for o in scene.objects if o.kind == "person"]
        self.things = [o for o in scene.objects if o.kind != "person"]

    def holds(self, name: str, one: SceneObject, two: SceneObject) -> bool | None:
        return self.scene.holds(name, one.id, two.id)

    def has(self, name: str, person: SceneObject, other: SceneObject) -> bool:
        return self.scene.holds(name, person.id, other.id) is True


def union(boxes: Iterable[Box]) -> Box:
    """The smallest box around all boxes."""
    sides = list(zip(*boxes))
    return min(sides[0]), min(sides[1]), max(sides[2]), max(sides[3])


def shuffled(rng: random.Random, items: Iterable) -> list:
    items = list(items)
    rng.shuffle(items)
    return items


def article(phrase: str) -> str:
    """`phrase` with "a" or "an" before it."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def listing(items: Sequence[str], last: str = "and") -> str:
    """ "x", "x and y", "x, y and z"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def count_phrase(number: int, one: str, many: str) -> str:
    return f"{NUMBERS[number]} {one if number == 1 else many}"


def short_phrase(item: SceneObject) -> str:
    """ "a red car", "a person in a blue shirt"."""
    if item.kind == "person":
        return f"a person in {article(item.colour + ' shirt')}"
    return article(f"{item.colour} {item.kind}")


def doing(action: str) -> str:
    return DOING.get(action, action)


def long_phrase(item: SceneObject) -> str:
    """Everything visible: "a large striped red car", "a happy person in a blue shirt and a cap, waving"."""
    if item.kind != "person":
        return article(f"{item.size} {item.material} {item.colour} {item.kind}")
    wearing = [article(f"{item.colour} shirt")] + ([article(item.headgear)] if item.headgear != "none" else [])
    return f"{article(item.mood)} person in {listing(wearing)}, {doing(item.action)}"


def mentions(text: str) -> list[int]:
    """Region numbers in the order of their first mention."""
    return list(dict.fromkeys(int(n) for n in _MENTION.findall(text)))


def renumber(text: str, numbers: dict[int, int]) -> str:
    """Replace every `<regionN>` by `<regionM>`, M = numbers[N], all at once.

    Raises:
        ValueError: a mention that `numbers` does not cover.
    """

    def replace(match: re.Match) -> str:
        old = int(match[1])
        if old not in numbers:
            raise ValueError(f"{match[0]} is mentioned, but only regions {sorted(numbers)} are renumbered")
        return f"<region{numbers[old]}>"

    return _MENTION.sub(replace, text)


def plain(text: str) -> str:
    """`<region2>` -> `region2`: how a model writes a region, to compare its answers with."""
    return _MENTION.sub(r"region\1", text)


REGION_NAMES = {letter: f"<region{i}>" for i, letter in enumerate("abcdef", 1)}


def truth(objects: Sequence[SceneObject], *attributes: str, also: Sequence = (), relations: Sequence = ()) -> dict:
    """The same `attributes` of each of `objects` decide, and the pairs (id, name) in `also`, and the `relations`."""
    pairs = [(o.id, name) for o in objects for name in attributes]
    return {"objects": [o.id for o in objects], "attributes": pairs + list(also), "relations": list(relations)}


def ask(rng: random.Random, family: str, texts: Sequence[str], answers: Sequence[str], objects: Sequence[SceneObject], why: dict,
        slots: Sequence[Slot] | None = None, boxes: Sequence[Box] | None = None, **words: str) -> Question:  # fmt: skip
    """Make a question from templates, in which {a}, {b}, ... stand for the regions of `objects` in order.

    `slots` and `boxes` override what the regions are; by default each is the box of one object.
    """
    names = REGION_NAMES | words if words else REGION_NAMES
    filled = tuple([text.format_map(names) for text in answers])
    return Question(
        family, rng.choice(texts).format_map(names), rng.choice(filled), filled,
        tuple(boxes if boxes is not None else [o.box for o in objects]), why, None,
        tuple(slots if slots is not None else [Slot((o.id,)) for o in objects]),
    )  # fmt: skip
