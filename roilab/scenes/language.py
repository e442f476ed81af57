"""Questions and answers about scenes: the public names of `wording`, `questions`, `comparisons`, `rules`, `commonsense`, `dialogue`."""

from .dialogue import (
    FAMILIES,
    SPLITS,
    combine,
    dialogue,
    language_corpus,
    multiple_choice,
    question_about,
    questions,
    seed_of,
    turns_of,
    words,
)
from .rules import RULES
from .wording import Question, Slot, long_phrase, mentions, plain, renumber, short_phrase

__all__ = [
    "FAMILIES", "RULES", "SPLITS", "Question", "Slot", "combine", "dialogue", "language_corpus", "long_phrase", "mentions",
    "multiple_choice", "plain", "question_about", "questions", "renumber", "seed_of", "short_phrase", "turns_of", "words",
]  # fmt: skip
