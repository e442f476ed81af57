"""What a model of given sizes takes on a GPU, counted from its configuration: before the weights are downloaded, and before a GPU is rented."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from .quantised import WHOLE

if TYPE_CHECKING:
    from ..config import GPT4RoIConfig

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes per parameter in NF4 with double quantisation (arXiv 2305.14314): a scale of 8 bits per 64, one of 32 bits per 256 scales."""


def budget(config: GPT4RoIConfig, positions: int = 1024, four_bit: bool = False, itemsize: int = 2) -> dict[str, int]:
    """Bytes of each part of a model that answers one question at a time.

    Args:
        config: sizes; no weights are made.
        positions: of the conversation, the picture's included.
        four_bit: the language model's layers as `four_bit` holds them.
        itemsize: bytes of every other number (2: float16 or bfloat16).
    Returns:
        "vision", "projector", "region_encoder", "layers" and "words" (embeddings, output layer, norms) of the language model; "keys and
        values"; "fused pyramid", kept for the next box; "fusing", in use while a picture is new, about: input, output and norm of the
        finest level.
    """
    from ..model import GPT4RoI

    with torch.device("meta"):
        model = GPT4RoI(config)
    found = {name: _bytes(model.get_submodule(name), itemsize) for name in ("vision", "projector", "region_encoder")}
    quantised = {
        id(module.weight): module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(part in name for part in WHOLE)
    }
    linear = sum(quantised.values())
    language = _bytes(model.language_model, itemsize)
    found["layers"] = math.ceil(linear * (NF4 if four_bit else itemsize))
    found["words"] = language - linear * itemsize
    text = config.text_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    found["keys and values"] = 2 * text.num_hidden_layers * text.num_key_value_heads * head * positions * itemsize
    rows, columns = model.vision.grid
    count, width = config.region_config.num_levels, config.region_config.width
    cells = [rows * columns * 4 ** (count - 1 - i) for i in range(count)]
    found["fused pyramid"] = sum(cells) * width * itemsize
    found["fusing"] = 3 * cells[0] * width * itemsize
    return found


def budget_table(config: GPT4RoIConfig, positions: int = 1024) -> str:
    """`budget` in half precision and with the language model in 4 bits, as a Markdown table in GB."""
    columns = [budget(config, positions, four_bit) for four_bit in (False, True)]
    rows = [f"| {name} | {columns[0][name] / 1e9:.2f} | {columns[1][name] / 1e9:.2f} |" for name in columns[0]]
    total = " | ".join(f"{sum(each.values()) / 1e9:.2f}" for each in columns)
    return "\n".join(
        [
            f"| {positions:,} positions, GB | 16 bits | language model in 4 bits |",
            "| --- | ---: | ---: |",
            *rows,
            f"| **sum** | {total} |",
        ]
    )


def _bytes(module: nn.Module, itemsize: int) -> int:
    return sum(each.numel() for each in module.parameters()) * itemsize
