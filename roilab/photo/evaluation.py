"""How often the photo model names what is in a box, and whether its answers follow the boxes."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..evaluation.classification import evaluate_classes
from ..evaluation.reading import answer_all
from ..evaluation.results import Result, scores_of
from ..evaluation.running import Predictions, Query, Spread, run
from ..evaluation.statistics import weighted_means
from ..regions import normalise_boxes
from .questions import CATEGORIES, WHAT, Asker, area, named, turns

LARGE = 0.02  # of the picture's area
SIZES = {"boxes over 2 % of the picture": (LARGE, 1.1), "boxes up to 2 %": (0.0, LARGE)}
BOTH = "What are <region1> and <region2>?"
# Kinds of `Asker` -> of what questions, and about which of two boxes.
ASKED = {
    "judge": ("is it an X", [0]), "which": ("which of two is an X", [0, 1]), "larger": ("which of two is larger", [0, 1]),
    "beside": ("left, right, above or below", [0, 1]),
}  # fmt: skip


class Asking(Sequence):
    """Records whose every region is asked about in the words of the photo model's training."""

    def __init__(self, records):
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int):
        record = self.records[index]
        asked = [(WHAT.replace("1", str(i)), named(label)) for i, label in enumerate(record.labels, 1)]
        return replace(record, turns=turns(asked))

    def picture(self, index: int):
        return self.records.picture(index)


def evaluate_photo(
    model, records, data: str = "", split: str = "", *, batch: int = 4, limit: int | None = None, **options
) -> Result:
    """`evaluate_classes` on COCO's boxes, over its 80 names and by the size of boxes; the share of answers that two boxes swap; `judged`.

    Swapped: of each picture with boxes of two categories the two largest such are asked about together, then in the other order. It counts
    if the model names two things, and in the other order the same two the other way round.

    Args:
        records: of `roilab.data.read("coco", ...)`. The rest as in `evaluate_classes`.
    """
    result = evaluate_classes(
        model,
        Asking(records),
        data,
        split,
        names=CATEGORIES,
        phrase=named,
        sizes=SIZES,
        batch=batch,
        limit=limit,
        **options,
    )
    swaps = swapped(model, records, limit, batch)
    answers = judged(model, records, limit, batch)
    counted = {("answers swap with the boxes", "generated", "two boxes"): (swaps, "swapped")}
    for kind, (of, _) in ASKED.items():
        counted["accuracy", "generated", of] = [each for each in answers if each["kind"] == kind], "right"
    for name, (rows, what) in counted.items():
        if rows:
            statistic = weighted_means(np.array([[float(row[what])] for row in rows]))
            result.scores += scores_of([name], statistic, [row["id"] for row in rows], [len(rows)])
    result.predictions += swaps + answers
    return result


def swapped(model, records, limit: int | None = None, batch: int = 4) -> list[dict]:
    """Per picture with boxes of two categories: `id`, `boxes`, `labels`, `question`, the `texts` of both orders, and whether they are `swapped`.

    Args:
        limit, batch: as in `evaluate_classes`; a limit takes the same pictures.
    """
    records, queries = records if limit is None else Spread(records, limit), []
    for index in range(len(records)):
        record = records[index]
        order = _by_size(record)
        other = next((i for i in order if record.labels[i] != record.labels[order[0]]), None)
        if other is not None:
            queries += [_asked(record, index, BOTH, pair) for pair in ([order[0], other], [other, order[0]])]
    texts, made = _answers(model, records, queries, batch, "boxes swapped"), []
    for one, both in zip(queries[::2], zip(texts[::2], texts[1::2], strict=True), strict=True):
        first, second = map(things, both)
        right = first is not None and second is not None and first[0] != first[1] and first == second[::-1]
        made.append(one.about | {"texts": list(both), "swapped": right})
    return made


def judged(model, records, limit: int | None = None, batch: int = 4) -> list[dict]:
    """Of the largest boxes of each picture whether one is a certain thing (half of the time it is), which of two is, which is larger, and where
    one is of the other, as far as the boxes leave no doubt.

    Args:
        limit, batch: as in `evaluate_classes`; a limit takes the same pictures.
    Returns:
        Per question `id`, `boxes`, `labels`, `question`, `kind` (of `ASKED`), `truth`, `text`, and whether it is `right`: whether its last
        word is (a region, yes or no).
    """
    records, queries = records if limit is None else Spread(records, limit), []
    for index in range(len(records)):
        record, rng = records[index], random.Random(records[index].id)
        boxes = normalise_boxes(record.boxes, (record.width, record.height)).tolist()
        pairs = list(itertools.combinations(_by_size(record), 2))
        for kind, (_, about) in ASKED.items():
            for pair in pairs:
                pair = rng.sample(pair, 2)
                asker = Asker([boxes[i] for i in pair], [record.labels[i] for i in pair], CATEGORIES, {}, rng)
                if round_ := getattr(asker, kind)(*about):
                    shown = [pair[i] for i in about]
                    queries.append(_asked(record, index, round_[0], shown, kind=kind, truth=round_[1]))
                    break
    texts = _answers(model, records, queries, batch, "boxes judged")
    return [
        each.about | {"text": text, "right": last_word(text) == last_word(each.about["truth"])}
        for each, text in zip(queries, texts, strict=True)
    ]


def _by_size(record) -> list[int]:
    return sorted(range(len(record.boxes)), key=lambda i: -area(record.boxes[i]))


def _asked(record, index: int, question: str, pair: list[int], **about) -> Query:
    boxes, labels = ([each[i] for i in pair] for each in (record.boxes, record.labels))
    shown = replace(record, boxes=boxes, labels=labels, turns=[{"role": "user", "content": question}])
    about = {"id": record.id, "boxes": boxes, "labels": labels, "question": question} | about
    return Query(f"{record.id} {pair} {question}", index, shown, about=about)


def _answers(model, records, queries: list[Query], batch: int, title: str) -> list[str]:
    def predict(reader, rows, _):
        return [{"text": text} for text in answer_all(model, reader, rows)]

    with Predictions(None, {}) as kept:
        run(model, records, queries, predict, kept, batch=batch, total=len(queries), title=title)
    return [kept.known[each.key]["text"] for each in queries]


def last_word(text: str) -> str:
    """In small letters; of no word nothing."""
    return (re.findall("[a-z0-9]+", text.lower()) or [""])[-1]


def things(text: str) -> tuple[str, str] | None:
    """ "region1 is a dog, region2 is a cat." -> ("a dog", "a cat")."""
    parts = text.rstrip(".").split(", region2 is ")
    return (
        (parts[0].removeprefix("region1 is "), parts[1])
        if len(parts) == 2 and parts[0].startswith("region1 is ")
        else None
    )
