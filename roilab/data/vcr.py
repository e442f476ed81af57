"""VCR (Visual Commonsense Reasoning, arXiv 1811.10830) in the three views of GPT4RoI (arXiv 2307.03601, section 4.1).

A record asks about a picture with detected objects and gives four answers and four rationales. Token lists count the objects from 0; so do
`objects` and the boxes of the metadata file, and all indices here, until they become `<regionN>`.

    full:    a sentence lists all objects as regions without saying what they are; texts say "person at <region1>"
    single:  only the one region that the question names, as `<region1>`; the answer says what it is
    multi:   the same for questions that name several

`single` and `multi` use the records whose answer names an object, and none that the question does not name; "why?" and the rationale are
added where the rationale names no other object either.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..dialogues import escape_regions
from ..regions import RegionDialogue
from .fields import NO_AREA, box_xyxy, checked, field, shown, size
from .json_stream import lines
from .picture_files import below
from .report import Filtered, Malformed, Report
from .requests import listed as listed_text
from .sources import Source
from .vcr_text import Token, check_base, named, question_type, text_of, tokens_of

VIEWS = ("full", "single", "multi")
OPENINGS = (
    "There {be} {regions} in the image.",
    "The image shows {regions}.",
    "{regions} {be} marked in the image.",
    "Look at {regions} in the image.",
    "In this picture you see {regions}.",
)
WHY = ("Why?", "Why do you think so?", "How can you tell?", "What makes you say that?", "What is your reason?")
NOT_LISTED = "object that is not listed: " + NO_AREA


@dataclass(frozen=True)
class _Item:
    """One line of the file with its metadata; `boxes[i]` is that of `objects[i]`, None where a rule leaves it out."""

    id: str
    image: str
    width: int
    height: int
    objects: list[str]
    boxes: list[list[float] | None]
    question: list[Token]
    answers: list[list[Token]]
    answer_label: int | None
    rationales: list[list[Token]]
    rationale_label: int | None

    @property
    def answer(self) -> list[Token] | None:
        return None if self.answer_label is None else self.answers[self.answer_label]

    @property
    def rationale(self) -> list[Token] | None:
        return None if self.rationale_label is None else self.rationales[self.rationale_label]


def read(
    files: dict[str, Path], report: Report, *, images: Path, view: str = "full", split: str = "train", seed: int = 0
) -> Iterator[RegionDialogue]:
    """Records of one view of VCR.

    Args:
        files: "annotations", JSON lines.
        report: gets what is malformed or left out.
        images: the folder below which `img_fn` and `metadata_fn` lie ("vcr1images").
        view: "full", "single" or "multi".
        split: in "test" the labels may be missing: the turns then end with the question, for an answer to be generated.
        seed: of the phrasings.
    Yields:
        Records with `choices`: as text with `<regionN>`, where all their objects are listed; `type` by `vcr_text.question_type`. In the full
        view the choices' question begins with the sentence that lists the objects.
    """
    if view not in VIEWS:
        raise ValueError(f"unknown view {view!r} of VCR; known: {', '.join(VIEWS)}")
    metadata = lru_cache(maxsize=16)(
        lambda name: _metadata(images, name)
    )  # the questions of a picture follow each other
    for position, line in lines(files["annotations"], report):
        record = None
        with report.at(files["annotations"], position):
            item = _item(line, metadata, unlabelled=split == "test" and view == "full")
            rng = random.Random(f"{seed} vcr_{view} {item.id}")
            record = _full(item, rng, report) if view == "full" else _named(item, view, rng)
        if record is not None:
            yield record


def _item(line: dict, metadata, unlabelled: bool) -> _Item:
    objects = [checked(name, str, "a name in 'objects'") for name in field(line, "objects", list)]
    width, height, boxes = _boxes(metadata(below(line, "metadata_fn")), objects)
    texts = {}
    for name in ("answer", "rationale"):
        choices = field(line, f"{name}_choices", list)
        if len(choices) != 4:
            raise Malformed(f"'{name}_choices' has {len(choices)} choices, expected 4")
        texts[f"{name}s"] = [tokens_of(c, f"{name}_choices[{i}]", len(objects)) for i, c in enumerate(choices)]
        key = f"{name}_label"
        label = None if unlabelled and line.get(key) is None else field(line, key, int)
        if label is not None and not 0 <= label < 4:
            raise Malformed(f"{key!r} is {label}, expected 0 to 3")
        texts[key] = label
    item = _Item(
        id=field(line, "annot_id", str), image=below(line, "img_fn"), width=width, height=height, objects=objects, boxes=boxes,
        question=tokens_of(field(line, "question", list), "question", len(objects)), **texts,
    )  # fmt: skip
    for name, tokens in (("question", item.question), ("answer", item.answer), ("rationale", item.rationale)):
        check_base(tokens or [], line.get(f"{name}_orig"), name)
    return item


def _metadata(images: Path, name: str) -> dict | Malformed:
    """The metadata file, or what is wrong with it (kept like the file, since every question of the picture asks for it)."""
    try:
        return json.loads((images / name).read_bytes())
    except FileNotFoundError:
        return Malformed(f"metadata file {name} is missing in {images.name}")
    except (OSError, ValueError, RecursionError) as error:
        return Malformed(f"metadata file {name} cannot be read: {error}")


def _boxes(metadata: dict | Malformed, objects: list[str]) -> tuple[int, int, list[list[float] | None]]:
    if isinstance(metadata, Malformed):
        raise Malformed(*metadata.args)
    width, height = size(metadata)
    raw, names = field(metadata, "boxes", list), metadata.get("names", objects)
    if len(raw) != len(objects):
        raise Malformed(f"{len(objects)} objects, {len(raw)} boxes in the metadata file")
    if names != objects:
        raise Malformed(f"objects are {shown(objects)}, but {shown(names)} in the metadata file")
    boxes = []
    for i, box in enumerate(raw):
        if not isinstance(box, list) or len(box) != 5:
            raise Malformed(f"box {i} of the metadata file is {shown(box)}, expected x1, y1, x2, y2, score")
        try:
            boxes.append(box_xyxy(box[:4], width, height))
        except Filtered:  # keeps its place, so that the numbers of the others stay right
            boxes.append(None)
    return width, height, boxes


def _full(item: _Item, rng: random.Random, report: Report) -> RegionDialogue:
    listed = [i for i, box in enumerate(item.boxes) if box is not None]
    if not set(named(item.question, *item.answers, *item.rationales)).issubset(listed):
        raise Filtered(f"names an object with {NO_AREA}")
    if not listed:
        raise Filtered("no objects")
    record = _Writer(item, listed)
    regions = [f"<region{number}>" for number in range(1, len(listed) + 1)]
    opening = rng.choice(OPENINGS).format(regions=listed_text(regions), be="are" if len(listed) > 1 else "is")
    if len(listed) < len(item.boxes):
        report.filtered(NOT_LISTED, len(item.boxes) - len(listed))
    return record.dialogue("vcr_full", f"{opening} {record.text(item.question)}", rng)


def _named(item: _Item, view: str, rng: random.Random) -> RegionDialogue:
    question = named(item.question)
    if view == "single" and len(question) != 1:
        raise Filtered("question that does not name exactly one object")
    if view == "multi" and len(question) < 2:
        raise Filtered("question that names fewer than two objects")
    if not named(item.answer) or not set(named(item.answer)).issubset(question):
        raise Filtered("answer that names no object, or one that the question does not name")
    if any(item.boxes[i] is None for i in question):
        raise Filtered(f"names an object with {NO_AREA}")
    record = _Writer(item, question)
    return record.dialogue(f"vcr_{view}", text_of(item.question, lambda i: f"<region{record.numbers[i]}>"), rng)


class _Writer:
    """Writes an item's texts when `listed` objects become regions 1, 2, ..."""

    def __init__(self, item: _Item, listed: list[int]):
        self.item, self.listed = item, listed
        self.numbers = {index: number for number, index in enumerate(listed, start=1)}

    def can(self, *texts: Sequence[Token]) -> bool:
        return set(named(*texts)).issubset(self.listed)

    def text(self, tokens: Sequence[Token]) -> str:
        return text_of(tokens, lambda i: f"{escape_regions(self.item.objects[i])} at <region{self.numbers[i]}>")

    def dialogue(self, source: str, question: str, rng: random.Random) -> RegionDialogue:
        item, said = self.item, [question]
        if item.answer is not None:
            said.append(self.text(item.answer))
            if item.rationale is not None and self.can(item.rationale):
                said += [rng.choice(WHY), self.text(item.rationale)]
        return RegionDialogue(
            id=item.id, source=source, image=item.image, width=item.width, height=item.height,
            boxes=[item.boxes[i] for i in self.listed], labels=[item.objects[i] for i in self.listed],
            turns=[{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(said)],
            choices=self.choices(question) if self.can(*item.answers) else None,
        )  # fmt: skip

    def choices(self, question: str) -> dict:
        item, rationales = self.item, self.can(*self.item.rationales)
        return {
            "question": question,
            "answers": [self.text(tokens) for tokens in item.answers],
            "answer_label": item.answer_label,
            "rationales": [self.text(tokens) for tokens in item.rationales] if rationales else None,
            "rationale_label": item.rationale_label if rationales else None,
            "type": question_type(item.question),
        }


def _source(view: str, title: str, splits: tuple[str, ...]) -> Source:
    return Source(
        name=f"vcr_{view}",
        title=title,
        stage="stage 2",
        files={"annotations": ("{split}.jsonl", "vcr1annots/{split}.jsonl", "vcr/{split}.jsonl")},
        images=("vcr1images", "vcr/vcr1images"),
        read=read,
        obtain="VCR 1.0, annotations and images: visualcommonsense.com, after agreeing to its terms",
        splits=splits,
        options={"view": view, "split": "{split}"},
        metadata=True,
    )


SOURCES = (
    _source("full", "VCR, all objects listed", ("train", "val", "test")),
    # Which records they hold depends on the right answer, which "test" does not tell.
    _source("single", "VCR, questions that name one region", ("train", "val")),
    _source("multi", "VCR, questions that name several regions", ("train", "val")),
)
