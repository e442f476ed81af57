"""The quiz: people answer the questions that a model is asked, so that a human row stands beside the model's.

Each drawn record is asked about twice, as VCR does (arXiv 1811.10830): its answer (Q->A), then, told the right one, its rationale (QA->R).
What a person answers is kept by `answers`.

    quiz = Quiz(roilab.data.read("vcr_full", "my-data", "val"))
    evaluate_choices(model, quiz.records), quiz.human_row("answers")
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..presenting import LETTERS, four_choices, mentioned, spoken
from ..regions import RegionDialogue, validate_boxes
from .answers import Answers, checked_name
from .multiple_choice import NUMBERS, question_type
from .results import Result, scores_of
from .running import Spread, picture_order
from .statistics import weighted_means

STAGES = ("answer", "rationale")
SIDE, SPACE = 300, 34  # of a picture on the sheet, and between its questions, in the figure's pixels


@dataclass(frozen=True)
class Question:
    """One question of a quiz.

    Attributes:
        record: index in `Quiz.records`.
        stage: "answer" or "rationale".
        text: as a reader sees it ("region1"); for a rationale the question, the right answer with its letter, and "Why?".
        choices: four texts, as a reader sees them.
        right: index of the right choice.
        boxes: per region of the record xyxy in pixels of its picture, or None for one that the model is not shown here.
    """

    record: int
    stage: str
    text: str
    choices: tuple[str, ...]
    right: int
    boxes: tuple[list[float] | None, ...]

    @property
    def lettered(self) -> tuple[str, ...]:
        """The choices with their letters, "(A) ..."."""
        return tuple(f"({letter}) {text}" for letter, text in zip(LETTERS, self.choices))


class _Drawn(Spread):
    """The records at some indices, with their pictures."""

    def __init__(self, records, indices: list[int]):
        self.records, self.indices = records, indices


class Quiz:
    """Questions about drawn records: each one's answer, directly followed by its rationale.

    Args:
        records: `RegionDialogue` records with `.picture(index)`, such as `roilab.data.read` gives; those without choices or labels are
            passed over.
        questions: how many, two per record.
        seed: with the number of records decides which are drawn, and their order.

    Attributes:
        records: the drawn records with `.picture`, for `evaluate_choices(model, quiz.records)`.
        items: the `Question`s.
        fingerprint: 16 hexadecimal digits that change with what is asked.

    Raises:
        ValueError: an odd number of questions, too few labelled records, or a record that cannot be asked about.
    """

    def __init__(self, records: Sequence, questions: int = 40, seed: int = 0):
        if questions < 2 or questions % 2:
            raise ValueError(f"questions is {questions}, expected an even number from 2: two questions per record")
        drawn: list[int] = []
        for index in random.Random(f"{seed} quiz").sample(range(len(records)), len(records)):
            if len(drawn) < questions // 2 and _is_labelled(records[index]):
                drawn.append(index)
        if len(drawn) < questions // 2:
            raise ValueError(
                f"{questions} questions need {questions // 2} records with labelled answers and rationales; "
                f"there are {len(drawn)} among {len(records)} records"
            )
        self.records = _Drawn(records, drawn)
        chosen = [self.records[i] for i in range(len(drawn))]
        self._ids, self._types = [each.id for each in chosen], [_type(each) for each in chosen]
        if len(set(self._ids)) < len(chosen):
            raise ValueError(f"ids of records must differ: {len(chosen)} records, {len(set(self._ids))} ids")
        self.items = [_question(record, i, stage) for i, record in enumerate(chosen) for stage in STAGES]
        self.fingerprint = picture_order(self.records)[1]

    def __len__(self) -> int:
        return len(self.items)

    def picture(self, index: int):
        """The PIL picture of question `index`, from 0."""
        return self.records.picture(self.items[index].record)

    # People

    def answers(self, name: str, folder: str | Path | None = None) -> Answers:
        """A person's answers: those that `<folder>/<name>.json` has, or none yet; without a folder they are kept in memory.

        Raises:
            ValueError: a name that cannot be a file's, or a file that is not of this quiz.
        """
        name = checked_name(name)
        return Answers(self, name, None if folder is None else Path(folder) / f"{name}.json")

    def people(self, folder: str | Path) -> list[Answers]:
        """The answers of everybody who has a file in the folder, by name; a file's name is the person's.

        Raises:
            ValueError: a file that is not of this quiz.
        """
        found = sorted(Path(folder).glob("*.json"))
        return [Answers(self, path.stem, path) for path in found if not path.name.startswith(".")]

    def human_row(self, people: str | Path | Sequence[Answers]) -> Result:
        """Q->A, QA->R and Q->AR of all people's answers together, with 95 % intervals.

        Q->AR counts where a person has answered both questions about a record. The bootstrap draws records, each with all its answers:
        the intervals say what other records would change, not what other people would.

        Args:
            people: the folder of their files, or their `Answers`.
        Raises:
            ValueError: answers to another quiz.
        """
        where = f" in {people}" if isinstance(people, str | Path) else ""
        people = self._checked(people)
        right = np.full((len(people), len(self.records), 2), np.nan)  # 1, 0, or nan where nothing was answered
        predictions = []
        for i, person in enumerate(people):
            for item, letter in zip(self.items, person.letters):
                chosen = LETTERS.index(letter)
                right[i, item.record, STAGES.index(item.stage)] = chosen == item.right
                about = {"id": self._ids[item.record], "stage": item.stage, "by": "people", "person": person.name}
                about["type"] = self._types[item.record]
                predictions.append(about | {"chosen": chosen, "right": item.right})
        answer, rationale = right.reshape(-1, 2).T
        values = np.stack([answer, rationale, answer * rationale], 1)
        groups = np.tile(np.arange(len(self.records)), len(people))
        values, groups = values[~np.isnan(answer)], groups[~np.isnan(answer)]
        counts = (~np.isnan(values)).sum(0)
        kept = np.flatnonzero(counts)
        names = [(NUMBERS[k], "people", "all") for k in kept]
        settings = {"quiz": self.fingerprint, "people": len(people), "records": len(self.records)}
        result = Result(getattr(self.records.records, "name", ""), "", [], settings, predictions=predictions)
        if predictions:
            counted = [int(counts[k]) for k in kept]
            result.scores = scores_of(names, weighted_means(values[:, kept]), groups, counted)
        noun = "1 person" if len(people) == 1 else f"{len(people)} people"
        result.notes.append(f"{noun}{where}: {len(predictions)} of {len(people) * len(self)} answers.")
        return result

    def per_person(self, people: str | Path | Sequence[Answers]):
        """One row per person, a pandas dataframe: name, number of answers, and the three numbers x 100 (nan where there is none)."""
        import pandas

        rows = []
        for person in self._checked(people):
            values = {score.name: score.value for score in self.human_row([person]).scores}
            rows.append([person.name, len(person.letters), *(values.get(name, float("nan")) for name in NUMBERS)])
        return pandas.DataFrame(rows, columns=["name", "answers", *NUMBERS])

    def compare(self, people: str | Path | Sequence[Answers], models: Mapping[str, Result]):
        """The human row and models' rows: x 100 with 95 % intervals, a pandas dataframe.

        Args:
            people: as for `human_row`.
            models: name -> what `evaluate_choices(model, quiz.records)` gave.
        Raises:
            ValueError: a result on other records than the quiz's.
        """
        import pandas

        human = self.human_row(people)
        rows = {f"people ({human.settings['people']})": human.scores}
        for name, result in models.items():
            ids = {prediction["id"] for prediction in result.predictions}
            if ids != set(self._ids):
                raise ValueError(
                    f"{name}: a result on {len(ids)} records, {len(ids & set(self._ids))} of them among the {len(self._ids)} of the quiz; "
                    "expected evaluate_choices(model, quiz.records)"
                )
            for by in dict.fromkeys(score.by for score in result.scores):
                rows[f"{name}, by {by}"] = [score for score in result.scores if score.by == by]
        cells = []
        for scores in rows.values():
            told = {s.name: f"{s.value:.1f} ({s.low:.1f} - {s.high:.1f})" for s in scores if s.questions == "all"}
            cells.append([told.get(name, "") for name in NUMBERS])
        return pandas.DataFrame(cells, index=list(rows), columns=list(NUMBERS))

    def _checked(self, people) -> list[Answers]:
        people = self.people(people) if isinstance(people, str | Path) else list(people)
        for person in people:
            if person.quiz.fingerprint != self.fingerprint:
                raise ValueError(
                    f"answers of {person.name!r} to quiz {person.quiz.fingerprint}, expected {self.fingerprint}"
                )
        return people

    # On paper

    def sheet(self, first: int = 0, count: int = 4, path=None):
        """Questions with pictures, boxes and choices as a figure, to be read without a kernel or printed.

        A rationale question tells the answer of the one before it: for a class, `sheet(i, 1)` prints each on its own page.

        Args:
            first: index of the first question, from 0.
            count: how many; the last sheet may have fewer.
            path: where to save the figure too; the ending chooses the format.
        Returns:
            A matplotlib Figure, which a notebook shows as a PNG.
        """
        if not 0 <= first < len(self) or count < 1:
            raise ValueError(f"{count} questions from {first} on, expected at least 1 of 0 to {len(self) - 1}")
        from ..plotting import COLUMN, draw_regions
        from ..plotting.dialogue import _Block
        from ..plotting.style import GAP, MARGIN, SAVED_DPI, fit_size, measuring_renderer, new_figure

        rows, total = [], MARGIN
        for index in range(first, min(first + count, len(self))):
            picture, item = self.picture(index), self.items[index]
            said = [("note", f"Question {index + 1} of {len(self)}"), ("user", item.text)]
            said += [("assistant", text) for text in item.lettered]
            blocks = [_Block({"role": role, "content": text}, measuring_renderer()) for role, text in said]
            size = fit_size(picture.size, SIDE, SIDE)
            rows.append((total, picture, size, item, blocks))
            total += max(size[1], sum(block.height + block.space for block in blocks)) + SPACE
        width, height = 2 * MARGIN + SIDE + GAP + COLUMN, total - SPACE + MARGIN
        figure = new_figure(width, height)
        column = figure.add_axes([(MARGIN + SIDE + GAP) / width, 0, COLUMN / width, 1], label="questions")
        column.set(xlim=(0, COLUMN), ylim=(height, 0))
        column.axis("off")
        for y, picture, (across, down), item, blocks in rows:
            left, bottom = MARGIN + (SIDE - across) / 2, height - y - down
            place = [left / width, bottom / height, across / width, down / height]
            draw_regions(picture, item.boxes, figure.add_axes(place, label="picture"))
            for block in blocks:
                y = block.draw(column, y) + block.space
        if path is not None:
            figure.savefig(path, dpi=SAVED_DPI)
        return figure


def _is_labelled(record: RegionDialogue) -> bool:
    choices = record.choices or {}
    return bool(choices.get("rationales")) and None not in (choices.get("answer_label"), choices.get("rationale_label"))


def _type(record: RegionDialogue) -> str:
    return record.choices.get("type") or question_type(record.choices["question"])


def _question(record: RegionDialogue, index: int, stage: str) -> Question:
    choices, texts = record.choices, {}
    for each in STAGES:
        if choices[f"{each}_label"] not in range(len(LETTERS)):
            raise ValueError(f"record {record.id}: its {each} label is {choices[f'{each}_label']!r}, expected 0 to 3")
        texts[each] = tuple(spoken(text) for text in choices[f"{each}s"])
    shown = mentioned(four_choices(record, stage))  # the regions that the model is shown; it also checks the choices
    try:
        boxes = validate_boxes(record.boxes, (record.width, record.height))
    except ValueError as error:
        raise ValueError(f"record {record.id}: {error}") from None
    text, right = spoken(choices["question"]), choices["answer_label"]
    if stage == "rationale":
        text += f"\nRight answer: ({LETTERS[right]}) {texts['answer'][right]}\nWhy?"
    seen = tuple(box if number in shown else None for number, box in enumerate(boxes, 1))
    return Question(index, stage, text, texts[stage], choices[f"{stage}_label"], seen)
