"""Prompt templates: how turns become one text, and where the assistant's words and the stop marker are in it.

A template yields chunks in the order of the dialogue: what precedes answer 0, answer 0, what precedes answer 1, ... Each chunk is a list of
pieces. `Plain` is text that is never read as a special token, `Special` is one special token, `Content` stands for the words of a turn.
The opening of the first user turn (where the picture goes) belongs to the template too.

Formats: vicuna_v0 is the Vicuna v0 / LLaVA v0 dialogue that GPT4RoI was trained on; chatml is whatever chat template the tokenizer brings;
tiny is ours.
"""

import re
from dataclasses import dataclass

VICUNA_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
IMAGE_SENTENCE = ("The ", " provides an overview of the picture.\n")


@dataclass(frozen=True)
class Plain:
    """Text; `starts`: a tokenizer that puts a blank in front of a text puts one in front of this."""

    text: str
    starts: bool = False


@dataclass(frozen=True)
class Special:
    token: str


@dataclass(frozen=True)
class Content:
    """The words of turn number `turn`."""

    turn: int


@dataclass(frozen=True)
class Image:
    """The place of the picture: `<im_start>`, the patches, `<im_end>`."""


class Template:
    """Base: subclasses say what stands around the turns.

    Attributes:
        marker: text that would end a turn if a user wrote it (None: the markers are special tokens, which text never becomes).
        stop_strings: texts at which generation stops, beside EOS.
    """

    name: str
    marker: str | None = None
    stop_strings: tuple[str, ...] = ()

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def opening(self) -> list:
        """Pieces in front of the first user's words."""
        return [Plain(IMAGE_SENTENCE[0]), Image(), Plain(IMAGE_SENTENCE[1])]

    def before_answer(self, roles: list[str], turn: int) -> list:
        """Pieces between the answer before (or the start) and the answer in position `turn` of the dialogue."""
        raise NotImplementedError

    def answer(self, roles: list[str], turn: int) -> list:
        """Pieces of an answer: its words and the stop marker."""
        raise NotImplementedError

    def after_last(self, roles: list[str]) -> list:
        """Pieces after the last answer; not part of any loss."""
        return []


class Vicuna(Template):
    name = "vicuna_v0"
    marker = "###"
    stop_strings = ("###",)

    def before_answer(self, roles, turn):
        pieces = []
        if turn == 1:
            if self.tokenizer.bos_token:
                pieces.append(Special(self.tokenizer.bos_token))
            pieces.append(Plain(VICUNA_SYSTEM + "\n\n###", starts=True))  # <s> is put there by the tokenizer
        return [*pieces, Plain(" Human: "), Content(turn - 1), Plain("\n### Assistant:")]

    def answer(self, roles, turn):
        return [Plain(" "), Content(turn), Plain("\n###")]


class Tiny(Template):
    name = "tiny"

    def opening(self):
        return [Image()]

    def before_answer(self, roles, turn):
        start = [Special(self.tokenizer.bos_token)] if turn == 1 else []
        return [*start, Special("<user>"), Content(turn - 1), Special("<assistant>")]

    def answer(self, roles, turn):
        return [Content(turn), Special(self.tokenizer.eos_token)]


class ChatML(Template):
    """The tokenizer's own chat template, rendered with placeholders and cut at them."""

    name = "chatml"

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        if not tokenizer.chat_template:
            raise ValueError("template 'chatml' needs a tokenizer with a chat template, this one has none")
        specials = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        specials |= set(tokenizer.all_special_tokens)
        self._specials = re.compile(
            "|".join(re.escape(each) for each in sorted(specials, key=len, reverse=True)) or r"(?!)"
        )

    def before_answer(self, roles, turn):
        rendered, start = self._render(roles[:turn], True), 0
        if turn > 1:
            earlier = self._render(roles[: turn - 1], False)
            start = self._answer_end(earlier, turn - 2)
            if not rendered.startswith(earlier[:start]):
                raise ValueError(
                    "this chat template rewrites earlier turns; it cannot be used for conversations with several rounds"
                )
        return self._pieces(rendered[start:])

    def answer(self, roles, turn):
        rendered = self._render(roles[: turn + 1], False)
        start = rendered.index(_placeholder(turn))
        return self._pieces(rendered[start : self._answer_end(rendered, turn)])

    def after_last(self, roles):
        rendered = self._render(roles, False)
        return self._pieces(rendered[self._answer_end(rendered, len(roles) - 1) :])

    def _answer_end(self, rendered: str, turn: int) -> int:
        """Where the stop marker (the first special token after the words) of an answer ends."""
        after = rendered.index(_placeholder(turn)) + len(_placeholder(turn))
        stop = self._specials.search(rendered, after)
        if stop is None:
            raise ValueError("this chat template has no special token after an answer, so generation could not stop")
        return stop.end()

    def _render(self, roles: list[str], generation_prompt: bool) -> str:
        turns = [{"role": role, "content": _placeholder(i)} for i, role in enumerate(roles)]
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)

    def _pieces(self, text: str) -> list:
        pieces, position = [], 0
        pattern = re.compile(f"{_placeholder('([0-9]+)')}|{self._specials.pattern}")
        for match in pattern.finditer(text):
            if match.start() > position:
                pieces.append(Plain(text[position : match.start()]))
            pieces.append(Content(int(match.group(1))) if match.group(1) else Special(match.group()))
            position = match.end()
        return pieces + ([Plain(text[position:])] if position < len(text) else [])


def _placeholder(turn) -> str:
    # Private-use characters: no chat template tests for them, and users' words are never rendered.
    return f"\ue000{turn}\ue001"


TEMPLATES = {template.name: template for template in (Vicuna, ChatML, Tiny)}
