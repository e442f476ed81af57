"""The logit lens: what a position would say if the remaining layers were left out (nostalgebraist, 2020; for pictures arXiv 2410.07149).

Axes: L layers, K positions, D language-model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .passes import logits_at, prepare, splice
from .pictures import shuffled_patches
from .results import Result, origin
from .target import Target
from .tracing import keeping_states


@dataclass
class Lens(Result):
    """What positions would say, state by state of the residual stream.

    Attributes:
        target: what was read.
        positions: [K] of the sequence.
        tokens: [L + 1][K][top] texts, most probable first.
        probabilities: [L + 1, K, top] theirs.
        words: word -> [L + 1, K] probability of its first token.
        control: the same for the picture with its patches shuffled; None if not asked for.
        shuffled: whether this is such a control.
        origin: model, dtype and attention implementation.
    """

    target: Target
    positions: list[int]
    tokens: list[list[list[str]]] = field(repr=False)
    probabilities: Tensor = field(repr=False)
    words: dict[str, Tensor] = field(repr=False)
    control: Lens | None = field(repr=False)
    shuffled: bool = False
    origin: dict = field(default_factory=dict)

    def plot(self, position: int = 0):
        """A figure of one of the positions: the most probable tokens at every depth, as text on the colour of their probability."""
        from ..plotting import show_table

        tokens, values = [state[position] for state in self.tokens], self.probabilities[:, position]
        depths = ["embedding", *(f"layer {i}" for i in range(1, len(tokens)))]
        name = self.target.parts[self.positions[position]]
        columns = [f"{i + 1}." for i in range(values.shape[1])]
        title = f"what {name} would say" + (", picture shuffled" if self.shuffled else "")
        return show_table(values, depths, columns, title, "probability", limit=1, words=tokens, cell=96)


@torch.no_grad()
def logit_lens(
    model,
    explained: Target,
    positions: list[int] | None = None,
    words: list[str] = (),
    top: int = 5,
    control: bool = True,
    seed: int = 0,
) -> Lens:
    """Final norm and output layer applied to every state of the residual stream.

    Shows what a state has in common with the words it would be decoded to. Cannot show that the model uses it: later layers may read other
    directions, and early states need not be in the output's language at all. The control is read beside it: what also comes out with a
    shuffled picture does not come from what the region shows.

    Args:
        positions: which; by default those of the regions.
        words: words whose probability is kept too, as they stand within a sentence.
        top: tokens kept per state and position.
        control: read the picture with shuffled patches as well (`seed`).
    Raises:
        ValueError: no such position, or none at all; a word without tokens; more tokens than there are.
    """
    positions = explained.positions("regions").tolist() if positions is None else explained.check_positions(positions)
    if not positions:
        raise ValueError("0 positions to look at: the question shows no region; pass positions")
    check_top(model, top)
    tokenizer, ids = model.processor.tokenizer, {}
    for word in words:
        spoken = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        if not word.strip() or not spoken:
            raise ValueError(f"the word {word!r} has no tokens (0) whose probability could be kept")
        ids[word] = spoken[0]

    def read(pixel_values, beside=None, shuffled=False):
        with keeping_states(model, positions) as states:
            logits_at(model, splice(model, prepare(model, explained, pixel_values=pixel_values)), explained.predicting)
        chances = unembed(model, torch.stack(states)).float().softmax(-1).cpu()  # [L + 1, K, V]
        best = chances.topk(top)
        texts = [[tokenizer.batch_decode([[i] for i in row]) for row in state] for state in best.indices.tolist()]
        found = {word: chances[..., i] for word, i in ids.items()}
        return Lens(explained, positions, texts, best.values, found, beside, shuffled, origin(model))

    pixels = model.processor.preprocess(explained.image)
    beside = read(shuffled_patches(pixels, model.vision.grid, seed), shuffled=True) if control else None
    return read(pixels, beside)


def check_top(model, top: int):
    """Raises ValueError unless `top` is between 1 and the number of tokens."""
    count = model.get_output_embeddings().weight.shape[0]
    if not 1 <= top <= count:
        raise ValueError(f"top {top}, expected 1 to {count}, the number of tokens")


def unembed(model, states: Tensor) -> Tensor:
    """States [..., D] of the residual stream -> logits [..., V]: the final norm and the output layer.

    Raises:
        ValueError: not a LLaMA-type language model: no final norm.
    """
    norm = getattr(getattr(model.language_model, "base_model", None), "norm", None)
    if norm is None:
        raise ValueError(
            f"{type(model.language_model).__name__} has no final `norm`: only LLaMA-type models have a logit lens here"
        )
    return model.get_output_embeddings()(norm(states))
