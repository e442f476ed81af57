"""What if a box were elsewhere: the next word and the answer, fast enough to follow a mouse.

An intervention like any other: it shows what the model says with other boxes, not what people would mean by them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..regions import normalise_regions
from ..regions.outlines import validate_region
from .lens import check_top
from .passes import Scorer, log_probabilities, prepare, splice
from .results import Result, origin
from .target import Target


@dataclass
class Prospect(Result):
    """What would be said with other boxes.

    Attributes:
        target: the forced answer up to whose token the words stand, with the boxes of the beginning.
        shapes: boxes xyxy or outlines by number, in pixels of the picture; None where there is none.
        before: the words of the answer that stand before the next one.
        words, probabilities: the most probable next tokens, most probable first.
        answer: what the model says, greedily, up to 64 tokens.
        origin: model, dtype and attention implementation.
    """

    target: Target
    shapes: list
    before: str
    words: list[str]
    probabilities: list[float]
    answer: str
    origin: dict = field(default_factory=dict)

    def plot(self):
        """A figure; see `roilab.plotting.show_prospect`."""
        from ..plotting import show_prospect

        return show_prospect(self)


class Live:
    """Looks at one question with boxes that move: the picture is encoded and fused once, what stands before the first region is read once.

    Args:
        chat: whose regions and earlier rounds belong to the question; nothing is remembered by it.
        question: mentions regions.
        answer: by default what the model says.
        token: which token of the answer is looked at, from 0; by default the one that the boxes decide most: whose log-probability falls
            most when each region is the whole picture.
        top: how many next tokens are told.
    Raises:
        ValueError: what `Target.of` refuses; the answer has no such token; more tokens than there are.
    """

    @torch.no_grad()
    def __init__(self, chat, question: str, answer: str | None = None, token: int | None = None, top: int = 8):
        check_top(chat.model, top)
        self.model, self.top = chat.model, top
        self.target = Target.of(chat, question, answer=answer)
        self._inputs, self._origin = prepare(self.model, self.target), origin(self.model)
        self._scorer = Scorer(self.model, self.target, splice(self.model, self._inputs))
        said = self.target.positions("answer").tolist()
        if token is None:
            token = self._decided()
        if not 0 <= token < len(said):
            raise ValueError(
                f"token {token}, but the answer {self.target.answer!r} has {len(said)}: 0 to {len(said) - 1}"
            )
        self.token = token
        self.target.chosen[:] = [said[token]]

    @torch.no_grad()
    def __call__(self, shapes: list) -> Prospect:
        """What is said with these boxes or outlines, by number, in pixels of the picture.

        Raises:
            ValueError: a region that the question shows is missing, or a bad box.
        """
        target, tokenizer = self.target, self.model.processor.tokenizer
        missing = [number for number in target.regions if number > len(shapes) or shapes[number - 1] is None]
        if missing:
            there = [number for number, shape in enumerate(shapes, 1) if shape is not None]
            raise ValueError(f"there is no region {missing[0]} on the picture; the regions: {there or 'none'}")
        size = target.image.size
        regions = self._tokens([validate_region(shapes[number - 1], number, size) for number in target.regions])
        embeds = splice(self.model, self._inputs, regions=regions)
        best = self._scorer.logits(embeds)[0, 0].float().softmax(-1).topk(self.top)
        first, said = target.positions("answer")[0].item(), target.chosen[0]
        answer = self.model.processor.decode_answer(self._scorer.say(embeds[:, :first]))
        return Prospect(
            target,
            list(shapes),
            "".join(target.tokens[first:said]),
            [_word(tokenizer.decode([i])) for i in best.indices.tolist()],
            best.values.tolist(),
            answer,
            self._origin,
        )

    def _tokens(self, shapes: list) -> Tensor:
        """[1, N, D] region tokens of shapes in pixels."""
        side, device = self.model.config.region_config.roi_size, self.model.device
        boxes, masks = normalise_regions(shapes, self.target.image.size, side)
        masks = None if masks is None else [masks.to(device)]
        return self.model.region_encoder.pool(self._inputs.fused, [boxes.to(device)], masks)[0][None]

    def _decided(self) -> int:
        """The token of the answer that loses most when each region is the whole picture."""
        whole = [[0, 0, *self.target.image.size]] * len(self.target.shapes)
        rows = [
            log_probabilities(self._scorer.logits(splice(self.model, self._inputs, regions=regions)), self.target)[0]
            for regions in (self._inputs.regions, self._tokens(whole) if whole else self._inputs.regions)
        ]
        return (rows[0] - rows[1]).argmax().item()


def _word(token: str) -> str:
    """A token as it can be shown: without blanks around it, control characters spelt out."""
    text = token.strip() or "␣"
    return text if text.isprintable() else ascii(text)[1:-1]
