"""Statements about regions that are true or not: how the language model learns to hold words against what a region shows.

The four-choice form asks of each option whether it is true. A model that can name what it sees cannot do that yet, and from whole
four-choice rounds it hardly learns it: a letter says little about four options. So it first says "yes" or "no" to one short statement at
a time ("region1 is shiny?"), then to single options. These dialogues are for training alone; nothing else asks them.
"""

import random

from ..evaluation.naming import VALUES
from ..scenes import Scene, language
from ..scenes.evidence import other
from ..scenes.language import Question
from ..scenes.wording import View, article, ask, doing, truth


def statement(scene: Scene, rng: random.Random) -> Question:
    """Whether a value is that of an attribute of one object: "region1 is a ball?"."""
    item, view = rng.choice(scene.objects), View(scene)
    name = rng.choice([name for name in item.attributes if not (item.is_person and name == "kind")])
    value, holds = item.attributes[name], rng.random() < 0.5
    if not holds:
        shown = [each.attributes[name] for each in (view.people if item.is_person else view.things)]
        value = other(rng, value, [each for each in VALUES[name] if each != "person"], shown)
    text = f"{{a}} {_says(name, value, item.is_person)}?"
    return ask(rng, "statement", (text,), ("yes" if holds else "no",), [item], truth([item], name))


def _says(name: str, value: str, person: bool) -> str:
    if name == "headgear":
        return "has nothing on the head" if value == "none" else f"wears {article(value)}"
    if name == "kind":
        return f"is {article(value)}"
    if name == "shape":
        return f"has a {value} shape"
    return f"wears {value}" if person and name == "colour" else f"is {doing(value)}"


def option(scene: Scene, rng: random.Random) -> Question | None:
    """Whether one answer, or one rationale, of a four-choice question is the right one; None if the scene offers no such question."""
    found = language.questions(scene, rng, ["vcr"])
    if not found:
        return None
    asked = found[0].choices
    if rng.random() < 0.5:
        before, texts, label = asked["question"], asked["answers"], asked["answer_label"]
    else:
        before = f"Answer: {asked['answers'][asked['answer_label']]}. Why?"
        texts, label = asked["rationales"], asked["rationale_label"]
    right = rng.random() < 0.5
    text = texts[label] if right else rng.choice(texts[:label] + texts[label + 1 :])
    answer = "yes" if right else "no"
    return Question(
        "option", f"{before} {text}?", answer, (answer,), found[0].boxes, found[0].truth, None, found[0].slots
    )


JUDGING = {"statement": statement, "option": option}
"""family -> one of its questions about a scene, or None; beside `language.FAMILIES`, in training alone."""
