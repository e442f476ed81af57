"""Commonsense about scenes, free-form (`why`) and with four choices (`vcr`).

The four-choice form follows VCR (Zellers et al., arXiv 1811.10830): a question, four answers, four rationales. Text alone must not
decide it. The wrong answers are other outcomes of the same rule (`rules.py`), all of them false here, and outcomes that the world
shows more often become a question less often (`KEEP`), so that every answer is equally often right and wrong. The wrong rationales
fit the answer as well as the right one does (`evidence.py`).
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

from .evidence import Case
from .rules import RULES
from .wording import REGION_NAMES, Question, View, ask
from .world import Scene

KEEP: dict[str, dict[str, float]] = {
    "kick": {"roll": 0.96, "breaks": 0.89, "fall": 0.95},
    "kicked": {"roll right": 0.92, "slide left": 0.28, "slide right": 0.28},
    "risk": {"shatter": 0.3, "wind": 0.34, "stop": 0.46},
    "use": {"play": 0.48, "drink": 0.41, "travel": 0.45, "sit": 0.45, "read": 0.94, "shelter": 0.51},
    "holding": {"play": 0.44, "drink": 0.38, "travel": 0.51, "move": 0.52, "light": 0.8, "time": 0.96, "sit": 0.74},
    "carry": {"small": 0.28, "medium": 0.32, "large": 0.39},
    "umbrella": {"indoor": 0.93, "rain": 0.97, "sun": 0.88},
    "need": {"umbrella": 0.26, "drink": 0.34, "nothing": 0.13},
    "head": {"rain covered": 0.34, "sun bare": 0.97, "sun covered": 0.33},
    "help": {"sad": 0.33, "angry": 0.32, "happy": 0.32},
    "mood": {"sun": 0.89, "rain": 0.45, "alone": 0.18},
    "pointing": {"person": 0.74, "happy": 0.91, "angry": 0.91},
    "looking": {"standing": 0.51, "running": 0.64, "sitting": 0.55, "jumping": 0.78, "waving": 0.59, "pointing": 0.61},
    "reach": {"first closer": 0.2, "second closer": 0.19},
    "tired": {"first": 0.48, "second": 0.49, "neither": 0.22},
    "shelter": {"first": 0.35, "second": 0.34, "neither": 0.11},
    "float": {"first": 0.5, "second": 0.5, "neither": 0.25},
    "seat": {"first": 0.54, "second": 0.53, "neither": 0.27},
}  # fmt: skip
"""rule -> outcome -> share of cases that become a four-choice question, so that all outcomes of a rule are equally frequent; 1 where
not listed. Made by `outcome_rates` on 20,000 training scenes."""


def cases(view: View, rng: random.Random) -> Iterator[tuple[str, Case]]:
    """One case of every rule that applies to the scene, in random order."""
    names = list(RULES)
    rng.shuffle(names)
    for name in names:
        case = RULES[name].apply(view, rng)
        if case is not None:
            yield name, case


def why(view: View, rng: random.Random) -> Iterator[Question]:
    """Free-form commonsense; the answer names the evidence before the verdict."""
    for name, case in cases(view, rng):
        rule = RULES[name]
        verdict = (rule.verdicts or rule.answers)[case.outcome]
        answers = (f"{case.because}, so {verdict}.", f"{case.because}: {verdict}.")
        yield ask(rng, "why", rule.texts, answers, case.objects, case.truth)


def vcr(view: View, rng: random.Random) -> Iterator[Question]:
    """The four-choice form: `choices` holds the answers, the rationales and their labels."""
    for name, case in cases(view, rng):
        if rng.random() >= KEEP.get(name, {}).get(case.outcome, 1.0):
            continue
        rule = RULES[name]
        answers = [case.outcome] + rng.sample([o for o in rule.answers if o != case.outcome], 3)
        order, other = rng.sample(range(4), 4), rng.sample(range(4), 4)
        question = ask(rng, "vcr", rule.texts, (rule.answers[case.outcome],), case.objects, case.truth)
        choices = {
            "question": question.text, "rule": name,
            "answers": [rule.answers[answers[i]].format_map(REGION_NAMES) for i in order], "answer_label": order.index(0),
            "rationales": [case.rationales[i].format_map(REGION_NAMES) for i in other], "rationale_label": other.index(0),
        }  # fmt: skip
        yield replace(question, choices=choices)


THINKING = {"why": why, "vcr": vcr}
"""family -> generator(view, rng), as in `questions.py`."""


def outcome_rates(scenes: Iterable[Scene]) -> dict[str, dict[str, float]]:
    """Shares that even out the outcomes of each rule (`KEEP`), counted over `scenes`."""
    seen = {name: dict.fromkeys(rule.answers, 0) for name, rule in RULES.items()}
    for scene in scenes:
        for name, case in cases(View(scene), random.Random(scene.seed)):
            seen[name][case.outcome] += 1
    return {
        name: {
            outcome: round(min(counts.values()) / number, 2)
            for outcome, number in counts.items()
            if number > 1.03 * min(counts.values())
        }
        for name, counts in seen.items()
    }
