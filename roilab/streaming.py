"""Answers while they are generated: ids -> pieces of text, and an event that ends generation."""

import threading
from collections.abc import Callable

import torch
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer


class TextPieces(BaseStreamer):
    """Gives generated text away in pieces that will not change any more.

    Args:
        processor: its tokenizer decodes, its stop strings are held back.
        give: called with each piece.
    """

    def __init__(self, processor, give: Callable[[str], None]):
        self.processor = processor
        self.give = give
        self.ids: list[int] = []
        self.shown = 0

    def put(self, value: torch.Tensor):
        self.ids += value.flatten().tolist()
        text = self.processor.tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for stop in self.processor.stop_strings:
            text = text.split(stop)[0]
            # The end of the text may be the beginning of the stop marker.
            held = next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)
            text = text[: len(text) - held]
        text = text.strip()  # blanks at the end wait for a word after them
        if len(text) > self.shown and not text.endswith("\ufffd"):
            self.give(text[self.shown :])
            self.shown = len(text)

    def end(self):
        pass


class StopEvent(StoppingCriteria):
    """Ends generation once an event is set, from whichever thread."""

    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device, dtype=torch.bool)


def token_texts(tokenizer, ids: list[int], text: str) -> list[str]:
    """What each id adds to the text, up to the end of `text` (what follows is the stop marker).

    The first ids of a character of several bytes add "", its last one adds the character.
    """
    whole = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    end = whole.find(text) + len(text)
    tokens, shown = [], 0
    for count in range(1, len(ids) + 1):
        if shown >= end:
            break
        now = tokenizer.decode(ids[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        tokens.append(now[shown:] if whole.startswith(now) else "")
        if whole.startswith(now):
            shown = len(now)
    return tokens
