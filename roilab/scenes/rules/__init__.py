"""The commonsense rules of the scene world: how each is asked, what its outcomes are, and how it applies to a scene.

Of a rule's outcomes exactly one is true of the regions it is asked about; a scene that leaves it open gives no case. To invent
a rule: write a function (view, rng) -> `Case` or None, and add a `Rule` with at least four outcomes to `RULES`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from ..evidence import Case
from ..wording import View
from .people import ACTIVE, either, head, help, look, mood, need, point, reach
from .things import KICKED, RISKS, USES, by_kind, carry, held, kicked, umbrella


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
        by_kind(KICKED),
    ),
    "kicked": Rule(
        ("{a} is kicking {b}. What happens next?", "Where will {a} kick {b} to?", "{a} kicks {b}. Where will it go?"),
        {f"{verb} {side}": f"it will {verb} to the {side}" for verb in ("roll", "slide") for side in ("left", "right")},
        kicked,
    ),
    "risk": Rule(
        ("What could go wrong with {a}?", "What could happen to {a} one day?", "What is the danger for {a}?"),
        {"shatter": "it could fall and break", "wind": "the wind could carry it off", "stop": "it could stop running", "sink": "it could sink"},
        by_kind(RISKS),
    ),
    "use": Rule(
        ("What would {a} do with {b}?", "What could {a} use {b} for?", "How could {a} use {b}?"),
        {
            "play": "{a} could play with it", "drink": "{a} could drink from it", "travel": "{a} could travel in it", "sit": "{a} could sit on it",
            "read": "{a} could read by its light", "time": "{a} could tell the time", "shelter": "{a} could keep dry with it",
        },
        by_kind(USES, with_person=True),
    ),
    "holding": Rule(
        ("Why is {a} holding {b}?", "What is {a} holding {b} for?", "Why does {a} hold {b}?"),
        {
            "play": "{a} wants to play", "drink": "{a} is thirsty", "travel": "{a} wants to travel", "move": "{a} is moving house",
            "light": "{a} needs more light", "time": "{a} wants to know the time", "sit": "{a} wants to sit down", "dry": "{a} wants some cover",
        },
        held,
    ),
    "carry": Rule(
        ("How could {a} move {b}?", "How would {a} carry {b}?", "What does it take for {a} to lift {b}?"),
        {"small": "one hand is enough", "medium": "it takes both arms", "large": "a friend has to help", "held": "it is already in hand"},
        carry,
    ),
    "umbrella": Rule(
        ("What should {a} do with {b} now?", "How can {a} use {b} now?", "What is the best that {a} can do with {b}?"),
        {"indoor": "leave it closed", "outdoor": "take it along closed", "rain": "open it to keep dry", "sun": "open it for some shade"},
        umbrella,
    ),
    "need": Rule(
        ("What does {a} need in this weather?", "What would help {a} in this weather?", "What does the weather make {a} need?"),
        {"umbrella": "{a} needs an umbrella", "hat": "{a} needs headgear", "drink": "{a} needs a cold drink", "nothing": "{a} needs nothing"},
        need,
    ),
    "head": Rule(
        ("What happens to the head of {a}?", "How does the head of {a} feel?", "What does the weather do to the head of {a}?"),
        {"rain bare": "it gets wet", "rain covered": "it stays dry", "sun bare": "it gets hot", "sun covered": "it stays cool"},
        head,
    ),
    "help": Rule(
        ("How could a friend help {a}?", "What could a friend do for {a}?", "What should a friend do for {a}?"),
        {"sad": "say a kind word", "angry": "stay calm and listen", "happy": "no help is needed", "rain": "share an umbrella"},
        help,
    ),
    "mood": Rule(
        ("Why does {a} feel like this?", "What causes the mood of {a}?", "Where does the mood of {a} come from?"),
        {"sun": "it comes from the sun", "active": "it comes from moving", "rain": "it comes from the rain", "alone": "it comes from being alone"},
        mood,
    ),
    "pointing": Rule(
        ("Why is {a} pointing at {b}?", "What does {a} mean by pointing at {b}?", "Why does {a} point at {b}?"),
        {"person": "{a} is calling {b}", "happy": "{a} likes {b}", "sad": "{a} would like to have {b}", "angry": "{a} wants {b} taken away"},
        point,
    ),
    "looking": Rule(
        ("Why is {a} looking at {b}?", "What makes {a} look at {b}?", "Why does {a} look at {b}?"),
        {
            "standing": "{b} is waiting", "running": "{b} is in a hurry", "sitting": "{b} is having a rest", "jumping": "{b} is full of joy",
            "waving": "{b} is saying hello", "pointing": "{b} has found something", "holding": "{b} has brought something",
        },
        look,
    ),
    "reach": Rule(
        ("Who will reach {a} first, {b} or {c}?", "Who can get to {a} sooner, {b} or {c}?", "Who is the first to reach {a}, {b} or {c}?"),
        {
            "first closer": "{b}, who is closer", "second closer": "{c}, who is closer",
            "first free": "{b}, since {c} is sitting", "second free": "{c}, since {b} is sitting",
        },
        reach,
        {"first closer": "{b} will", "second closer": "{c} will", "first free": "{b} will", "second free": "{c} will"},
    ),
    "tired": Rule(
        ("Who will be tired soon, {a} or {b}?", "Who of {a} and {b} will need a rest?", "Who will be out of breath soon, {a} or {b}?"),
        _four("will"),
        either("action", ACTIVE),
    ),
    "shelter": Rule(
        ("Which could keep somebody dry, {a} or {b}?", "Which of {a} and {b} could help against the rain?", "What could keep the rain off, {a} or {b}?"),
        _four("could"),
        either("kind", ("house", "car", "umbrella")),
    ),
    "float": Rule(
        ("Which would float on water, {a} or {b}?", "Which of {a} and {b} would float?", "What would swim on water, {a} or {b}?"),
        _four("would"),
        either("kind", ("ball", "boat", "bottle", "box")),
    ),
    "seat": Rule(
        ("Which could be a seat, {a} or {b}?", "Which of {a} and {b} could serve as a seat?", "Where could one sit down, {a} or {b}?"),
        _four("could"),
        either("kind", ("chair", "box", "car", "boat")),
    ),
}  # fmt: skip
"""name -> rule family."""
