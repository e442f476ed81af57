"""How two ways to the same are compared, and a second question with and without what a chat keeps of the first."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from .literal import PAPER_GRID, PATCH
from .memory import run_alone

REGION_SIZES = dict(width=32, fusion_rounds=2, norm_groups=4, hidden_size=64, position_hidden_size=16, roi_size=7)
"""Of a region encoder beside which the language model takes nearly all of the time."""

FIRST, SECOND = "What is <region1> doing?", ("And why do you think so?", "So why do you think and?")
BOX, MOVED = (20, 30, 120, 140), (60, 30, 200, 190)


def alternate(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each function. Every repeat runs them all, in turn, so that they share the machine's good and bad moments."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            seconds[name].append(timed(function))
    return {name: statistics.median(each) for name, each in seconds.items()}


def timed(function: Callable[[], object]) -> float:
    """Seconds that a function takes, on a GPU until it has done what it was told."""
    _wait()
    start = time.perf_counter()
    function()
    _wait()
    return time.perf_counter() - start


def _wait():
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def compared(
    name: str,
    ways: Callable[..., tuple[Callable, Callable]],
    repeats: int,
    device: str = "cpu",
    peaks: int = 1,
    **options,
) -> tuple[dict[str, float], list, dict[str, float]]:
    """The ratios of two ways to the same: time in one process, peak memory in one for each.

    Args:
        name: of the rows.
        ways: a function of a module; `ways(device, **options)` gives (the plain way, ours), ready to be run.
        peaks: how often peak memory is measured; the median counts.
    Returns:
        `NAME_speedup` and `NAME_memory_ratio`; what both returned, [plain, ours]; the median seconds of "plain" and "ours".
    """
    begin = f"from {ways.__module__} import {ways.__name__} as ways; from roilab.bench.memory import peak_of; "
    call = f"ways({device!r}, **{options!r})"

    def peak(which: int) -> float:
        return float(run_alone(f"{begin}print(peak_of({call}[{which}], {device!r}))"))

    memory = [statistics.median(peak(which) for _ in range(peaks)) for which in (0, 1)]
    plain, ours = ways(device, **options)
    returned = [plain(), ours()]
    seconds = alternate({"plain": plain, "ours": ours}, repeats)
    found = {f"{name}_speedup": seconds["plain"] / seconds["ours"], f"{name}_memory_ratio": memory[1] / memory[0]}
    return found, returned, seconds


def bench_second_question(repeats: int = 3, device: str = "cpu") -> dict[str, float]:
    """What `Chat` gains from the language model's kept keys and values, and that its caches change no logits.

    A small language model reads a prompt of paper size (256 image tokens, the system sentence, one round before). Timed is the way to the
    first token of a second question: with everything kept, against vision features and region embeddings kept but no keys and values.
    """
    found, *_ = compared("second_question", question_ways, 5 * max(repeats, 1), device)  # short runs: more of them
    return found | {"max_logit_difference": logit_difference(device)}


def question_ways(device: str) -> tuple[Callable, Callable]:
    from ..chat import Chat

    model, image = small_language_model(device), noise_picture()

    def way(keep: bool):
        chat = Chat(model, image, max_new_tokens=1)
        rounds = [chat.ask(FIRST, regions=[BOX])]
        seconds = itertools.cycle(SECOND)  # never the same one twice: of the last one, keys and values are kept as well

        def forget():
            chat.revise([BOX], rounds)
            if not keep:
                chat._memory.forget_prompt()  # there is no reason for a user to drop these alone

        def ask():
            chat.ask(next(seconds))
            forget()

        forget()
        return ask

    return way(False), way(True)


def logit_difference(device: str) -> float:
    """The largest difference between logits with and without caches, over two questions and a moved box."""
    from ..chat import Chat

    model, image = small_language_model(device), noise_picture()
    # A hook that stays on both sees the logits of every position from which a token is read.
    seen: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda *call: seen.append(call[-1][0, -1]))
    logits = []
    try:
        for caches in (True, False):
            chat = Chat(model, image, caches=caches, max_new_tokens=4)
            chat.ask(FIRST, regions=[BOX])
            chat.ask(SECOND[0])
            chat.move(1, MOVED)
            logits.append(torch.stack(seen))
            seen.clear()
    finally:
        hook.remove()
    return (logits[0] - logits[1]).abs().max().item()


def noise_picture(spread: float = 64):
    """A PIL picture of grey noise in the paper's size."""
    from PIL import Image

    return Image.effect_noise((PAPER_GRID * PATCH, PAPER_GRID * PATCH), spread).convert("RGB")


def small_language_model(device: str = "cpu"):
    """A random model: 256 image tokens, the Vicuna template, a language model of GPT-2 small's size (12 layers of 768)."""
    from transformers import CLIPVisionConfig, LlamaConfig

    from ..tokens import train_tokenizer
    from ..weights import build

    torch.manual_seed(0)
    # It has to know the words, as a real tokenizer does: spelt out in letters, a short question would be as long as a paragraph.
    words = (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
        f"answers to the human's questions. This provides an overview of the picture. ### Human: {FIRST} ### Assistant: {' '.join(SECOND)}"
    )
    tokenizer = train_tokenizer([words] * 2, 640)
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=5, num_attention_heads=4,
        image_size=PAPER_GRID * PATCH, patch_size=PATCH,
    )  # fmt: skip
    language = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=2048, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return build(vision, language, REGION_SIZES, "vicuna_v0", tokenizer, device=device, dtype=torch.float32)
