"""Exercises of notebooks/10_paper_scale: what a conversation takes on a GPU, and a row that has moved."""

from .checking import Wrong, check, compare, numbers

LAYERS, WIDTH, BYTES = 32, 4096, 2  # of LLaMA-7B in float16
POSITIONS = 1000
TOKENS = ("[PAD]", "<im_patch>", "<bbox>", "<point>", "<im_start>", "<im_end>")
WORDS = 32000


@check
def cache(answer):
    """Bytes of the keys and values of POSITIONS positions."""
    right = 2 * LAYERS * WIDTH * BYTES * POSITIONS
    mistakes = {
        "that is keys alone: values are kept as well": right / 2,
        "those are numbers, not bytes: one in float16 takes two": right / BYTES,
        "that is one layer: each of them keeps its own": right / LAYERS,
        "that is one position: there are 1,000 of them": right / POSITIONS,
        "that is float32: float16 takes half of it": right * 2,
        "the width counts once: the heads share it": right * 32,
    }
    # Within a quarter per cent: 524 MB is right as well.
    compare(numbers(answer, ()) / right, 1.0, {said: value / right for said, value in mistakes.items()}, _WAY, 2.5e-3)
    return "half a megabyte per position: 1,000 positions take more than the whole vision tower"


_WAY = "per position and layer a key and a value, each as wide as the model; every number takes two bytes"


@check
def row(answer):
    """(row of <im_start> in weights without [PAD], the token whose row a reader by number takes in its place)."""
    if not isinstance(answer, (list, tuple)) or len(answer) != 2:
        raise Wrong("expected two things: the row, and the token")
    number, token = answer
    right = WORDS + TOKENS.index("<im_start>") - 1
    compare(
        numbers(number, (), "the row"),
        right,
        {
            "the row: that is the one with [PAD]: without it everything after it moves up": right + 1,
            "the row: that is <point>'s": right - 1,
            "the row: counted from the first added token; the 32,000 words come before": right - WORDS,
        },
        "the row: the words have the rows 0 to 31,999; then come the added tokens in their order",
        1e-6,
    )
    wrong = {
        "<point>": "the token: it is the one before; the reader's number is one too large",
        "<im_start>": "the token: then nothing would be wrong: the reader takes row 32,004, and that is another one here",
        "[PAD]": "the token: these weights have no such row",
    }
    if token != "<im_end>":
        raise Wrong(wrong.get(token, "the token: which one stands in row 32,004 when [PAD] is missing?"))
    return "the picture would open with what closes it, and for <im_end> itself there would be no row left"
