"""What is being explained: a forced answer to a question about regions of a picture.

Every method of this package explains a `Target`: the sum of the log-probabilities of chosen tokens of an answer that is forced upon the
model (teacher forcing), whether the model would have said it or not. The sequence is split here, and only here, into named parts:

    system  image x P  system  (history ... region1 ... history)  question ... region2 ... question  system  answer ...

Axes: B batch, T sequence, P patches, N regions, A answer tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from PIL import Image

from ..regions import bounding_box, normalise_regions
from ..streaming import token_texts

ANSWER, HISTORY, IMAGE, QUESTION, SYSTEM = "answer", "history", "image", "question", "system"


@dataclass(frozen=True, eq=False)
class Target:
    """A forced answer about regions of a picture, as ids. Made by `Target.of`.

    Attributes:
        image: the picture.
        question, answer: the last question and the forced answer.
        ids: [T] token ids of prompt and answer, without the stop marker.
        parts: [T] what each position belongs to: "system", "image", "history" (earlier rounds), "question", "answer" or
            "region1", "region2", ...
        shapes: [N] boxes xyxy, or outlines, in pixels of the picture, in the order of the region positions.
        tokens: [T] the text of every token.
        chosen: positions in the sequence of the answer tokens whose log-probabilities are summed.
    """

    image: Image.Image = field(repr=False)
    question: str
    answer: str
    ids: list[int] = field(repr=False)
    parts: list[str] = field(repr=False)
    shapes: list[list]
    tokens: list[str] = field(repr=False)
    chosen: list[int]

    @classmethod
    @torch.no_grad()
    def of(
        cls, chat, question: str | None = None, regions=None, answer: str | None = None, about: str | None = None
    ) -> Target:
        """The target of a question in a conversation. Nothing is remembered by the chat.

        Args:
            chat: a `roilab.Chat`; its earlier rounds are part of the prompt.
            question: what is asked, as in `chat.ask`; None explains the last answer of the chat as it was given.
            regions: boxes (x1, y1, x2, y2) in pixels that are added first; they get the next numbers.
            answer: the forced answer; by default what the model says, greedily.
            about: a part of the answer whose tokens are chosen, e.g. "red"; by default all of them.
        Raises:
            ValueError: what `chat.ask` refuses; no answer to explain yet; `about` is not in the answer.
        """
        prompt = chat.prompt(question, regions)
        processor, ids, numbers = chat.processor, prompt.input_ids, prompt.regions
        if answer is not None:
            said = _answer_ids(processor, prompt, answer)
        else:  # ids that were generated are never tokenised again
            said = chat.answer.ids if question is None else _greedy(chat, prompt)
            answer = processor.decode_answer(said)
        pieces = token_texts(processor.tokenizer, said, answer)
        said = said[: len(pieces)]
        if not answer or not said:
            raise ValueError(f"the answer {answer!r} has no tokens (0) to explain")

        parts, order = [SYSTEM] * len(ids), iter(numbers)
        start, stop = _question_span(processor, prompt)
        opening, earlier = _opening(processor, ids), sum(len(each.input_ids) for each in prompt.ids[:-1])
        for i, each in enumerate(ids):
            if each == processor.image_token_id:
                parts[i] = IMAGE
            elif each == processor.region_token_id:
                parts[i] = f"region{next(order)}"
            elif start <= i < stop:
                parts[i] = QUESTION
            elif opening <= i < earlier:
                parts[i] = HISTORY
        texts = [processor.tokenizer.decode([each]) for each in ids]
        chosen = [len(ids) + i for i in _tokens_about(pieces, about, answer)]
        return cls(
            image=chat.image,
            question=prompt.turns[-1]["content"],
            answer=answer,
            ids=ids + said,
            parts=parts + [ANSWER] * len(said),
            shapes=prompt.shown,
            tokens=texts + pieces,
            chosen=chosen,
        )

    @property
    def boxes(self) -> list[list[float]]:
        """[N] xyxy in pixels of the picture: boxes, and the bounding boxes of outlines."""
        return [bounding_box(shape) for shape in self.shapes]

    @property
    def regions(self) -> list[int]:
        """Numbers of the regions, in the order of `shapes`."""
        return [int(part.removeprefix("region")) for part in self.parts if part.startswith("region")]

    def positions(self, *names: str) -> torch.Tensor:
        """Positions of the parts with these names; "regions" stands for all regions and "text" for all that is neither region
        nor image.

        Raises:
            ValueError: there is no such part.
        """
        found = [i for i, part in enumerate(self.parts) if any(_belongs(part, name) for name in names)]
        if not found and not any(name in ("regions", "text") for name in names):
            raise ValueError(f"no part {' or '.join(names)}; the parts are {', '.join(dict.fromkeys(self.parts))}")
        return torch.tensor(found, dtype=torch.long)

    def check_positions(self, positions) -> list[int]:
        """The positions as a list.

        Raises:
            ValueError: one of them is none of the sequence's.
        """
        for position in positions:
            if not 0 <= position < len(self.ids):
                raise ValueError(f"position {position}, but the sequence has {len(self.ids)} positions")
        return list(positions)

    def position(self, region: int) -> int:
        """Where in the sequence region N stands.

        Raises:
            ValueError: the question shows no such region.
        """
        return self.positions(f"region{region}").item()

    def index(self, region: int) -> int:
        """Which of `shapes` region N is.

        Raises:
            ValueError: the question shows no such region.
        """
        if region not in self.regions:
            shown = ", ".join(f"region{number}" for number in self.regions) or "none"
            raise ValueError(f"region{region} is not shown to the model; the regions are {shown}")
        return self.regions.index(region)

    @property
    def predicting(self) -> list[int]:
        """Positions whose logits predict the chosen tokens: each one before its token."""
        return [position - 1 for position in self.chosen]

    def sum_by_part(self, scores: torch.Tensor) -> dict[str, float]:
        """Scores of all positions [T] -> their sum per part, in the order of the sequence."""
        if len(scores) != len(self.parts):
            raise ValueError(f"{len(scores)} scores for {len(self.parts)} positions")
        sums = dict.fromkeys(self.parts, 0.0)
        for part, score in zip(self.parts, scores.tolist(), strict=True):
            sums[part] += score
        return sums

    def to_dict(self) -> dict:
        """Question, answer, boxes and the chosen tokens, without the picture; for JSON."""
        return {
            "question": self.question,
            "answer": self.answer,
            "regions": dict(zip(map(str, self.regions), self.shapes, strict=True)),
            "chosen": [self.tokens[i] for i in self.chosen],
        }


def _belongs(part: str, name: str) -> bool:
    if name == "text":
        return part in (SYSTEM, HISTORY, QUESTION, ANSWER)
    return part == name or (name == "regions" and part.startswith("region"))


def _greedy(chat, prompt) -> list[int]:
    device, side = chat.model.device, chat.model.config.region_config.roi_size
    boxes, masks = normalise_regions(prompt.shown, chat.image.size, side)
    embeds = chat.model.embed(
        torch.tensor([prompt.input_ids], device=device),
        pixel_values=chat.processor.preprocess(chat.image),
        boxes=[boxes.to(device)],
        masks=None if masks is None else [masks.to(device)],
    )
    length = {key: value for key, value in chat.generate_kwargs.items() if key in ("max_new_tokens", "max_length")}
    new = chat.model.generate(inputs_embeds=embeds, do_sample=False, num_beams=1, **length)
    return new[0].tolist()


def _answer_ids(processor, prompt, answer: str) -> list[int]:
    """Ids of an answer's words and of the stop marker that the template puts behind them."""
    turns, named = [*prompt.turns, {"role": "assistant", "content": answer}], {each - 1 for each in prompt.regions}
    return processor.encode_answer(turns, len(prompt.boxes), named).input_ids


def _question_span(processor, prompt) -> tuple[int, int]:
    """Where in the prompt the last question's own words are: what an empty question would leave is the template's."""
    *earlier, last = prompt.ids
    turns = [*prompt.turns[:-1], {"role": "user", "content": ""}]
    named = {region for ids in earlier for region in ids.regions}
    empty = processor.encode_question(turns, len(prompt.boxes), named).input_ids
    before, chunk = sum(len(each.input_ids) for each in earlier), last.input_ids
    start = _common(chunk, empty)
    stop = len(chunk) - _common(chunk[start:][::-1], empty[start:][::-1])
    return before + start, before + stop


def _opening(processor, ids: list[int]) -> int:
    """How many ids the template puts before the first question."""
    return _common(ids, processor.encode_question([{"role": "user", "content": ""}], 0, set()).input_ids)


def _common(one: list, other: list) -> int:
    """Length of the common beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _tokens_about(pieces: list[str], about: str | None, answer: str) -> list[int]:
    """Indices of the pieces of an answer that overlap the first place of `about` in it."""
    if about is None:
        return list(range(len(pieces)))
    text = "".join(pieces)
    start = text.find(about)
    if not about or start < 0:
        raise ValueError(f"{about!r} is not in the answer {answer!r}")
    found, at = [], 0
    for i, piece in enumerate(pieces):
        if at < start + len(about) and at + len(piece) > start and piece.strip():
            found.append(i)
        at += len(piece)
    return found
