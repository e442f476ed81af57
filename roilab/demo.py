"""The sample conversations of `roilab demo`: regions of a picture, a few rounds, and what is true.

Two regions of a drawn scene: the questions come from the scene's own question families, so the model knows their wording and the right answers
are known. Three regions of a photograph for the photo model: its questions and what is true stand here.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from .scenes import Scene, sample
from .scenes.language import Question, plain, question_about, questions, renumber, seed_of

PHOTOGRAPH = Path(__file__).parent / "assets" / "photo" / "desk.jpg"
DESK = {"laptop": (0, 287, 163, 427), "screen": (219, 240, 349, 345), "keyboard": (199, 403, 370, 443)}
RELATING = ("larger", "left_of", "above")  # asked about both regions, in the third round


@dataclass(frozen=True)
class Round:
    """One question; `boxes` are the regions it brings in, xyxy in pixels of the scene's picture; `answers` are all the right ones."""

    question: str
    boxes: tuple
    answers: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        return plain(answer.strip()) in map(plain, self.answers)


def rounds_about(scene: Scene) -> list[Round]:
    """Three rounds: describe one region, ask about a second one, relate the two. The same scene gives the same rounds.

    Raises:
        ValueError: the scene has no two objects that clearly differ in size or place.
    """
    rng = random.Random(scene.seed)
    relating = [q for family in RELATING for q in questions(scene, rng, families=[family], count=20)]
    relating = [q for q in relating if len(q.slots) == 2 and all(_whole_object(slot) for slot in q.slots)]
    if not relating:
        raise ValueError(
            f"scene {scene.seed} has no two objects that clearly differ in size or place: try another seed"
        )
    rng.shuffle(relating)
    last = max(relating, key=lambda q: _people(scene, q) == 1)  # a person and a thing, if there is such a pair
    one, two = (slot.objects[0] for slot in last.slots)
    if scene.object(two).kind == "person" and scene.object(one).kind != "person":
        one, two = two, one
    first = _question_about(scene, rng, "description", one)
    second = _question_about(scene, rng, "action" if scene.object(two).kind == "person" else "colour", two)
    numbers = {one: 1, two: 2}
    return [
        _round(first, numbers, brings=(first.boxes[0],)),
        _round(second, numbers, brings=(second.boxes[0],)),
        _round(last, numbers, brings=()),
    ]


def sample_rounds(index: int) -> tuple[Scene, list[Round]]:
    """The scene of this index among those kept for tests, which no training shows, and the rounds about it."""
    scene = sample(seed_of("test", index))
    return scene, rounds_about(scene)


def photograph_rounds() -> list[Round]:
    """Rounds about three things on the desk of `PHOTOGRAPH`, xyxy in its pixels.

    It is picture 255165 of COCO val2017 (CC BY 2.0, see assets/README.md), of which the photo model has seen nothing in training.
    """
    laptop, screen, keyboard = DESK.values()
    return [
        Round("What is <region1>?", (laptop,), ("A laptop.",)),
        Round("What is <region2>?", (screen,), ("A tv.",)),
        Round("Is <region3> a keyboard?", (keyboard,), ("It is a keyboard, so yes.",)),
        Round("Is <region1> left of <region2>?", (), _left_of(laptop, screen)),
    ]


def _left_of(one, two, width: int = 640, tolerance: int = 10) -> tuple[str, ...]:
    """All answers that it is whose two places, in steps of 5 %, are within so many per cent; the truest first."""

    def near(box) -> list[int]:
        off = {each: abs(each - 50 * (box[0] + box[2]) / width) for each in range(0, 101, 5)}
        return [each for each in sorted(off, key=off.get) if off[each] <= tolerance]

    return tuple(f"region1 is {x} % from the left, region2 {y} %, so yes." for x in near(one) for y in near(two))


def _whole_object(slot) -> bool:
    return len(slot.objects) == 1 and slot.part is None


def _people(scene, question) -> int:
    return sum(scene.object(slot.objects[0]).kind == "person" for slot in question.slots)


def _question_about(scene, rng, family, object_id) -> Question:
    found = question_about(scene, rng, family, object_id, count=4 * len(scene.objects))
    if found is None:
        raise ValueError(f"no question of the family {family!r} about object {object_id} of scene {scene.seed}")
    return found


def _round(question, numbers, brings) -> Round:
    """The question with its own region numbers replaced by those of the conversation."""
    own = {i: numbers[slot.objects[0]] for i, slot in enumerate(question.slots, 1)}
    answers = tuple(renumber(answer, own) for answer in question.answers)
    return Round(renumber(question.text, own), tuple(tuple(box) for box in brings), answers)
