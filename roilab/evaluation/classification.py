"""Region classification: what is in a ground-truth box, out of a list of names. Accuracy and mean average precision.

"generated": the model's own words, matched with the names; one that matches none is wrong. "likelihood": the score of a class is the
log-probability of its name, with the mark that ends an answer, as the answer; the best one is the prediction, and the scores of all classes
give average precision: per class all boxes are ranked by the class's probability among the names, and the precision at each box of
that class is averaged (not interpolated; boxes of equal probability count together). mAP is the mean over the classes that occur.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..presenting import one_by_one, without_mentions
from .reading import answer_all, answer_scores
from .results import Result, scores_of
from .running import Predictions, Query, Spread, header, picture_order, run
from .statistics import weighted_means

SCORINGS = ("generated", "likelihood")
IRREGULAR = {
    "child": "children", "foot": "feet", "goose": "geese", "knife": "knives", "leaf": "leaves", "loaf": "loaves", "man": "men",
    "mouse": "mice", "person": "people", "scarf": "scarves", "shelf": "shelves", "tooth": "teeth", "wolf": "wolves", "woman": "women",
}  # fmt: skip


def evaluate_classes(
    model, records: Sequence, data: str = "", split: str = "", *, names: Sequence[str] | None = None,
    scoring: str | Sequence[str] = SCORINGS, arm: str = "regions", limit: int | None = None, predictions=None, batch: int = 16,
    phrase: Callable[[str], str] = str, sizes: dict[str, tuple[float, float]] | None = None,
) -> Result:  # fmt: skip
    """Accuracy and mAP on ground-truth boxes, each region asked about alone in its record's own words.

    Args:
        records: `RegionDialogue` records with `labels`, whose rounds ask for the class of one region, and `.picture(index)`.
        names: the classes to choose from; by default all labels of all records.
        scoring: one of `SCORINGS`, or both.
        data, split, arm, limit, predictions, batch: as in `evaluate_choices`.
        phrase: name -> the answer that says it, for likelihood; by default the name alone.
        sizes: words -> from which share of the picture's area up to, not including, which: the accuracy of such boxes apart.
    Returns:
        `Result`; predictions hold `id`, `image`, `box`, `share` (of the picture's area), `label`, `by`, `name` (the predicted class or None) and the `text` or the
        `scores` (log-probabilities in the order of `settings["names"]`).
    Raises:
        ValueError: unknown scoring, no labelled region, a label that is not among the names.
    """
    scorings = [scoring] if isinstance(scoring, str) else list(dict.fromkeys(scoring))
    unknown = [each for each in scorings if each not in SCORINGS]
    if unknown or not scorings:
        raise ValueError(f"unknown scoring {', '.join(unknown) or 'none'}; known: {', '.join(SCORINGS)}")
    if names is None:  # of all records, so that a limit leaves the task as hard as it is
        names = sorted({label for index in range(len(records)) for label in records[index].labels or ()})
    names = list(names)
    records = records if limit is None else Spread(records, limit)
    order, content = picture_order(records)
    settings = dict(arm=arm, limit=limit, names=names)
    predict = {"generated": _generator(names), "likelihood": _scorer(names, phrase)}
    with Predictions(predictions, header(model, "classes", data, split, content, **settings)) as kept:
        made = []
        for each in scorings:
            keys = [q.key for q in queries(records, sorted(order), each, set(names))]
            if not keys:
                raise ValueError(f"none of {len(records)} records has a round about exactly one labelled region")
            run(
                model, records, queries(records, order, each, set(names)), predict[each], kept, arm=arm, batch=batch, total=len(keys),
                title=f"{data or 'classes'}, {each}", fields=_fields(each, names),
            )  # fmt: skip
            made += [kept.known[key] for key in keys]
    result = Result(data, split, [], settings | {"model": kept.header["model"]}, predictions=made)
    for each in scorings:
        own = [p for p in made if p["by"] == each]
        statistic, count = _statistic(own, names)
        scores = [("accuracy", each, "all"), ("mAP", each, "all")][:count]
        result.scores += scores_of(scores, statistic, [p["id"] for p in own], [len(own)] * count)
        for words, (least, most) in (sizes or {}).items():
            some = [p for p in own if least <= p["share"] < most]
            if some:
                statistic, _ = _statistic(some, names)
                of_size = [("accuracy", each, words)]
                result.scores += scores_of(
                    of_size, lambda weights, s=statistic: s(weights)[:1], [p["id"] for p in some], [len(some)]
                )
        if each == "generated":
            lost = sum(p["name"] is None for p in own)
            result.notes.append(
                f"{lost} of {len(own)} generated answers match none of {len(names)} names; they count as wrong."
            )
    return result


def queries(records, order, scoring: str, names: set[str]):
    """One question per labelled region."""
    for index in order:
        record = records[index]
        for number, alone in one_by_one(record) if record.labels is not None else ():
            label = alone.labels[0]
            if label not in names:
                raise ValueError(f"record {record.id}: label {label!r} is not among the {len(names)} names")
            x1, y1, x2, y2 = alone.boxes[0]
            share = (x2 - x1) * (y2 - y1) / (record.width * record.height)
            about = {
                "id": record.id,
                "image": record.image,
                "box": alone.boxes[0],
                "share": share,
                "label": label,
                "by": scoring,
            }
            yield Query(f"{record.id} {number} {scoring}", index, replace(alone, turns=alone.turns[:1]), (), about)


def _generator(names):
    find = NameFinder(names)

    def predict(reader, rows, _):
        texts = answer_all(reader.model, reader, rows, max_new_tokens=24)
        return [{"text": text, "name": find(text)} for text in texts]

    return predict


def _scorer(names, phrase):
    answers = [without_mentions(phrase(name)) for name in names]

    def predict(reader, rows, _):
        found = []
        for tokens in answer_scores(reader.model, reader, rows, [answers] * len(rows), ends=True):
            scores = [each.double().sum().item() for each in tokens]
            found.append({"name": names[int(np.argmax(scores))], "scores": scores})
        return found

    return predict


def _fields(scoring: str, names: list[str]) -> dict:
    """What predictions of a file must hold."""
    if scoring == "generated":
        return {"name": lambda found: found is None or found in names}

    def are_scores(found) -> bool:
        return isinstance(found, list) and len(found) == len(names) and all(type(each) is float for each in found)

    return {"name": lambda found: found in names, "scores": are_scores}


class NameFinder:
    """A generated text -> the class that it names, or None: exactly, but for case, article and punctuation, or but for the plural too."""

    def __init__(self, names: Sequence[str]):
        self.exact = {name: name for name in names}
        self.plain = _unambiguous((_key(name), name) for name in names)
        self.plural = _unambiguous((form, name) for name in names for form in _plurals(_key(name)))

    def __call__(self, text: str) -> str | None:
        key = _key(text)
        found = self.exact.get(text) or self.plain.get(key) or self.plural.get(key)
        if found is None:  # a text in the singular for a name in the plural
            found = next((self.plain[form] for form in _plurals(key) if self.plain.get(form)), None)
        return found


def _unambiguous(pairs) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for key, name in pairs:
        found[key] = name if found.get(key, name) == name else None
    return found


def _key(text: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return " ".join(words[1:] if words[:1] in (["a"], ["an"], ["the"]) else words)


def _plurals(key: str) -> list[str]:
    """How the plural of a name may be written."""
    first, _, word = key.rpartition(" ")
    if not word:
        return []
    forms = [word + "s", word + "es", *([IRREGULAR[word]] if word in IRREGULAR else [])]
    forms += [word[:-1] + "ies"] if word.endswith("y") else []
    return [f"{first} {form}".strip() for form in forms]


def _statistic(predictions: Sequence[dict], names: Sequence[str]):
    """The statistic [accuracy] or, with class scores, [accuracy, mAP]; and how many numbers that is."""
    accuracy = weighted_means(np.array([[float(p["name"] == p["label"])] for p in predictions]))
    if "scores" not in predictions[0]:
        return accuracy, 1
    scores = np.array([p["scores"] for p in predictions])
    scores -= scores.max(1, keepdims=True)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    precision = mean_average_precision(shares, np.array([names.index(p["label"]) for p in predictions]))
    return lambda weights: np.array([accuracy(weights)[0], precision(weights)]), 2


def mean_average_precision(scores: np.ndarray, labels: np.ndarray):
    """A statistic: weights [n], how often each box counts -> mAP.

    Args:
        scores: [n, classes], higher is more probable.
        labels: [n] class of each box.
    """
    ranked = []
    for place in np.unique(labels):
        order = np.argsort(-scores[:, place], kind="stable")
        values = scores[order, place]
        ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # the last box of each group of equals
        ranked.append((order, labels[order] == place, ends))

    def value(weights: np.ndarray) -> float:
        precisions = []
        for order, right, ends in ranked:
            drawn = weights[order]
            hits, seen = np.cumsum(drawn * right)[ends], np.cumsum(drawn)[ends]
            if hits[-1]:
                gained = np.diff(hits, prepend=0)
                precisions.append((gained * hits / np.maximum(seen, 1)).sum() / hits[-1])
        return float(np.mean(precisions)) if precisions else float("nan")

    return value
