"""Dialogues about the boxes of a picture whose categories are known: what the photo model is taught and asked.

Every answer follows from categories and boxes, but for those of `KNOWLEDGE`: they are the language model's own, to the same question with
the thing's name in the place of the region.

Where an answer has to weigh something, it first says what of each region and then what follows: "It is a laptop, so no." A language model this
small did not learn to say "No" first from five hundred such questions; to conclude from words it has just said, it learned from as many.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from ..evaluation.classification import IRREGULAR

WHAT = "What is <region1>?"
NAMING = (WHAT, WHAT, WHAT, "What do you see in <region1>?", "What is in <region1>?", "Name <region1>.")
KNOWLEDGE = {"use": "What is {} used for?", "tell": "Tell me about {}."}
"""Kind -> the question; {} is the region, and beforehand, where the language model is asked for the answer, the thing."""

CATEGORIES = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter bench bird cat dog horse "
    "sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee skis snowboard sports_ball kite baseball_bat "
    "baseball_glove skateboard surfboard tennis_racket bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli "
    "carrot hot_dog pizza donut cake chair couch potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave "
    "oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier toothbrush"
)
CATEGORIES = tuple(name.replace("_", " ") for name in CATEGORIES.split())
"""COCO's 80 (arXiv 1405.0312): all that the photo model was taught to name."""
KINDS = {
    "an animal": "bird cat dog horse sheep cow elephant bear zebra giraffe",
    "a vehicle": "bicycle car motorcycle airplane bus train truck boat",
    "food": "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake",
    "a piece of furniture": "chair,couch,bed,dining table,bench",
    "something to eat or drink with": "bottle,wine glass,cup,fork,knife,spoon,bowl",
    "an electronic device": "tv,laptop,mouse,remote,keyboard,cell phone",
    "sports equipment": "frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket",
}
KINDS = {kind: frozenset(names.split("," if "," in names else " ")) for kind, names in KINDS.items()}
USELESS = {"person", *KINDS["an animal"], *KINDS["food"]}
ALL_OF = {
    "an animal": "animals", "a vehicle": "vehicles", "food": "food", "a piece of furniture": "furniture", "an electronic device": "electronic devices",
    "sports equipment": "sports equipment", "something to eat or drink with": "things to eat or drink with",
}  # fmt: skip
WITHOUT_ARTICLE = ("scissors", "skis", "broccoli")
SAME_IN_PLURAL = (*WITHOUT_ARTICLE, "sheep")
COUNTS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight")
PERCENT = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60, 80)  # how areas are told
CLEARLY = 1.5  # by how much larger one box is than another that is asked to be compared with it
APART = (
    0.08  # of the picture's side: how far centres of boxes lie apart that are said to lie left of or above each other
)


def a(name: str) -> str:
    """The name with its article."""
    if name in WITHOUT_ARTICLE:
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plural(name: str) -> str:
    """Several of the thing."""
    rest, _, word = name.rpartition(" ")
    if name in SAME_IN_PLURAL:
        return name
    word = IRREGULAR.get(word) or (word + "es" if word.endswith(("s", "ch", "sh", "x")) else word + "s")
    return f"{rest} {word}".strip()


def named(name: str) -> str:
    """How the photo model answers what a region is."""
    text = a(name)
    return f"{text[0].upper()}{text[1:]}."


class Asker:
    """Rounds about one picture's boxes.

    Args:
        boxes: normalised xyxy. labels: their categories. names: all categories there are. in_picture: those of all boxes of the picture.
        knowledge: kind of `KNOWLEDGE` -> category -> answer.
        rng: decides everything.
    """

    def __init__(self, boxes, labels: Sequence[str], names, knowledge: dict, rng: random.Random, in_picture=None):
        self.boxes, self.labels, self.names, self.knowledge, self.rng = boxes, labels, list(names), knowledge, rng
        self.in_picture = list(labels if in_picture is None else in_picture)

    def name(self, i: int):
        """What is it?"""
        return self.rng.choice(NAMING).replace("<region1>", _tag(i)), named(self.labels[i])

    def name_two(self, i: int, j: int):
        """What are they?"""
        return f"What are {_tag(i)} and {_tag(j)}?", f"{self._each([i, j])}."

    def judge(self, i: int):
        """Is it an X?"""
        label = self.labels[i]
        if self.rng.random() < 0.5:
            return f"Is {_tag(i)} {a(label)}?", f"It is {a(label)}, so yes."
        others = sorted(set(self.labels) - {label}) if self.rng.random() < 0.5 else []
        other = self.rng.choice(others or [each for each in self.names if each != label])
        return f"Is {_tag(i)} {a(other)}?", f"It is {a(label)}, so no."

    def judge_kind(self, i: int):
        """Is it an animal?"""
        label = self.labels[i]
        own = [kind for kind, members in KINDS.items() if label in members]
        kind = own[0] if own and self.rng.random() < 0.5 else self.rng.choice(list(KINDS))
        return f"Is {_tag(i)} {kind}?", f"It is {a(label)}, so {'yes' if kind in own else 'no'}."

    def which(self, *some: int):
        """Which of several is the X?"""
        alone = [i for i in some if sum(self.labels[j] == self.labels[i] for j in some) == 1]
        if len(some) < 2 or not alone:
            return None
        right = self.rng.choice(alone)
        return (
            f"Which of {_listed(map(_tag, some))} is {a(self.labels[right])}?",
            f"{self._each(some)}, so {_tag(right)}.",
        )

    def count(self, *some: int):
        """How many of several are Xs?"""
        if len(some) < 2:
            return None
        name = (
            self.rng.choice([self.labels[i] for i in some]) if self.rng.random() < 0.8 else self.rng.choice(self.names)
        )
        found = COUNTS[sum(self.labels[i] == name for i in some)]
        return f"How many of {_listed(map(_tag, some))} are {plural(name)}?", f"{self._each(some)}, so {found}."

    def both(self, i: int, j: int):
        """Are both animals?"""
        own = [kind for kind, members in KINDS.items() if self.labels[i] in members]
        kind = own[0] if own else self.rng.choice(list(KINDS))
        wrong = [each for each in (i, j) if self.labels[each] not in KINDS[kind]]
        said = "no" if wrong else "yes"
        return f"Are {_tag(i)} and {_tag(j)} both {ALL_OF[kind]}?", f"{self._each([i, j])}, so {said}."

    def larger(self, i: int, j: int):
        """Which looks larger?"""
        one, two = (area(self.boxes[each]) for each in (i, j))
        told = [
            min(PERCENT, key=lambda percent, share=share: abs(math.log(100 * share / percent))) for share in (one, two)
        ]
        if max(one, two) < CLEARLY * min(one, two) or told[0] == told[1]:
            return None
        return (
            f"Which is larger in the picture, {_tag(i)} or {_tag(j)}?",
            f"{_tag(i)} covers {told[0]} %, {_tag(j)} {told[1]} %, so {_tag(i if one > two else j)}.",
        )

    def beside(self, i: int, j: int):
        """Where is one of the other?"""
        (x1, y1), (x2, y2) = (_centre(self.boxes[each]) for each in (i, j))
        across = self.rng.random() < 0.6
        gap = x1 - x2 if across else y1 - y2
        if abs(gap) < APART:
            return None
        words, edge = (("left of", "right of"), "left") if across else (("above", "below"), "top")
        asked, true = self.rng.choice(words), words[gap > 0]
        one, two = (5 * round(20 * each) for each in ((x1, x2) if across else (y1, y2)))
        return (
            f"Is {_tag(i)} {asked} {_tag(j)}?",
            f"{_tag(i)} is {one} % from the {edge}, {_tag(j)} {two} %, so {'yes' if asked == true else 'no'}.",
        )

    def know(self, i: int):
        """What is it used for?"""
        kind = self.rng.choice(list(KNOWLEDGE))
        if kind == "use" and self.labels[i] in USELESS:
            return None
        answer = self.knowledge.get(kind, {}).get(self.labels[i])
        return None if answer is None else (KNOWLEDGE[kind].format(_tag(i)), answer)

    def picture(self):
        """What does the whole picture show?"""
        count = self.in_picture.count
        found = sorted(dict.fromkeys(self.in_picture), key=lambda name: -count(name))[:5]
        things = [a(name) if count(name) == 1 else plural(name) for name in found]
        said = _listed(things)
        return self.rng.choice(("What is in this picture?", "Describe the picture.")), f"{said[0].upper()}{said[1:]}."

    def about_two(self):
        """One question about the first two, often where they are or how large."""
        one = self.rng.choice([self.name, self.judge, self.judge_kind])
        kind = self.rng.choice(
            [self.name_two, self.both, self.which, self.which, self.larger, self.larger, self.beside, self.beside, one]
        )
        return kind(self.rng.randrange(2)) if kind == one else kind(0, 1)

    def _each(self, some) -> str:
        return ", ".join(f"{_tag(i)} is {a(self.labels[i])}" for i in some)

    def _about(self, i: int):
        kind = self.rng.choices((self.name, self.judge, self.judge_kind, self.know), (46, 22, 18, 14))[0]
        return kind(i) or self.name(i)

    def dialogue(self, rounds: int = 6) -> list[tuple[str, str]]:
        """Rounds about the boxes, in any order."""
        order = self.rng.sample(range(len(self.labels)), len(self.labels))
        made = [self.picture()] if self.rng.random() < 0.4 else []
        wanted = [("one", i) for i in order[:4]] + [("two", None)] * (rounds - min(4, len(order)))
        self.rng.shuffle(wanted)
        for kind, i in wanted:
            made.append(self._about(i) if kind == "one" else self._relation(order))
        return [each for each in made if each]

    def _relation(self, order: list[int]):
        if len(order) < 2:
            return self._about(order[0])
        i, j = self.rng.sample(order, 2)
        some = self.rng.sample(order, min(len(order), self.rng.randint(2, 4)))
        often, others = self.name_two, [self.both, self.larger, self.beside, self.which, self.count, self.know]
        kind = self.rng.choice([often, often, *others, self.larger, self.beside])
        if kind in (self.which, self.count):
            return kind(*some)
        return kind(i) if kind == self.know else kind(i, j)


def turns(rounds: list[tuple[str, str]]) -> list[dict]:
    """Rounds -> turns."""
    return [
        {"role": role, "content": text}
        for question, answer in rounds
        for role, text in (("user", question), ("assistant", answer))
    ]


def _tag(i: int) -> str:
    return f"<region{i + 1}>"


def _listed(texts) -> str:
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last


def area(box) -> float:
    """Of a box xyxy, in the square of its unit."""
    return (box[2] - box[0]) * (box[3] - box[1])


def _centre(box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
