"""What is timed: each function returns ratios, measured in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from .literal import PAPER_GRID, PATCH, literal_region_embeddings, paper_region_encoder
from .memory import measure_region_memory

REGION_SIZES = dict(width=32, fusion_rounds=2, norm_groups=4, hidden_size=64, position_hidden_size=16, roi_size=7)
"""Of a region encoder beside which the language model takes nearly all of the time."""

FIRST, SECOND = "What is <region1> doing?", "And why do you think so?"


def alternate(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each function. Every repeat runs them all, in turn, so that they share the machine's good and bad moments."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


@torch.no_grad()
def bench_region_encoder(repeats: int = 3) -> dict[str, float]:
    """The region encoder of paper size against the literal formulation, one picture with two regions."""
    # Peaks of the same computation differ by a fifth from one process to the next.
    peak = {name: statistics.median(measure_region_memory(name) for _ in range(3)) for name in ("literal", "ours")}
    encoder, levels, boxes = paper_region_encoder()
    formulations = {
        "literal": lambda: literal_region_embeddings(encoder, levels, boxes),
        "ours": lambda: encoder(levels, boxes),
    }
    difference = (formulations["literal"]()[0] - formulations["ours"]()[0]).abs().max().item()
    seconds = alternate(formulations, repeats)
    return {
        "region_encoder_speedup": seconds["literal"] / seconds["ours"],
        "region_encoder_memory_ratio": peak["ours"] / peak["literal"],
        "region_encoder_max_difference": difference,
    }


@torch.no_grad()
def bench_moved_box(repeats: int = 3) -> dict[str, float]:
    """A moved box of a known picture against the same box from scratch, at paper size with a vision tower of CLIP ViT-L/14's shape.

    From scratch is what the embedding of the moved box costs without any cache: vision tower, fusion, pooling.
    """
    from ..presets import paper_7b
    from ..vision import VisionTower

    encoder, _, _ = paper_region_encoder()
    vision = VisionTower(paper_7b().vision_config, feature_layers=[-11, -8, -5, -2], image_layer=-2).eval()
    pixels = torch.randn(1, 3, PAPER_GRID * PATCH, PAPER_GRID * PATCH)
    moved = [torch.tensor([[0.3, 0.25, 0.7, 0.8]])]

    def from_scratch() -> Tensor:
        features = vision(pixels)
        return encoder(features.levels, moved, features.grid)[0]

    features = vision(pixels)
    fused = encoder.fuse(features.levels, features.grid)

    def from_cache() -> Tensor:
        return encoder.pool(fused, moved)[0]

    difference = (from_scratch() - from_cache()).abs().max().item()
    seconds = alternate({"scratch": from_scratch, "cache": from_cache}, repeats)
    return {"moved_box_speedup": seconds["scratch"] / seconds["cache"], "moved_box_max_difference": difference}


def bench_second_question(repeats: int = 3) -> dict[str, float]:
    """What `Chat` gains from the language model's kept keys and values, and that its caches change no logits.

    A small language model reads a prompt of paper size (256 image tokens, the system sentence, one round before). Timed is the way to the
    first token of a second question: with everything kept, against vision features and region embeddings kept but no keys and values.
    """
    from ..chat import Chat

    model = small_language_model()
    image = noise_picture()
    box, moved = (20, 30, 120, 140), (60, 30, 200, 190)

    # Equal logits. A hook that stays on both sees the logits of every position from which a token is read.
    seen: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda *call: seen.append(call[-1][0, -1]))
    logits = {}
    try:
        for caches in (True, False):
            chat = Chat(model, image, caches=caches, max_new_tokens=4)
            chat.ask(FIRST, regions=[box])
            chat.ask(SECOND)
            chat.move(1, moved)
            logits[caches] = torch.stack(seen)
            seen.clear()
    finally:
        hook.remove()

    chat = Chat(model, image, max_new_tokens=1)

    def first_round(keep_keys_and_values: bool):
        chat.clear()
        chat.ask(FIRST, regions=[box])
        if not keep_keys_and_values:
            chat._memory.forget_prompt()  # there is no reason for a user to drop these alone

    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(max(repeats, 1) * 5 + 1):  # short runs: more of them, the first is a warm-up
        for keep in seconds:
            first_round(keep)
            start = time.perf_counter()
            chat.ask(SECOND)
            seconds[keep].append(time.perf_counter() - start)
    medians = {keep: statistics.median(each[1:]) for keep, each in seconds.items()}
    return {
        "second_question_speedup": medians[False] / medians[True],
        "max_logit_difference": (logits[True] - logits[False]).abs().max().item(),
    }


def noise_picture(spread: float = 64):
    """A PIL picture of grey noise in the paper's size."""
    from PIL import Image

    return Image.effect_noise((PAPER_GRID * PATCH, PAPER_GRID * PATCH), spread).convert("RGB")


def small_language_model():
    """A random model: 256 image tokens, the Vicuna template, a language model of GPT-2 small's size (12 layers of 768)."""
    from transformers import CLIPVisionConfig, LlamaConfig

    from ..tokens import train_tokenizer
    from ..weights import build

    torch.manual_seed(0)
    # It has to know the words, as a real tokenizer does: spelt out in letters, a short question would be as long as a paragraph.
    words = (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
        f"answers to the human's questions. This provides an overview of the picture. ### Human: {FIRST} ### Assistant: {SECOND}"
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
    return build(vision, language, REGION_SIZES, "vicuna_v0", tokenizer, device="cpu", dtype=torch.float32)
