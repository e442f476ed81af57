"""How often a model is right: on drawn scenes, and on the records of data sets.

    evaluate_scenes(model)                                 whole answers, word for word, on scenes of unseen seeds
    probe_boxes(model)                                     what a small network reads off the frozen tower's features
    evaluate_records(model, records, "vcr_full")           what the data set is for: choices, captions or classes

`reading` asks a model many things at once, `running` does so batch by batch and continues where it stopped; `multiple_choice`, `captions`
and `classification` say what is asked and what counts as right, and `quiz` asks people the same; `statistics` gives intervals, `results`
tables.
"""

from .captions import evaluate_captions
from .classification import evaluate_classes
from .multiple_choice import evaluate_choices
from .probe import probe_boxes
from .quiz import Answers, Question, Quiz
from .reading import LongPrompt, PictureReader, SceneReader, answer_all, answer_scores, choose_letters, letter_scores
from .results import Result, Score
from .scenes import SEEDS_PER_RUN, evaluate_scenes, table
from .statistics import bootstrap, interval
from .tasks import TASKS, evaluate_records

__all__ = [
    "SEEDS_PER_RUN", "TASKS", "Answers", "LongPrompt", "PictureReader", "Question", "Quiz", "Result", "SceneReader", "Score",
    "answer_all", "answer_scores", "bootstrap", "choose_letters", "evaluate_captions", "evaluate_choices", "evaluate_classes",
    "evaluate_records", "evaluate_scenes", "interval", "letter_scores", "probe_boxes", "table",
]  # fmt: skip
