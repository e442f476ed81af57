"""Rows of the published word embeddings and the tokens they belong to.

LLaMA knows 32000 words. Training added six tokens, in this order: [PAD], <im_patch>, <bbox>, <point>, <im_start>, <im_end>. Other
versions of the tokenizer bring a pad token of their own, so that there are five and all numbers are one less. What holds is the name.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checkpoint import guarded

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ADDED = ("[PAD]", "<im_patch>", "<bbox>", "<point>", "<im_start>", "<im_end>")


class Rows:
    """Which row of the published embeddings each token of our tokenizer takes, by the token's name.

    Args:
        official, base: `Checkpoint`; the tokenizer is taken from the first of them that has one.
    Attributes:
        tokenizer: knows all of `ADDED`.
        ids: name -> id in it.
        source: per id, the published row; None: there is none, the mean of the words' rows stands in.
        told: in words, how it fits.
    Raises:
        ValueError: no tokenizer, or neither five nor six tokens were added.
    """

    def __init__(self, official, base=None):
        from tokenizers import AddedToken

        self.tokenizer = _tokenizer([each.folder for each in (official, base) if each is not None])
        known = self.tokenizer.get_vocab()
        named = {name: known[name] for name in ADDED if name in known}
        if base is not None and base.shapes.get(EMBEDDING):
            self.words = base.shapes[EMBEDDING][0]
        else:  # other tokens in front of the added ones, such as a <pad> of the tokenizer's own, count as words
            self.words = min(named.values(), default=len(known))
        if self.words > len(known):
            raise ValueError(f"the base has {self.words} rows of word embeddings, the tokenizer {len(known)} tokens")
        self.rows = (official.shapes.get(EMBEDDING) or (0,))[0]
        if len(named) == len(ADDED) and sorted(named.values()) == list(range(self.words, self.rows)):
            published = named  # weights and tokenizer agree
        else:
            published = official_rows(self.words, self.rows)
        new = [AddedToken(name, special=True, normalized=False) for name in ADDED]
        self.tokenizer.add_tokens(new, special_tokens=True)
        self.tokenizer.pad_token = ADDED[0]
        self.ids = {name: self.tokenizer.convert_tokens_to_ids(name) for name in ADDED}
        names = {number: name for name, number in self.ids.items()}
        self.source = [
            number if number < self.words else published.get(names.get(number)) for number in range(len(self.tokenizer))
        ]
        moved = [name for name in ADDED if published.get(name) != self.ids[name]]
        self.told = (
            f"{self.rows} rows of weights, {self.words} words and {len(known) - self.words} added tokens in the tokenizer"
            + (
                f"; matched by name: {', '.join(f'{name} {published.get(name)} -> {self.ids[name]}' for name in moved)}"
                if moved
                else ""
            )
        )

    def shape(self, key: str, shape: tuple[int, ...], base: bool = False) -> tuple[int, ...]:
        """Of one of our tensors as published: embeddings and head have the published rows, or, in the base, those of words alone."""
        return (self.words if base else self.rows, *shape[1:]) if key in (EMBEDDING, HEAD) else shape

    def reorder(self, value: Tensor) -> Tensor:
        """[published rows, D] -> [tokens, D]."""
        if self.source == list(range(self.rows)):
            return value
        mean = value[: self.words].float().mean(0, keepdim=True).to(value.dtype)
        index = torch.tensor([self.rows if row is None else row for row in self.source])
        return torch.cat([value, mean])[index]


def official_rows(words: int, rows: int) -> dict[str, int]:
    """Name -> row of the added tokens in published weights with so many rows."""
    if rows - words not in (len(ADDED), len(ADDED) - 1):
        raise ValueError(
            f"the weights have {rows} rows of word embeddings, the tokenizer {words} words: expected {words + 6} rows (for {', '.join(ADDED)}) "
            f"or {words + 5} (without {ADDED[0]})"
        )
    return {name: words + i for i, name in enumerate(ADDED[len(ADDED) - (rows - words) :])}


def _tokenizer(folders):
    from transformers import AutoTokenizer

    files = ("tokenizer.json", "tokenizer.model")
    for folder in folders:
        if any((folder / file).is_file() for file in files):
            break
    else:
        raise ValueError(f"no tokenizer ({' or '.join(files)}) in {' or '.join(map(str, folders))}")
    if (folder / files[0]).is_file():
        return guarded(folder, lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False), "a tokenizer")
    try:
        import google.protobuf  # noqa: F401
        import sentencepiece  # noqa: F401
    except ImportError:
        raise ValueError(
            f"{folder / files[1]} needs sentencepiece and protobuf: pip install 'roilab[convert]'"
        ) from None
    return guarded(folder, lambda: _sentencepiece(folder), "a tokenizer")


def _sentencepiece(folder):
    """A `tokenizer.model` as training read it: a blank in front of every run of words, also after each of the added tokens.

    Newer versions of transformers put one in front of the first run alone.
    """
    from tokenizers import normalizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None
    return tokenizer
