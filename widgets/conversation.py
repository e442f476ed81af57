"""A conversation about regions that move: rounds, what each depends on, which are out of date, and how they are kept. Plain Python.

A round is about the regions that its question names; one that names none ("Why?") is about those of the round before. When such a
region is no longer where it was, the answer is out of date: it stays to be read, but later prompts leave the round out.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field

from roilab.chat import Answer
from roilab.dialogues import find_mentions

JSON_FORMAT = "roilab.conversation.1"
_BARE = re.compile(r"(?<![\w\\<])region([1-9][0-9]*)\b")  # as the model's answers and hurried people write it
WAITING, ANSWERING, DONE, FAILED, DROPPED = "waiting", "answering", "done", "failed", "dropped"
_MARKDOWN = re.compile(r"([!#%&()*+\-./:<=>@\[\]^_`{|}~])|([$\\])")


@dataclass(eq=False)
class Round:
    """One question and what came of it.

    Attributes:
        question: as it was asked.
        boxes: all boxes and outlines by number when it was asked, None where there was no such region.
        about: numbers of the regions it is about.
        state: "waiting", "answering", "done", "failed" or "dropped" (stopped before its turn came).
        answer: the newest answer, or None.
        said: the words so far, while answering.
        error: what went wrong, in words, or "".
        stopping: whether it is to end as soon as it can.
        answered_with: number -> box or outline, of the regions that `answer` is about.
    """

    question: str
    boxes: list
    about: tuple[int, ...] = ()
    state: str = WAITING
    answer: Answer | None = None
    said: str = ""
    error: str = ""
    stopping: bool = False
    answered_with: dict[int, list[float] | None] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.state in (WAITING, ANSWERING)

    def changed(self, boxes: list) -> list[int]:
        """Numbers of the regions that are not where they were when this was answered."""
        if self.answer is None:
            return []
        return [number for number, box in self.answered_with.items() if _box_of(boxes, number) != box]


class Conversation:
    """Rounds in their order."""

    def __init__(self):
        self.rounds: list[Round] = []

    def add(self, question: str, boxes: list) -> Round:
        """A new round at the end, waiting."""
        self.rounds.append(Round(question, boxes))
        return self.prepare(self.rounds[-1], boxes)

    def prepare(self, round_: Round, boxes: list) -> Round:
        """Make a round wait for a new answer, with the boxes of now."""
        place = self.rounds.index(round_)
        before = self.rounds[place - 1].about if place else ()
        round_.about = mentioned(round_.question) or before
        round_.boxes, round_.state, round_.said, round_.error, round_.stopping = boxes, WAITING, "", "", False
        return round_

    def answers_before(self, round_: Round) -> list[Answer]:
        """The rounds that the model sees ahead of this one: answered, and still true of its boxes."""
        earlier = self.rounds[: self.rounds.index(round_)]
        return [
            each.answer for each in earlier if each.state == DONE and each.answer and not each.changed(round_.boxes)
        ]

    def finish(self, round_: Round, answer: Answer):
        round_.answer, round_.state, round_.said = answer, DONE, answer.text
        round_.answered_with = {number: _box_of(round_.boxes, number) for number in round_.about}

    def fail(self, round_: Round, error: str):
        round_.state, round_.error = FAILED, error

    @property
    def numbers(self) -> set[int]:
        """Numbers that the rounds name: new regions should not take them."""
        used = [each for each in self.rounds if each.answer or each.is_open]
        return {number for each in used for number in (*each.about, *mentioned(each.question))}

    def turns(self, boxes: list) -> list[dict]:
        """For `plotting.show_dialogue`: dicts of `role` ("user", "assistant", "note") and `content`."""
        result = []
        for each in self.rounds:
            result.append({"role": "user", "content": each.question})
            if each.answer:
                result.append({"role": "assistant", "content": each.answer.text})
            result += [{"role": "note", "content": text} for text in remarks(each, boxes)]
        return result

    def to_dict(self) -> list[dict]:
        """The rounds; what waits or is being answered is kept as not answered."""
        return [
            {
                "question": each.question,
                "boxes": each.boxes,
                "about": list(each.about),
                "answer": None if each.answer is None else {**asdict(each.answer), "ids": []},
                "answered_with": {str(number): box for number, box in each.answered_with.items()},
                "state": DROPPED if each.is_open else each.state,
                "error": each.error,
            }
            for each in self.rounds
        ]

    @classmethod
    def from_dict(cls, records: list[dict]) -> Conversation:
        """What `to_dict` gave. Raises ValueError if it is no such list."""
        result = cls()
        try:
            for each in records:
                answer = None if each["answer"] is None else Answer(**each["answer"])
                state = each["state"]
                if state not in (DONE, FAILED, DROPPED) or (state == DONE) > (answer is not None):
                    raise ValueError(f"a round in the state {state!r} with the answer {answer!r}")
                result.rounds.append(
                    Round(
                        str(each["question"]),
                        list(each["boxes"]),
                        tuple(map(int, each["about"])),
                        state,
                        answer,
                        answer.text if answer else "",
                        str(each["error"]),
                        False,
                        {int(number): box for number, box in each["answered_with"].items()},
                    )  # fmt: skip
                )
        except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"not a saved conversation: {type(error).__name__}: {error}") from error
        return result


def mentioned(text: str) -> tuple[int, ...]:
    """Numbers of the regions that a text names, in order, each once."""
    return tuple(dict.fromkeys(number for _, _, number in find_names(text)))


def find_names(text: str) -> list[tuple[int, int, int]]:
    """Where a text names regions, as `<region1>` or as "region1": (start, end, number) of each."""
    return sorted(
        [*find_mentions(text), *((match.start(), match.end(), int(match[1])) for match in _BARE.finditer(text))]
    )


def marked(question: str, numbers) -> str:
    """A question with "region1" written as "<region1>" for the regions that there are."""
    return _BARE.sub(lambda match: f"<region{match[1]}>" if int(match[1]) in numbers else match[0], question)


def remarks(round_: Round, boxes: list) -> list[str]:
    """What is to be said beside a round."""
    result = []
    if round_.state == FAILED:
        result.append(f"No answer: {round_.error}")
    if round_.state == DROPPED:
        result.append("Stopped before it was answered.")
    if round_.answer is not None and not round_.is_open:
        if round_.answer.note:
            result.append(round_.answer.note)
        if not round_.answer.finished and round_.state == DONE:
            result.append("The answer was cut short.")
        if moved := round_.changed(boxes):
            names = " and ".join(f"region{number}" for number in moved)
            result.append(f"Out of date: {names} changed after this answer. Later questions leave this round out.")
    return result


def markdown(conversation: Conversation, regions) -> str:
    """The conversation about a `RegionSet` as Markdown; whatever people or the model wrote stays plain text."""
    width, height = regions.size
    lines = [
        "# A conversation about regions",
        "",
        f"Picture: {width} x {height} pixels, sha256 `{regions.image_hash}`",
        "",
    ]
    lines += ["| region | x1 | y1 | x2 | y2 | label |", "| ---: | ---: | ---: | ---: | ---: | --- |"]
    lines += [
        f"| {each.id} | {' | '.join(f'{round(side, 1):g}' for side in each.box)} | {as_markdown(each.label)} |"
        for each in regions
    ]
    lines += _outlines_told(regions)
    for number, each in enumerate(conversation.rounds, 1):
        lines += ["", f"**Question {number}.** {as_markdown(each.question)}", ""]
        if each.answer:
            lines += [f"**Answer.** {as_markdown(each.answer.text)}", ""]
        lines += [f"*{as_markdown(text)}*" for text in remarks(each, regions.shapes)]
    return "\n".join(lines).rstrip() + "\n"


def _outlines_told(regions) -> list[str]:
    """Lines of Markdown on what is no box."""
    told = [
        f"{each.name} is an outline of {len(each.outline)} points"
        if each.place is None
        else f"{each.name} is a point at {round(each.place[0], 1):g}, {round(each.place[1], 1):g}"
        for each in regions
        if each.outline
    ]
    return ["", as_markdown(f"{', '.join(told)}; the table has the boxes around them.")] if told else []


def as_markdown(text: str) -> str:
    """Any text so that Markdown shows exactly its words, on one line."""
    # Backslash and dollar as entities: JupyterLab looks for mathematics before it looks for Markdown.
    return _MARKDOWN.sub(lambda match: "\\" + match[1] if match[1] else f"&#{ord(match[2])};", " ".join(text.split()))


def _box_of(boxes: list, number: int):
    box = boxes[number - 1] if 0 < number <= len(boxes) else None
    return None if box is None else list(box)
