"""Text <-> ids: turns, the picture's place, `<regionN>` mentions and label masks.

A user writes `<region1>`; the first mention becomes `region1 <bbox>`, later ones `region1` (GPT4RoI, arXiv 2307.03601, section 3.2). Whatever
stands in a turn is plain text: a literal `<bbox>` or `</s>` in it never becomes a special token. Backslashes quote a mention:
`\\<region1>` is the text `<region1>` (`escape_regions` writes them).
"""

import re
import reprlib
import warnings
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerFast

from .templates import TEMPLATES, Content, Image, Plain, Special
from .tokens import IMAGE_END, IMAGE_PATCH, IMAGE_START, REGION, Prefix

_MENTION = re.compile(r"(\\*)<region([0-9]+)>")


class EscapedMarker(UserWarning):
    """A text held the mark that ends a turn; it is sent spaced out."""


@dataclass
class DialogueIds:
    """A dialogue as ids.

    Attributes:
        input_ids: token ids.
        labels: the same ids, -100 where nothing is learned (all but the assistant's words and the stop marker).
        regions: 0-based region of each `<bbox>` position, in order.
    """

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    regions: list[int] = field(default_factory=list)

    def extend(self, other: "DialogueIds"):
        self.input_ids += other.input_ids
        self.labels += other.labels
        self.regions += other.regions


class DialogueEncoder:
    """Dialogues -> ids and answers -> words, for one tokenizer and template."""

    tokenizer: PreTrainedTokenizerFast
    num_image_tokens: int

    def _prepare(self, template: str):
        self._template = TEMPLATES[template](self.tokenizer)
        self._prefix = Prefix(self.tokenizer)

    @property
    def image_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(IMAGE_PATCH)

    @property
    def region_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(REGION)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end an answer, beside the EOS token."""
        return self._template.stop_strings

    def encode_dialogue(
        self, turns: list[dict], num_regions: int = 0, add_generation_prompt: bool = False, image: bool = True
    ) -> DialogueIds:
        """Turns -> ids, labels and the regions to send.

        Args:
            turns: dicts of `role` ("user", "assistant", alternating, the user first) and `content` with `<region1>` ... mentions.
            num_regions: how many boxes there are.
            add_generation_prompt: end after the opening of the assistant's turn; the last turn must be the user's.
            image: put the picture's tokens into the first user turn.
        Raises:
            ValueError: a mention without a region, `<region0>`, a region first named by the assistant, turns out of order.
        """
        result, named = DialogueIds(), set()
        check_turns(turns, add_generation_prompt)
        for turn in range(1, len(turns) + 1, 2):
            result.extend(self.encode_question(turns[:turn], num_regions, named, image))
            if turn < len(turns):
                result.extend(self.encode_answer(turns[: turn + 1], num_regions, named))
        if not add_generation_prompt:
            roles = _roles(turns)
            follows = self._template.answer(roles, len(turns) - 1)
            result.extend(self._encode(self._template.after_last(roles), follows, turns, num_regions, named))
        return result

    def encode_question(self, turns: list[dict], num_regions: int, named: set[int], image: bool = True) -> DialogueIds:
        """The ids between the answer before and the answer to come, for turns that end with a question.

        Args:
            named: 0-based regions mentioned so far; updated. The rest as in `encode_dialogue`.
        """
        roles, turn = _roles(turns), len(turns)
        follows = self._template.answer(roles[:-1], turn - 2) if turn > 1 else None
        return self._encode(self._template.before_answer(roles, turn), follows, turns, num_regions, named, image=image)

    def encode_answer(self, turns: list[dict], num_regions: int, named: set[int]) -> DialogueIds:
        """The ids of the last turn, an answer: its words and the stop marker, all in the labels."""
        roles, turn = _roles(turns), len(turns) - 1
        follows = self._template.before_answer(roles[:-1], turn)
        return self._encode(self._template.answer(roles, turn), follows, turns, num_regions, named, learned=True)

    def stop_ids(self) -> list[int]:
        """The ids of the stop marker alone, to close an answer that was cut short."""
        turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]
        pieces = self._template.answer(_roles(turns), 1)
        pieces = pieces[next(i for i, each in enumerate(pieces) if isinstance(each, Content)) + 1 :]
        return self._encode(pieces, [Plain("")], turns, 0, set()).input_ids

    def decode_answer(self, ids) -> str:
        """Generated ids -> the answer's words, without stop marker, special tokens and outer blanks."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for stop in self.stop_strings:
            text = text.split(stop)[0]
        return text.strip()

    def mentions(self, text: str) -> set[int]:
        """0-based regions that a text mentions."""
        return {number - 1 for _, _, number in find_mentions(text)}

    def _encode(self, pieces, follows, turns, num_regions, named, learned=False, image=False) -> DialogueIds:
        """Pieces -> ids; `follows` are the pieces they follow in the prompt (None at its start)."""
        result, run = DialogueIds(), ""
        flat = []
        for piece in pieces:
            if isinstance(piece, Content):
                if piece.turn == 0 and turns[0]["role"] == "user" and image:
                    flat += self._template.opening()
                flat += self._content(turns[piece.turn], num_regions, named)
            else:
                flat.append(piece)
        after_text, starts = bool(follows) and not isinstance(follows[-1], Special), False

        def flush():
            nonlocal run, after_text
            if run:
                result.input_ids += self._prefix.encode(run, after_text, starts)
                run = ""

        for piece in flat:
            if isinstance(piece, Plain):
                run, starts = run + piece.text, starts or piece.starts
                continue
            flush()
            after_text = starts = False
            if isinstance(piece, Image):
                tokens = [IMAGE_START, *[IMAGE_PATCH] * self.num_image_tokens, IMAGE_END]
                result.input_ids += self.tokenizer.convert_tokens_to_ids(tokens)
            elif isinstance(piece, Special):
                result.input_ids.append(self.tokenizer.convert_tokens_to_ids(piece.token))
            else:
                result.input_ids.append(self.region_token_id)
                result.regions.append(piece)
        flush()
        result.labels = list(result.input_ids) if learned else [-100] * len(result.input_ids)
        return result

    def _content(self, turn: dict, num_regions: int, named: set[int]) -> list:
        """The words of a turn as `Plain` pieces and, at first mentions, the 0-based region (an int)."""
        pieces, position = [], 0
        text = turn["content"].encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be encoded
        if self._template.marker:
            text = _escape_marker(text, self._template.marker)
        total = sum(1 for each in _MENTION.finditer(text) if len(each.group(1)) % 2 == 0)
        for match in _MENTION.finditer(text):
            slashes, number = match.group(1), _number(match.group(2))
            pieces.append(Plain(text[position : match.start()] + slashes[: len(slashes) // 2]))
            position = match.end()
            if len(slashes) % 2:
                pieces.append(Plain(match.group()[len(slashes) :]))
                continue
            if number == 0:
                raise ValueError(f"<region0> is mentioned, but regions are counted from 1 ({num_regions} boxes given)")
            if number > num_regions:
                raise ValueError(
                    f"<region{number}> is mentioned ({total} <region> mentions in this turn), but there are {num_regions} boxes"
                )
            region = number - 1
            if region in named:
                pieces.append(Plain(f"region{number}"))
            elif turn["role"] == "assistant":
                seen = ", ".join(f"<region{each + 1}>" for each in sorted(named)) or "none"
                raise ValueError(f"<region{number}> is first named by the assistant; the user named {seen}")
            else:
                named.add(region)
                pieces += [Plain(f"region{number} "), region]
        return [*pieces, Plain(text[position:])]


def find_mentions(text: str) -> list[tuple[int, int, int]]:
    """Where a text mentions regions as `<regionN>`: (start, end, N) of each; quoted ones are none."""
    found = (match for match in _MENTION.finditer(text) if len(match.group(1)) % 2 == 0)
    return [(match.end(1), match.end(), _number(match.group(2))) for match in found]


def _number(digits: str) -> int:
    """The number that digits write; of more than 20 the first 20, which is more than there can be regions (Python converts no thousands)."""
    return int(digits.lstrip("0")[:20] or "0")


def escape_regions(text: str) -> str:
    """Quote every `<regionN>` in raw text, so that it stays text: `encode_dialogue` gives back exactly `text`."""
    return _MENTION.sub(lambda match: match.group(1) * 2 + "\\" + match.group()[len(match.group(1)) :], text)


def check_turns(turns: list[dict], ends_with_user: bool):
    """Raises ValueError unless turns are dicts of `role` and `content`, texts, whose roles alternate from the user on and end as wanted."""
    if not isinstance(turns, (list, tuple)):
        raise ValueError(f"the turns are {reprlib.repr(turns)}, expected a list of dicts")
    for i, turn in enumerate(turns):
        wanted = "assistant" if i % 2 else "user"
        if not isinstance(turn, dict) or not all(isinstance(turn.get(key), str) for key in ("role", "content")):
            raise ValueError(f"turn {i + 1} is {reprlib.repr(turn)}, expected a dict of role and content, both texts")
        if turn["role"] != wanted:
            raise ValueError(
                f"turn {i + 1} is by {turn['role']!r}, expected {wanted!r}: user and assistant alternate, the user first"
            )
    if not turns or (len(turns) % 2 == 1) != ends_with_user:
        wanted = "user's" if ends_with_user else "assistant's"
        raise ValueError(f"{len(turns)} turns given, but the last one must be the {wanted}")


def _escape_marker(text: str, marker: str) -> str:
    if marker not in text:
        return text
    # A longer row of the marker's character would still contain the marker after one replacement.
    escaped = re.sub(re.escape(marker[0]) + f"{{{len(marker)},}}", lambda match: " ".join(match.group()), text)
    warnings.warn(
        f"{marker!r} ends a turn in this template; in the text {text!r} it is sent as {' '.join(marker)!r}",
        EscapedMarker,
        stacklevel=5,
    )
    return escaped


def _roles(turns: list[dict]) -> list[str]:
    return [turn["role"] for turn in turns]
