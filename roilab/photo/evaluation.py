"""How often the photo model names what is in a box, and whether its answers follow the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..evaluation.classification import evaluate_classes
from ..evaluation.reading import answer_all
from ..evaluation.results import Result, scores_of
from ..evaluation.running import Predictions, Query, Spread, run
from ..evaluation.statistics import weighted_means
from .questions import CATEGORIES, WHAT, area, named, turns

LARGE = 0.02  # of the picture's area
SIZES = {"boxes over 2 % of the picture": (LARGE, 1.1), "boxes up to 2 %": (0.0, LARGE)}
BOTH = "What are <region1> and <region2>?"


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
    """`evaluate_classes` on COCO's boxes, over its 80 names and by the size of boxes; and the share of answers that two boxes swap.

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
    if swaps:
        statistic = weighted_means(np.array([[float(swap["swapped"])] for swap in swaps]))
        name = ("answers swap with the boxes", "generated", "two boxes")
        result.scores += scores_of([name], statistic, [swap["id"] for swap in swaps], [len(swaps)])
        result.predictions += swaps
    return result


def swapped(model, records, limit: int | None = None, batch: int = 4) -> list[dict]:
    """Per picture with boxes of two categories: `id`, `boxes`, `labels`, the `texts` of both orders, and whether they are `swapped`.

    Args:
        limit, batch: as in `evaluate_classes`; a limit takes the same pictures.
    """
    records = records if limit is None else Spread(records, limit)
    asked, queries = [{"role": "user", "content": BOTH}], []
    for index in range(len(records)):
        record = records[index]
        order = sorted(range(len(record.boxes)), key=lambda i: -area(record.boxes[i]))
        other = next((i for i in order if record.labels[i] != record.labels[order[0]]), None)
        if other is None:
            continue
        pair = [order[0], other]
        for way in (pair, pair[::-1]):
            boxes, labels = ([each[i] for i in way] for each in (record.boxes, record.labels))
            about = {"id": record.id, "boxes": boxes, "labels": labels}
            shown = replace(record, boxes=boxes, labels=labels, turns=asked)
            queries.append(Query(f"{record.id} {way}", index, shown, about=about))

    def predict(reader, rows, _):
        return [{"text": text} for text in answer_all(model, reader, rows, max_new_tokens=32)]

    with Predictions(None, {}) as kept:
        run(model, records, queries, predict, kept, batch=batch, total=len(queries), title="boxes swapped")
    made = []
    for one, two in zip(queries[::2], queries[1::2], strict=True):
        texts = [kept.known[each.key]["text"] for each in (one, two)]
        first, second = map(things, texts)
        right = first is not None and second is not None and first[0] != first[1] and first == second[::-1]
        made.append(one.about | {"texts": texts, "swapped": right})
    return made


def things(text: str) -> tuple[str, str] | None:
    """ "region1 is a dog, region2 is a cat." -> ("a dog", "a cat")."""
    parts = text.rstrip(".").split(", region2 is ")
    return (
        (parts[0].removeprefix("region1 is "), parts[1])
        if len(parts) == 2 and parts[0].startswith("region1 is ")
        else None
    )
