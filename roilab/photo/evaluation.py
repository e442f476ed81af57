"""How often the photo model names what is in a box, and whether its answers follow the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..evaluation.classification import evaluate_classes
from ..evaluation.reading import PictureReader, answer_all
from ..evaluation.results import Result, scores_of
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
    swaps = swapped(model, records, limit)
    if swaps:
        statistic = weighted_means(np.array([[float(swap["swapped"])] for swap in swaps]))
        name = ("answers swap with the boxes", "generated", "two boxes")
        result.scores += scores_of([name], statistic, [swap["id"] for swap in swaps], [len(swaps)])
        result.predictions += swaps
    return result


def swapped(model, records, limit: int | None = None) -> list[dict]:
    """Per picture with boxes of two categories: `id`, `boxes`, `labels`, the `texts` of both orders, and whether they are `swapped`."""
    made = []
    for index in range(len(records)):
        record = records[index]
        order = sorted(range(len(record.boxes)), key=lambda i: -area(record.boxes[i]))
        other = next((i for i in order if record.labels[i] != record.labels[order[0]]), None)
        if other is None:
            continue
        pair = [order[0], other]
        asked = [{"role": "user", "content": BOTH}]
        reader = PictureReader(model, [records.picture(index)])
        ways = [[record.boxes[i] for i in way] for way in (pair, pair[::-1])]
        texts = answer_all(model, reader, [(0, asked, boxes) for boxes in ways], max_new_tokens=32)
        first, second = map(things, texts)
        made.append(
            {
                "id": record.id, "boxes": ways[0], "labels": [record.labels[i] for i in pair], "texts": texts,
                "swapped": first is not None and second is not None and first[0] != first[1] and first == second[::-1],
            }
        )  # fmt: skip
        if limit is not None and len(made) == limit:
            break
    return made


def things(text: str) -> tuple[str, str] | None:
    """ "region1 is a dog, region2 is a cat." -> ("a dog", "a cat")."""
    parts = text.rstrip(".").split(", region2 is ")
    return (
        (parts[0].removeprefix("region1 is "), parts[1])
        if len(parts) == 2 and parts[0].startswith("region1 is ")
        else None
    )
