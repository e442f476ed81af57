"""What each data set is evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .captions import evaluate_captions
from .classification import evaluate_classes
from .multiple_choice import evaluate_choices
from .results import Result


def _evaluate_photo(*args, **options) -> Result:
    from ..photo.evaluation import evaluate_photo  # which is made of what this package holds

    return evaluate_photo(*args, **options)


TASKS: dict[str, Callable[..., Result]] = {
    "vcr_full": evaluate_choices,
    "v7w_telling": evaluate_choices,
    "v7w_pointing": evaluate_choices,
    "vg": evaluate_captions,
    "refcocog": evaluate_captions,
    "coco": evaluate_classes,
    "photo": _evaluate_photo,
}


def evaluate_records(model, records: Sequence, data: str, split: str = "", **options) -> Result:
    """The evaluation that belongs to a data set.

    Args:
        data: one of `TASKS`.
        split: name of the records' split.
        options: those of `evaluate_choices` (VCR, Visual7W), `evaluate_captions` (VG, RefCOCOg), `evaluate_classes` (COCO)
            or `evaluate_photo` (COCO's boxes in the words of the photo model).
    Raises:
        ValueError: another data set, an option that its evaluation does not have.
    """
    if data not in TASKS:
        raise ValueError(f"no evaluation for {data!r}; there are {', '.join(TASKS)}")
    if "scoring" in options and TASKS[data] is evaluate_captions:
        raise ValueError(f"{data} is evaluated by generated captions; there is no scoring to choose")
    return TASKS[data](model, records, data, split, **options)
