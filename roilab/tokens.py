"""Tokenizers: the special tokens of pictures and regions, text in the middle of a prompt, and the tiny model's own vocabulary."""

from transformers import PreTrainedTokenizerFast

IMAGE_START, IMAGE_PATCH, IMAGE_END, REGION = "<im_start>", "<im_patch>", "<im_end>", "<bbox>"
SPECIAL_TOKENS = (IMAGE_START, IMAGE_PATCH, IMAGE_END, REGION)
TINY_TOKENS = ("<user>", "<assistant>")


class Prefix:
    """Encodes text in the middle of a prompt as it would be encoded there.

    Sentencepiece-like tokenizers put a blank in front of a text, some only at the very start of a prompt and some after each special
    token too. A run that follows other text never gets one. Whether this tokenizer does is measured once.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self._sentinel = self._raw("\n")
        alone = self._raw("x")
        self._adds = alone != self._raw("\nx")[len(self._sentinel) :]
        special = tokenizer(REGION + "x", add_special_tokens=False)["input_ids"]
        self._adds_after_special = self._adds and special[1:] == alone

    def encode(self, text: str, after_text: bool, starts: bool = False) -> list[int]:
        """Ids of plain text that follows other text or a special token, or with which the words of a prompt start."""
        if not starts and self._adds and (after_text or not self._adds_after_special):
            # A newline is its own token in such tokenizers: put it in front, then drop it with the blank before it.
            return self._raw("\n" + text)[len(self._sentinel) :]
        return self._raw(text)

    def _raw(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def add_special_tokens(tokenizer, template: str) -> int:
    """Add the tokens of the picture and the regions (and a pad token) to a tokenizer; returns how many were new."""
    from tokenizers import AddedToken

    names = SPECIAL_TOKENS + (TINY_TOKENS if template == "tiny" else ())
    known = tokenizer.get_vocab()
    if tokenizer.pad_token is None:
        # EOS stays what it is: as a pad it would be masked out of the attention and the loss.
        names = ("<pad>", *names)
        tokenizer.pad_token = "<pad>"
    new = [AddedToken(name, special=True, normalized=False) for name in names]
    tokenizer.add_tokens(new, special_tokens=True)
    return len(set(names) - set(known))


def train_tokenizer(texts, vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with single digits and the tokens of the `tiny` template; any Unicode text survives it.

    Args:
        texts: iterable of strings to learn the words from.
        vocab_size: rows in all; at least 256 bytes + 9 special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    specials = ["<pad>", "<s>", "</s>", *SPECIAL_TOKENS, *TINY_TOKENS]
    if vocab_size < 256 + len(specials):
        raise ValueError(f"vocab_size is {vocab_size}, but bytes and special tokens need {256 + len(specials)}")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=[*SPECIAL_TOKENS, *TINY_TOKENS],
        clean_up_tokenization_spaces=False,
    )
