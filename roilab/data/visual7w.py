"""Visual7W (arXiv 1511.03416), for evaluation: four answers to a question about a picture, texts ("telling") or boxes ("pointing").

The files hold the right answer and three wrong ones apart; the right one is put among them here, in an order that depends on the seed and
the question's id.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ..regions import RegionDialogue
from .coco_style import scratch_base
from .fields import box_xywh, checked, field, raw
from .json_stream import items
from .picture_files import below, size_of
from .report import Filtered, Malformed, Report
from .sources import Source

SPLITS = ("train", "val", "test")


def read(
    files: dict[str, Path], report: Report, *, images: Path, task: str = "pointing", split: str = "train", seed: int = 0
) -> Iterator[RegionDialogue]:
    """Records of one task and split of Visual7W, one per question.

    Args:
        files: "questions", which holds all splits.
        report: gets what is malformed or left out.
        images: folder of the pictures: the file does not tell their sizes, which are read from the pictures' headers.
        task: "telling" or "pointing".
        split: "train", "val" or "test"; pictures of the other splits are passed over.
        seed: of the order of the answers.
    Yields:
        Records with `choices`. Telling: the answers are texts, there are no boxes. Pointing: the boxes are the four choices in order,
        answer i is "<region(i+1)>", and the open question lists them.
    """
    path = files["questions"]
    with contextlib.ExitStack() as stack:
        boxes = stack.enter_context(_boxes(path, report)) if task == "pointing" else None
        for position, entry in items(path, "images.item", report, f"{path.name}: images"):
            pairs, picture = [], {}
            with report.at(path, position):
                if _split(entry) == split:
                    picture = _picture(images, below(entry, "filename"))
                    pairs = field(entry, "qa_pairs", list)
            for i, pair in enumerate(pairs):
                record = None
                with report.at(path, f"{position}.qa_pairs[{i}]"):
                    record = _record(pair, boxes, picture, task, seed)
                if record is not None:
                    yield record


def _split(entry) -> str:
    split = field(entry, "split", str)
    if split not in SPLITS:
        raise Malformed(f"'split' is {split!r}, expected {', '.join(SPLITS)}")
    return split


def _picture(images: Path, name: str) -> dict:
    width, height = size_of(images, name)
    return {"image": name, "width": width, "height": height}


def _record(pair, stored: sqlite3.Connection | None, picture: dict, task: str, seed: int) -> RegionDialogue:
    id, question = field(pair, "qa_id", int), raw(field(pair, "question", str), "'question'")
    wrong, kind = field(pair, "multiple_choices", list), pair.get("type")
    if len(wrong) != 3:
        raise Malformed(f"'multiple_choices' has {len(wrong)} entries, expected 3 wrong answers")
    if kind is not None:
        checked(kind, str, "'type'")
    choices = [pair.get("answer"), *wrong]
    choices = [raw(text, "an answer") if stored is None else checked(text, int, "an answer") for text in choices]
    if choices[0] in choices[1:]:
        raise Malformed(f"the right answer {choices[0]!r} is among the wrong ones")
    order = list(range(4))
    random.Random(f"{seed} visual7w {id}").shuffle(order)
    choices, right = [choices[i] for i in order], order.index(0)
    boxes, labels, asked = [], [], question
    if stored is not None:
        for number in choices:
            box, label = _box(stored, number, picture["width"], picture["height"])
            boxes.append(box)
            labels.append(label)
        choices = [f"<region{number}>" for number in range(1, 5)]
        asked = f"{question} Choose from <region1>, <region2>, <region3> and <region4>."
    return RegionDialogue(
        id=str(id), source=f"v7w_{task}", **picture, boxes=boxes, labels=labels,
        turns=[{"role": "user", "content": asked}, {"role": "assistant", "content": choices[right]}],
        choices={
            "question": question, "answers": choices, "answer_label": right, "rationales": None, "rationale_label": None, "type": kind,
        },
    )  # fmt: skip


@contextlib.contextmanager
def _boxes(path: Path, report: Report) -> Iterator[sqlite3.Connection]:
    """The file's half a million boxes by their id, on disk; they may follow the questions in the file."""
    with scratch_base() as stored:
        stored.execute("CREATE TABLE box (id INTEGER PRIMARY KEY, body TEXT)")
        for position, box in items(path, "boxes.item", report, f"{path.name}: boxes"):
            with report.at(path, position):
                try:
                    stored.execute("INSERT INTO box VALUES (?, ?)", (field(box, "box_id", int), json.dumps(box)))
                except sqlite3.IntegrityError:
                    raise Malformed(f"box_id {box['box_id']} a second time") from None
        yield stored


def _box(stored: sqlite3.Connection, number: int, width: int, height: int) -> tuple[list[float], str]:
    row = stored.execute("SELECT body FROM box WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise Malformed(f"box {number} is no box of the file")
    box = json.loads(row[0])
    try:
        corners = box_xywh([field(box, side, float) for side in ("x", "y", "width", "height")], width, height)
    except Filtered as rule:  # with three choices left it would be another question
        raise Malformed(f"box {number}, a choice: {rule}") from None
    except Malformed as error:
        raise Malformed(f"box {number}: {error}") from None
    return corners, field(box, "name", str)


def _source(task: str, title: str) -> Source:
    name = f"dataset_v7w_{task}.json"
    return Source(
        name=f"v7w_{task}",
        title=title,
        stage="evaluation",
        files={"questions": (name, f"visual7w/{name}", f"v7w/{name}")},
        images=("visual7w_images", "v7w_images", "v7w images", "visual7w/images", "images"),
        read=read,
        obtain="Visual7W, questions and images: ai.stanford.edu/~yukez/visual7w",
        splits=SPLITS,
        options={"task": task, "split": "{split}"},
        metadata=True,
    )


SOURCES = (_source("telling", "Visual7W, telling"), _source("pointing", "Visual7W, pointing"))
